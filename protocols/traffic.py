"""How much goes over the wire, and how fast it may: this peer's counters and caps for tensors and files."""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count as counter
from typing import Literal

BURST_S = 0.02  # of the rate, that may go out at once: timers are not finer
IDLE_S = 1.0  # for which a stream has sent nothing, because its reader takes nothing, and has no part any more
UP_SHARE = 0.88  # of the uplink's cap, for payload: the rest is headers, acknowledgements of what comes in, and slack


class Pace:
    """Lets bytes through at a rate. Who is ahead of it waits; several that share one are served in turn."""

    def __init__(self, mbit: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._changed = asyncio.Event()
        self._free_at = 0.0  # when all that was let through has gone at the rate
        self.change(mbit)

    def book(self, count: int) -> float:
        """Let `count` bytes through, and return how many seconds to wait before they go."""
        if self.bytes_per_s is None:
            return 0.0
        now = self._now()
        self._free_at = max(self._free_at, now - BURST_S) + count / self.bytes_per_s
        return max(0.0, self._free_at - count / self.bytes_per_s - now)

    def change(self, mbit: float | None) -> None:
        """Go on at another rate; who waits by the old one waits no longer."""
        self.bytes_per_s = None if mbit is None else mbit * 1e6 / 8
        self._free_at = 0.0
        self._changed.set()
        self._changed = asyncio.Event()

    def behind_s(self) -> float:
        """Return how many seconds it takes until more may go."""
        return 0.0 if self.bytes_per_s is None else max(0.0, self._free_at - self._now())

    async def wait(self, count: int) -> None:
        """Wait until `count` bytes may go."""
        if delay_s := self.book(count):
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._changed.wait()


class Line:
    """The uplink: what waits for it goes in turn, and turns go by peers, however much one of them asks for at once.

    Start-time fair queueing (Goyal, Vin and Cheng, 1996) of a line that has one speed.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._waiting: list[tuple[float, int, int, asyncio.Future[None]]] = []  # a heap: start, order, bytes, turn
        self._order = counter()
        self._start = 0.0  # virtual, in bytes: of what went last
        self._ends: dict[str, float] = {}  # peer → the virtual end of what it has asked for
        self._timer: asyncio.TimerHandle | None = None

    def changed(self) -> None:
        """Let go what may go at the line's new rate."""
        if self._timer is not None:
            self._timer.cancel()
            self._serve_again()

    async def wait(self, size_bytes: int, peer: str) -> None:
        """Wait until so many bytes to a peer may go."""
        if self._pace.bytes_per_s is None:
            return
        start = max(self._start, self._ends.get(peer, 0.0))
        self._ends[peer] = start + size_bytes
        turn = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (start, next(self._order), size_bytes, turn))
        self._serve()
        await turn

    def _serve(self) -> None:
        """Let go what may go now, and come back when the next may."""
        while self._waiting and self._timer is None:
            if (delay_s := self._pace.behind_s()) > 0:
                self._timer = asyncio.get_running_loop().call_later(delay_s, self._serve_again)
                return
            self._start, _, size_bytes, turn = heappop(self._waiting)
            if not turn.done():  # who was cancelled takes nothing
                self._pace.book(size_bytes)
                turn.set_result(None)
        if not self._waiting:
            self._ends.clear()

    def _serve_again(self) -> None:
        self._timer = None
        self._serve()


# What bytes go for; help: others' offers that are passed on; checkpoints: what is published.
Cause = Literal["offers", "help", "states", "text", "checkpoints"]


class Traffic:
    """Counts the bytes of offers, states and text, and holds them to the caps, in Mbit/s (None: no cap)."""

    def __init__(
        self,
        up_mbit: float | None = None,
        down_mbit: float | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.causes_in: Counter[Cause] = Counter()
        self.causes_out: Counter[Cause] = Counter()
        self.now = now
        self.up, self.down = Pace(None, now), Pace(None, now)
        self._line = Line(self.up)
        self._lanes: list[Lane] = []  # that are open
        self.change(up_mbit, down_mbit)

    def change(self, up_mbit: float | None, down_mbit: float | None) -> None:
        """Hold what goes from now on to these caps; what waits for the old ones goes when the new ones let it."""
        self.down_mbit = down_mbit
        self.up.change(None if up_mbit is None else UP_SHARE * up_mbit)
        self.down.change(down_mbit)
        for lane in self._lanes:
            lane.changed()
        self._line.changed()

    async def received(self, count: int, cause: Cause) -> None:
        """Count what came in. Who reads no further meanwhile slows the sender down."""
        self.bytes_in += count
        self.causes_in[cause] += count
        await self.down.wait(count)

    def receiver(self, cause: Cause) -> Callable[[int], Awaitable[None]]:
        """Return `received` for one cause, as `on_bytes` of a download."""
        return partial(self.received, cause=cause)

    async def sent(self, count: int, cause: Cause, peer: str = "") -> None:
        """Count what is about to go out to a peer, and wait until it may."""
        self.bytes_out += count
        self.causes_out[cause] += count
        await self._line.wait(count, peer)

    @contextmanager
    def lane(self, peer: str, cause: Cause) -> Iterator["Lane"]:
        """Open one of the streams to a peer; the uplink is divided evenly among peers, and then among their streams."""
        lane = Lane(self, peer, cause, self.now())
        self._lanes.append(lane)
        try:
            yield lane
        finally:
            self._lanes.remove(lane)

    def bytes_per_s_of(self, lane: "Lane") -> float | None:
        """How fast a stream may be, beside those that move; None without a cap."""
        if self.up.bytes_per_s is None:
            return None
        now = self.now()
        moving = [each.peer for each in self._lanes if each is lane or now < each.asked_at + IDLE_S]
        return self.up.bytes_per_s / (len(set(moving)) * moving.count(lane.peer))


class Lane:
    """One stream of several: none is faster than its part of the uplink, even if another is slower.

    One whose reader takes nothing has no part, and many streams of one peer have the part of one.

    What is sent faster to one peer than to the others fills the line at its end and crowds what comes to it from other
    peers; they lose what they have sent, slow down, and leave their own lines unused.
    """

    def __init__(self, traffic: Traffic, peer: str, cause: Cause, asked_at: float) -> None:
        self._traffic, self.peer, self._cause = traffic, peer, cause
        self._pace = Pace(None, traffic.now)
        self.asked_at = asked_at  # when it last had something to send; infinite while it has

    def changed(self) -> None:
        """Wait no longer by the old part: the new one is looked up at the next send."""
        self._pace.change(None)

    async def sent(self, count: int) -> None:
        """Count what is about to go out, and wait until it may."""
        self.asked_at = math.inf
        self._pace.bytes_per_s = self._traffic.bytes_per_s_of(self)
        try:
            await self._pace.wait(count)
            await self._traffic.sent(count, self._cause, self.peer)
        finally:
            self.asked_at = self._traffic.now()
