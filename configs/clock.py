"""The swarm's clock: ticks since genesis. What happens at a tick is decided elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


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
