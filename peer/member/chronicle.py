"""What this peer has done and seen: counters that survive a restart, outcomes, events."""

import logging
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from configs.files import read_model, write_json
from peer.block.exchange import Outcome
from peer.workers.progress import Progress

log = logging.getLogger(__name__)

FILE = "peer.json"
SHOWN_EVENTS = 50
MAX_LOSSES = 200


class Counters(BaseModel):
    """What is in `peer.json`."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    rounds: Annotated[int, Field(ge=0)] = 0
    tokens: Annotated[int, Field(ge=0)] = 0
    sub_model: str = ""  # that was trained last
    starts: Annotated[int, Field(ge=0)] = 0


class Chronicle:
    """Counts rounds and tokens since the peer first joined, and remembers what a person would want to know."""

    def __init__(self, state_dir: Path) -> None:
        """Take up what was counted before. Raises StateError if its file is damaged."""
        self._path = state_dir / FILE
        saved = read_model(self._path, Counters, "delete it: it only holds what this peer has counted") or Counters()
        self.rounds, self.tokens, self.sub_model = saved.rounds, saved.tokens, saved.sub_model
        self.restarts = saved.starts
        self.starts = self.restarts + 1
        self.outcomes: dict[str, tuple[int, str]] = {}  # block → tick and words of the last round
        self.skipped: Counter[str] = Counter()  # cause → rounds, since this daemon began
        self.events: deque[str] = deque(maxlen=SHOWN_EVENTS)
        self.losses: list[tuple[int, float]] = []
        self.held_out: dict[str, list[tuple[int, float]]] = {}  # domain → (tokens, loss)
        self.faults: Counter[str] = Counter()  # what went wrong that should not have → times, since this daemon began
        self._seen = Progress()  # whose tokens are in `tokens` already

    def save(self) -> None:
        """Write the counters. Raises StateError."""
        counters = Counters(rounds=self.rounds, tokens=self.tokens, sub_model=self.sub_model, starts=self.starts)
        write_json(self._path, counters.model_dump())

    def happened(self, event: str) -> None:
        """Remember an event, with the time of day."""
        self.events.append(f"{time.strftime('%H:%M:%S')} {event}")

    def round_ended(self, block: str, tick: int, outcome: Outcome, sub_model: str) -> None:
        """Count a round, and remember how the last one of each block ended."""
        self.outcomes[block] = (tick, outcome.text)
        if outcome.cause:
            self.skipped[outcome.cause] += 1
        if outcome.is_step and block == sub_model:
            self.rounds += 1

    def failed(self, what: str, error: BaseException) -> None:
        """Remember a fault of our own: the first of a kind with its traceback in the log, the others as a number."""
        kind = type(error).__name__
        self.faults[kind] += 1
        if self.faults[kind] == 1:
            log.error("%s; please report it", what, exc_info=error)
            self.happened(what)

    def trained(self, now: Progress) -> None:
        """Take in the worker's counter, which starts anew with each load and falls when work was dropped."""
        seen = self._seen.tokens if self._seen.load == now.load else 0
        self.tokens += max(0, now.tokens - seen)
        self._seen = now
        if now.loss is not None and (not self.losses or self.losses[-1][0] != self.tokens):
            _add(self.losses, self.tokens, now.loss)

    def examined(self, losses: Mapping[str, float]) -> None:
        """Remember the losses on held-out text, by domain."""
        for domain, loss in losses.items():
            _add(self.held_out.setdefault(domain, []), self.tokens, loss)


def _add(points: list[tuple[int, float]], tokens: int, loss: float) -> None:
    """Add a point to a curve; of one that becomes long every second point goes, but not the lowest."""
    points.append((tokens, loss))
    if len(points) > MAX_LOSSES:
        lowest = min(points, key=lambda point: point[1])
        points[1:-1] = [point for at, point in enumerate(points[1:-1]) if at % 2 or point == lowest]
