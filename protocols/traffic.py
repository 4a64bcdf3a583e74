"""How much goes over the wire, and how fast it may: this peer's counters and caps for tensors and files."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BURST_S = 0.02  # of the rate, that may go out at once: timers are not finer
UP_SHARE = 0.88  # of the uplink's cap, for payload: the rest is headers, acknowledgements of what comes in, and slack


class Pace:
    """Lets bytes through at a rate. Who is ahead of it waits; several that share one are served in turn."""

    def __init__(self, mbit: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_s = None if mbit is None else mbit * 1e6 / 8
        self._now = now
        self._free_at = 0.0  # when all that was let through has gone at the rate

    def book(self, count: int) -> float:
        """Let `count` bytes through, and return how many seconds to wait before they go."""
        if self.bytes_per_s is None:
            return 0.0
        now = self._now()
        self._free_at = max(self._free_at, now - BURST_S) + count / self.bytes_per_s
        return max(0.0, self._free_at - count / self.bytes_per_s - now)

    async def wait(self, count: int) -> None:
        """Wait until `count` bytes may go."""
        if delay_s := self.book(count):
            await asyncio.sleep(delay_s)


class Traffic:
    """Counts the bytes of offers, states and text, and holds them to the caps, in Mbit/s (None: no cap)."""

    def __init__(self, up_mbit: float | None = None, down_mbit: float | None = None) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.down_mbit = down_mbit
        self.up, self.down = Pace(None if up_mbit is None else UP_SHARE * up_mbit), Pace(down_mbit)
        self._lanes = 0

    async def received(self, count: int) -> None:
        """Count what came in. Who reads no further meanwhile slows the sender down; fits `on_bytes` of a download."""
        self.bytes_in += count
        await self.down.wait(count)

    async def sent(self, count: int) -> None:
        """Count what is about to go out, and wait until it may."""
        self.bytes_out += count
        await self.up.wait(count)

    @contextmanager
    def lane(self) -> Iterator["Lane"]:
        """Open one of the streams among which the uplink is divided evenly."""
        self._lanes += 1
        try:
            yield Lane(self)
        finally:
            self._lanes -= 1

    @property
    def bytes_per_s_of_lane(self) -> float | None:
        """How fast each open stream may be; None without a cap."""
        return None if self.up.bytes_per_s is None else self.up.bytes_per_s / max(1, self._lanes)


class Lane:
    """One stream of several: none is faster than its part of the uplink, even if another is slower.

    What is sent faster to one peer than to the others fills the line at its end and crowds what comes to it from other
    peers; they lose what they have sent, slow down, and leave their own lines unused.
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._pace = Pace(None)

    async def sent(self, count: int) -> None:
        """Count what is about to go out, and wait until it may."""
        self._pace.bytes_per_s = self._traffic.bytes_per_s_of_lane
        await self._pace.wait(count)
        await self._traffic.sent(count)
