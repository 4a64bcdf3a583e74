"""What the demo tells while it runs: what happens, how far it is, and when it will be done. Nothing is started here."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live

from peer.commands.page import overview
from peer.http.status import Status
from peer.http.view import duration

LINE_S = 9.0  # after which a line is printed again, where there is no terminal to draw on
PACE_SHARE = 0.05  # of a stage, after which its own pace says more than what was expected
STALL_S = 240.0  # without any progress, after which a daemon counts as stuck
STILL_S = 300.0  # and a stage, whose daemons may be busy with rounds that all fail

Mark = tuple[Any, ...] | None  # what changes when a daemon gets further; None before its first answer


@dataclass
class Pace:
    """How far one stage is, and when it ends: by its own pace, and before it has one by what was expected."""

    of_what: str  # that `share` is a share of
    expected_s: float | None  # None: nothing is known beforehand
    began_s: float
    source: Callable[[], float] | None = None  # of the share; None: whoever works notes it
    share: float = 0.0
    _first: tuple[float, float] | None = None  # when the share was seen first, and the share
    _noted_s: float = 0.0  # when it last grew

    def note(self, share: float, now_s: float) -> None:
        """Take in the share that is done. It never falls: of several daemons some know less than others."""
        if share > self.share or self._first is None:
            self.share = max(self.share, min(1.0, share))
            self._first = self._first if self._first is not None and self._first[1] > 0 else (now_s, self.share)
            self._noted_s = now_s

    def left_s(self, now_s: float) -> float | None:
        """Return the seconds until the stage is over; None: not known, or later than it looked."""
        if self._first is not None and self.share - self._first[1] >= PACE_SHARE:
            per_share_s = (self._noted_s - self._first[0]) / (self.share - self._first[1])
            ends_s = self._noted_s + (1 - self.share) * per_share_s
        else:
            ends_s = self.began_s + (self.expected_s or 0.0)
        return ends_s - now_s if ends_s > now_s else None

    def is_still(self, now_s: float) -> bool:
        """Whether a stage that daemons bring forward has not got further for STILL_S."""
        return self.source is not None and now_s - max(self.began_s, self._noted_s) > STILL_S

    def told(self, now_s: float) -> str:
        """Return the share that is done and the time that is left, in words."""
        left_s = self.left_s(now_s)
        left = "not known yet how long" if left_s is None else f"about {duration(left_s)} left"
        return f"{self.share:.0%} of {self.of_what}, {left}"


@dataclass
class Story:
    """What the peers' own status told."""

    pace: Pace
    started_s: float  # on the clock of `time.monotonic`, as all times here
    headline: str = "starting"
    statuses: dict[str, Status] = field(default_factory=dict)  # the last of each peer of the swarm, by its name
    baselines: dict[str, Status] = field(default_factory=dict)  # and of each lone daemon
    marks: dict[str, tuple[Mark, float]] = field(default_factory=dict)  # of each daemon, and since when
    rounds_at_leave: dict[str, int] = field(default_factory=dict)
    rounds_at_return: int = 0
    news: asyncio.Condition = field(default_factory=asyncio.Condition)  # notified after each look at the daemons

    @property
    def shown(self) -> list[Status]:
        """The daemons of one run to draw: the swarm, and later the baseline that trains longest."""
        return [self.baselines["dense"]] if "dense" in self.baselines else list(self.statuses.values())

    @property
    def age(self) -> int:
        """How many tokens the swarm has absorbed."""
        return max((status.age for status in self.statuses.values()), default=0)

    @property
    def share(self) -> float:
        """How much of the run's tokens that is."""
        return max((status.age / status.total_tokens for status in self.statuses.values()), default=0.0)

    def begin(self, headline: str, of_what: str, expected_s: float, source: Callable[[], float] | None = None) -> None:
        """Begin a stage, which should take `expected_s` seconds; `source` returns the share of it that is done."""
        self.headline = headline
        self.pace = Pace(of_what, expected_s, time.monotonic(), source)

    def refresh(self, now_s: float) -> None:
        """Bring the pace up to what the daemons have told."""
        if self.pace.source is not None:
            self.pace.note(self.pace.source(), now_s)

    def is_done(self, name: str) -> bool:
        """Whether a daemon has said that its run has all its tokens; False before it has said anything."""
        status = self.statuses.get(name) or self.baselines.get(name)
        return status is not None and status.phase == "done"

    def take_in(self, name: str, status: Status | None, now_s: float, *, is_baseline: bool) -> None:
        """Take in what a daemon answered; None: nothing this time."""
        mark = self.marks.get(name, (None, now_s))[0]
        if status is not None:
            (self.baselines if is_baseline else self.statuses)[name] = status
            own = status.peers[0]
            mark = (status.phase, status.age, own.state, own.tokens, own.rounds)
        if name not in self.marks or mark != self.marks[name][0]:
            self.marks[name] = (mark, now_s)

    def forget(self, name: str) -> None:
        """Expect no progress of a daemon that does not run."""
        self.marks.pop(name, None)

    def stuck(self, now_s: float) -> str | None:
        """Return the name of a daemon that should get further and has not for STALL_S."""
        late = (name for name, (_, since_s) in self.marks.items() if now_s - since_s > STALL_S)
        return next((name for name in late if not self.is_done(name)), None)

    def rounds(self) -> dict[str, int]:
        """Return each peer's rounds by its own count."""
        return {name: status.peers[0].rounds for name, status in self.statuses.items()}

    def digests(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Return block → peer → its last five digests."""
        told: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for status in self.statuses.values():
            own = status.peers[0]
            for block, marks in own.digests.items():
                told.setdefault(block, {})[own.peer_id] = [mark.model_dump() for mark in marks]
        return told

    def facts(self) -> dict[str, Any]:
        """Return what the demo reports of its course."""
        rounds = self.rounds()
        after = [rounds[name] - at for name, at in self.rounds_at_leave.items()]
        return {
            "rounds": max(rounds.values()),
            "rounds_after_founder_left": max(after, default=0),
            "rounds_after_kill_of_killed_peer": rounds["peer1"] - self.rounds_at_return,
            "digests": self.digests(),
        }


class Lines:
    """When a line is due where there is no terminal: at each new headline, and again while nothing else happens."""

    def __init__(self) -> None:
        self._headline = ""
        self._said_s = 0.0

    def due(self, story: Story, now_s: float) -> str | None:
        """Return the line to print now, if any."""
        if story.headline == self._headline and now_s - self._said_s < LINE_S:
            return None
        self._headline, self._said_s = story.headline, now_s
        return f"{now_s - story.started_s:5.0f} s  {story.headline} ({story.pace.told(now_s)})"


@contextmanager
def screen(console: Console, as_json: bool) -> Iterator[Callable[[Story], None]]:
    """Yield what draws the story: live in a terminal, in lines elsewhere."""
    if not console.is_terminal or as_json:
        lines = Lines()

        def say(story: Story) -> None:
            line = lines.due(story, time.monotonic())
            if line is not None:
                print(line, file=sys.stderr, flush=True)

        yield say
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def draw(story: Story) -> None:
            width, height = console.size
            title = f"{story.pace.told(time.monotonic())}: {story.headline}"  # what is too long loses its end
            live.update(overview(story.shown, time.time(), title, width=width, height=height - 1), refresh=True)

        yield draw


def swarm_share(statuses: Mapping[str, Status]) -> float:
    """Return how far the swarm is. What a sub-model gets beyond its part does not bring the end any nearer."""
    return max(map(_run_share, statuses.values()), default=0.0)


def _run_share(status: Status) -> float:
    ages = {block.block: block.age for block in status.blocks}
    common = min(ages.get("model", 0), status.total_tokens)
    parted = [name for name in status.sub_models if name != "model"]
    part = (status.total_tokens - common) / max(1, len(parted))
    absorbed = sum(min(part, max(0, ages.get(name, 0) - common)) for name in parted)
    return (common + absorbed) / status.total_tokens


def least_share(statuses: Mapping[str, Status], totals: Mapping[str, int]) -> float:
    """Return how far the baseline is that will be done last: the smallest share that one of them has trained."""
    shares = [statuses[name].peers[0].tokens / total if name in statuses else 0.0 for name, total in totals.items()]
    return min(shares, default=0.0)
