"""What happened in the last rounds of this peer: a record of each, in memory and in two files of bounded size.

A record is made at a round's end from what its book has noted meanwhile; nothing is asked of anybody for it.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from configs.files import disk_errors
from peer.block.exchange import Outcome
from peer.http.history import Part, RoundRecord, Rounds
from peer.train.outer import OuterState
from protocols.offers import Book

log = logging.getLogger(__name__)

FILE, OLD_FILE = "rounds.jsonl", "rounds.old.jsonl"
MAX_FILE_BYTES = 2 << 20  # of one of the two
KEPT = 1000  # records in memory, of all blocks
MOST = 500  # that are given at once, as the page and `shoal replay --last` may ask for
MAX_WORDS = 300  # characters of a reason


@dataclass(frozen=True)
class Passed:
    """When a round was, and with whom; times by the event loop's clock but for `at`."""

    block: str
    tick: int
    group: Sequence[str]
    at: float  # wall-clock seconds of the tick
    tick_at: float
    length_s: float
    cut_s: float  # after the tick
    phases: Mapping[str, float]  # what this peer did itself, in seconds after the tick
    bytes_in: int = 0
    bytes_out: int = 0


def record_of(passed: Passed, book: Book, outcome: Outcome, state: OuterState) -> RoundRecord:
    """Return what happened in a round, by its book and by the block's state afterwards."""
    phases = {name: at - passed.tick_at for name, at in book.phases.items()} | dict(passed.phases)
    return RoundRecord(
        block=passed.block,
        tick=passed.tick,
        at=passed.at,
        length_s=passed.length_s,
        cut_s=passed.cut_s,
        outcome=outcome.text[:MAX_WORDS],
        cause=outcome.cause,
        is_step=outcome.is_step,
        version=state.version,
        age=state.age,
        digest=state.digest,
        phases={name: round(seconds, 3) for name, seconds in sorted(phases.items(), key=lambda item: item[1])},
        parts=[_part(passed, book, peer) for peer in passed.group] if len(passed.group) > 1 else [],
        bytes_in=passed.bytes_in,
        bytes_out=passed.bytes_out,
    )


def _part(passed: Passed, book: Book, peer: str) -> Part:
    offer, parcel = book.offers.get(peer), book.parcels.get(peer)
    offer_s, list_s = (_after(times.get(peer), passed.tick_at) for times in (book.came, book.heard))
    size_bytes = len(offer.payload) if offer is not None else 0
    tokens = offer.header.tokens if offer is not None else 0
    part = Part(peer=peer, fate="sealed", offer_s=offer_s, list_s=list_s, size_bytes=size_bytes, tokens=tokens)
    if peer in book.sealed:
        return part
    if peer in book.refused:
        fate, why = "left out", f"its offer is not taken: {book.refused[peer]}"
    elif offer_s is not None and offer_s <= passed.cut_s:
        fate, why = "left out", "fewer than half of the group had its offer by the cut"
    elif offer_s is not None:
        fate, why = "late", f"its offer was here {offer_s:.2g} s after the tick, the cut is after {passed.cut_s:.2g} s"
    elif parcel is not None and parcel.held:
        fate, why = "late", f"{len(parcel.held)} of {len(parcel.hashes)} pieces of its offer were here by the cut"
    elif list_s is not None:
        fate, why = "late", "it answers, and had made no offer by the cut"
    else:
        fate, why = "absent", "it was not heard"
    return part.model_copy(update={"fate": fate, "why": why[:MAX_WORDS]})


def _after(at: float | None, tick_at: float) -> float | None:
    return None if at is None else round(at - tick_at, 3)


class Timeline:
    """The records of the last rounds, the oldest first."""

    def __init__(self, state_dir: Path) -> None:
        """Take up what was recorded before; a line that is damaged is passed over: it is only shown."""
        self._path, self._old = state_dir / FILE, state_dir / OLD_FILE
        self.records: deque[RoundRecord] = deque(maxlen=KEPT)
        self._unwritten: deque[str] = deque(maxlen=KEPT)
        for path in (self._old, self._path):
            self.records.extend(_read(path))

    def ended(self, record: RoundRecord) -> None:
        """Remember a round."""
        self.records.append(record)
        self._unwritten.append(record.model_dump_json(exclude_defaults=True))

    def last(self, block: str) -> RoundRecord | None:
        """Return the last round of a block."""
        return next((record for record in reversed(self.records) if record.block == block), None)

    def rounds(self, block: str | None = None, before: int | None = None, limit: int = MOST) -> Rounds:
        """Return the last rounds, the newest first: of one block or of all, those before a tick or up to now."""
        found = [
            record
            for record in reversed(self.records)
            if (block is None or record.block == block) and (before is None or record.tick < before)
        ]
        shown = found[: max(1, min(limit, MOST))]
        # Rounds of one tick stay together: else `older` would pass some over.
        while shown and len(shown) < len(found) and found[len(shown)].tick == shown[-1].tick:
            shown.append(found[len(shown)])
        return Rounds(rounds=shown, older=shown[-1].tick if len(shown) < len(found) else None)

    def save(self) -> None:
        """Write what is new. Raises StateError."""
        lines = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if not lines:
            return
        with disk_errors(self._path):
            if self._path.exists() and self._path.stat().st_size > MAX_FILE_BYTES:
                self._path.replace(self._old)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))


def _read(path: Path) -> list[RoundRecord]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    records = []
    for line in lines[-KEPT:]:
        try:
            records.append(RoundRecord.model_validate_json(line))
        except ValidationError:
            log.debug("a damaged line of %s is passed over", path)
    return records
