"""The swarm's clock: ticks since genesis. What happens at a tick is decided elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_SKEW_S = 3.0  # between the clocks of two peers: Hivemind's DHT works up to here
FOLLOWED_S = 10.0  # largest correction of the machine's clock that is followed; beyond, it was set wrongly, or had been
SLEW = 0.05  # seconds of a correction that are followed in a second


def since_boot() -> float:
    """Return seconds that nobody can set, and that count while the machine sleeps, where the system can say so."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass
class SteadyTime:
    """Wall-clock seconds that do not jump when somebody sets the machine's clock.

    They are counted from one look at the wall clock. Its small corrections are followed slowly; a large one is not:
    the others' clocks have not moved. `jump_s` says by how much the machine's clock is away.
    """

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = since_boot
    jump_s: float = field(default=0.0, init=False)
    _offset_s: float = field(init=False)
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._at = self.steady()
        self._offset_s = self.wall() - self._at

    def __call__(self) -> float:
        """Return the time now."""
        at = self.steady()
        away_s, most_s = self.wall() - (at + self._offset_s), SLEW * (at - self._at)
        self._at = at
        if abs(away_s) <= FOLLOWED_S:
            step_s = min(max(away_s, -most_s), most_s)
            self._offset_s += step_s
            away_s -= step_s
        self.jump_s = away_s
        return at + self._offset_s


@dataclass
class Clock:
    """Turns wall-clock time into ticks, `floor((now − genesis) / tick_seconds)`, that never run backwards.

    `now` is an argument so that tests and the simulator bring their own time.
    """

    genesis: float
    tick_seconds: float
    now: Callable[[], float] = time.time
    _highest: int = field(default=0, init=False)

    def tick(self) -> int:
        """Return the current tick; never lower than one that was returned before."""
        self._highest = max(self._highest, int((self.now() - self.genesis) // self.tick_seconds))
        return self._highest

    def time_of(self, tick: float) -> float:
        """Return the wall-clock time, in seconds, at which `tick` begins."""
        return self.genesis + tick * self.tick_seconds

    def seconds_until(self, tick: float) -> float:
        """Return how long it is until `tick` begins; zero when it has begun."""
        return max(0.0, self.time_of(tick) - self.now())

    def warning(self) -> str:
        """Say that the machine's clock was set while the daemon ran, and what to do; nothing if it was not."""
        jump_s = self.now.jump_s if isinstance(self.now, SteadyTime) else 0.0
        if abs(jump_s) <= FOLLOWED_S:
            return ""
        return (
            f"this machine's clock was set {'forward' if jump_s > 0 else 'back'} by {abs(jump_s):,.0f} s; ticks go on "
            "by the old time, as they do elsewhere. If the old one was right, set it right (turn on NTP); else leave "
            "and start again"
        )


def clock_skew(sent: float, received: float, theirs: float) -> float:
    """Return how many seconds a clock is ahead that showed `theirs` at some time from `sent` to `received`."""
    return max(0.0, theirs - received) + min(0.0, theirs - sent)
