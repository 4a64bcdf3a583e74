"""What this peer has done and seen: counters that survive a restart, outcomes, events; and the status made of them."""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.files import read_json, write_json
from dht.membership import Member
from dht.records import Report
from peer.block.timing import agreement
from peer.http.status import BlockStatus, DigestMark, PeerStatus
from protocols.sealing import Mark

FILE = "peer.json"
SHOWN_DIGESTS = 5
SHOWN_EVENTS = 50
MAX_LOSSES = 200


class Chronicle:
    """Counts rounds and tokens since the peer first joined, and remembers what a person would want to know."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / FILE
        saved = read_json(self._path) or {}
        self.rounds = int(saved.get("rounds", 0))
        self.tokens = int(saved.get("tokens", 0))
        self.sub_model = str(saved.get("sub_model", ""))
        self.restarts = int(saved.get("starts", 0))
        self.starts = self.restarts + 1
        self.outcomes: dict[str, tuple[int, str]] = {}  # block → tick and words of the last round
        self.skipped: Counter[str] = Counter()  # cause → rounds, since this daemon began
        self.events: deque[str] = deque(maxlen=SHOWN_EVENTS)
        self.losses: list[tuple[int, float]] = []
        self._tokens_seen = 0  # of the worker's counter, already in `tokens`

    def save(self) -> None:
        """Write the counters. Raises StateError."""
        facts = {"rounds": self.rounds, "tokens": self.tokens, "sub_model": self.sub_model, "starts": self.starts}
        write_json(self._path, facts)

    def happened(self, event: str) -> None:
        """Remember an event, with the time of day."""
        self.events.append(f"{time.strftime('%H:%M:%S')} {event}")

    def trained(self, tokens: int, loss: float | None) -> None:
        """Take in the worker's counter, which starts anew with each sub-model and falls when work was dropped."""
        self.tokens += max(0, tokens - self._tokens_seen)
        self._tokens_seen = tokens
        if loss is not None and (not self.losses or self.losses[-1][0] != self.tokens):
            self.losses.append((self.tokens, loss))
            if len(self.losses) > MAX_LOSSES:
                del self.losses[1:-1:2]

    def restarted_counter(self) -> None:
        """Say that the worker counts from zero again."""
        self._tokens_seen = 0


def packed_digests(marks: Mapping[str, Sequence[Mark]]) -> dict[str, list[tuple[int, str]]]:
    """Return the last digests of each block, as a member record carries them."""
    return {block: [(m.version, m.digest) for m in list(past)[-SHOWN_DIGESTS:]] for block, past in marks.items()}


def peer_status(peer_id: str, report: Report, seen_tick: int) -> PeerStatus:
    """Return what a peer has published of itself."""
    digests = {
        block: [DigestMark(version=version, digest=digest) for version, digest in marks]
        for block, marks in report.digests.items()
    }
    return PeerStatus(peer_id=peer_id, seen_tick=seen_tick, **{**report.model_dump(), "digests": digests})


def block_status(
    block: str, members: Mapping[str, Member], holders: Sequence[str], tick: int, own: tuple[int, int] | None
) -> BlockStatus:
    """Return how a block stands by the members' records; `own` is this peer's version and age of it."""
    keeping = {peer: m.record for peer, m in members.items() if block in m.record.keeps and not m.record.is_leaving}
    histories = {peer: m.record.report.digests.get(block, []) for peer, m in members.items()}
    version, age = own or (0, 0)
    return BlockStatus(
        block=block,
        holders=list(holders),
        keepers=sorted(peer for peer in keeping if peer not in holders),
        version=max([version, *(record.keeps[block] for record in keeping.values())]),
        age=max([age, *(record.ages.get(block, 0) for record in keeping.values())]),
        agreement=agreement(histories, holders),
    )
