"""What one caller may cost here: so many calls at once, and so many in a second. The rest waits, or is refused.

A call beyond the rate waits for its turn, as a download over a fast line does; beyond those that may wait it is
refused, and the refusal comes late, for who asks again at once would cost more than an answer. Whoever does not care is
put out of the door for a while; that comes last, for his next handshake costs more than many refusals. All of it goes
by the caller's peer id, which libp2p proves.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

CALLS_PER_S = 15.0  # of one peer: a call for chunks brings up to 4 MiB
CALLS_PER_TICK = 25.0  # of one peer, besides: a round has some ten for each block
CALL_BYTES = 1 << 16  # that a message may have and count as one call; p2pd takes as long for as many more
BURST = 300  # calls that come at once without waiting: a member comes to a round of many blocks
AT_ONCE = 192  # calls of one peer that wait or are being answered: more than the streams that it may hold
ALL_AT_ONCE = 1024
MOST_BYTES = 1 << 26  # that the calls of one peer have which wait, are being answered or are held; each lies here twice
ALL_BYTES = 1 << 28
HELD = 320  # calls of one peer whose refusal comes late; more are refused at once
HOLD_S = 10.0  # after which it comes
PATIENCE = 4096  # calls of one peer that are refused at once, before it is put out; a fat one counts as many
CALM_S = 10.0  # without a refusal, after which those before are forgotten
OUT_S = 60.0  # for which somebody stays out
MAX_CALLERS = 4096  # that are remembered, those who called last


@dataclass
class Caller:
    """What one peer has cost lately."""

    free_at: float = 0.0  # when its calls so far are paid for
    refused: int = 0
    refused_at: float = 0.0
    out_until: float = 0.0


class Refused(Exception):
    """A call that is not answered. `is_out`: its sender is to be disconnected. `is_held`: to be said after `HOLD_S`."""

    def __init__(self, *, is_out: bool = False, is_held: bool = False) -> None:
        super().__init__("too many calls; ask again later")
        self.is_out, self.is_held = is_out, is_held


class Limits:
    """Counts the calls of all peers. `now` in monotonic seconds; set `tick_s` once the run is known."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.tick_s = 1.0
        self._callers: OrderedDict[str, Caller] = OrderedDict()
        self._running: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def enter(self, peer_id: str, size_bytes: int = 0) -> float:
        """Let a call of so many bytes in, and return how many seconds it is to wait first; `leave` when it is over.

        Raises Refused; one that is held is to be given back by `release` when its sender has been told.
        """
        caller, now = self._caller(peer_id), self._now()
        if self.is_out(peer_id):
            raise Refused(is_out=True)
        calls = 1 + size_bytes // CALL_BYTES
        is_fat = self._bytes[peer_id] + size_bytes > MOST_BYTES
        if is_fat or self._bytes.total() + size_bytes > ALL_BYTES:
            if is_fat:
                self._offend(caller, now, calls)
            raise Refused(is_out=now < caller.out_until)
        if self._running[peer_id] >= AT_ONCE or self._running.total() >= ALL_AT_ONCE:
            if self._held[peer_id] < HELD:
                self._held[peer_id] += 1
                self._bytes[peer_id] += size_bytes
                raise Refused(is_held=True)
            if self._running[peer_id] >= AT_ONCE:
                self._offend(caller, now, calls)
            raise Refused(is_out=now < caller.out_until)
        self._running[peer_id] += 1
        self._bytes[peer_id] += size_bytes
        return self._charge(caller, calls)

    def answered(self, peer_id: str, size_bytes: int) -> None:
        """Count the bytes of an answer that goes out: the next call pays for them."""
        self._charge(self._caller(peer_id), size_bytes // CALL_BYTES)

    def leave(self, peer_id: str, size_bytes: int = 0) -> None:
        """Note that a call of so many bytes is over."""
        self._give_back(self._running, peer_id, size_bytes)

    def release(self, peer_id: str, size_bytes: int = 0) -> None:
        """Note that a refusal that was held has been said."""
        self._give_back(self._held, peer_id, size_bytes)

    def _give_back(self, counted: Counter[str], peer_id: str, size_bytes: int) -> None:
        for counter, count in ((counted, 1), (self._bytes, size_bytes)):
            counter[peer_id] -= count
            if not counter[peer_id]:
                del counter[peer_id]

    def is_out(self, peer_id: str) -> bool:
        """Whether a peer has been put out, and must wait."""
        caller = self._callers.get(peer_id)
        return caller is not None and self._now() < caller.out_until

    @property
    def calls_per_s(self) -> float:
        """How many calls of one peer are answered in a second."""
        return CALLS_PER_S + CALLS_PER_TICK / self.tick_s

    def _charge(self, caller: Caller, calls: int) -> float:
        """Count calls, and return how many seconds it is until they are paid for."""
        now, rate = self._now(), self.calls_per_s
        caller.free_at = max(caller.free_at, now - BURST / rate) + calls / rate
        return max(0.0, caller.free_at - now)

    def _offend(self, caller: Caller, now: float, calls: int) -> None:
        if now > caller.refused_at + CALM_S:
            caller.refused = 0
        caller.refused, caller.refused_at = caller.refused + calls, now
        if caller.refused >= PATIENCE:
            caller.refused, caller.out_until = 0, now + OUT_S

    def _caller(self, peer_id: str) -> Caller:
        caller = self._callers.setdefault(peer_id, Caller())
        self._callers.move_to_end(peer_id)
        if len(self._callers) > MAX_CALLERS:
            self._callers.popitem(last=False)
        return caller
