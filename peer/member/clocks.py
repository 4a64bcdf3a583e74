"""Whether this machine's clock still agrees with the others', asked again and again: it was right when the peer joined.

A clock that is set by more than `FOLLOWED_S` is not followed (`configs/clock.py`); one that drifts, or is set by less,
shows here.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from configs.clock import MAX_SKEW_S
from configs.errors import ShoalError
from peer.http.status import Finding
from protocols.describe import Offset, clock_offset

log = logging.getLogger(__name__)

COMPARE_S = 20.0  # between two looks
ASKED = 3  # peers at a look
TIMEOUT_S = 10.0


class Clocks:
    """Compares this peer's clock with that of some others. `now` is the clock; `stub` reaches a peer's `Describe`."""

    def __init__(self, now: Callable[[], float], stub: Callable[[str], Any], seed: int = 0) -> None:
        self._now, self._stub, self._chance = now, stub, random.Random(seed)
        self._next_s = now() + COMPARE_S
        self.offsets: list[Offset] = []  # of the last look

    def is_due(self) -> bool:
        """Whether to look again."""
        return self._now() >= self._next_s

    async def compare(self, others: Sequence[str]) -> None:
        """Ask some of the others what their clocks show."""
        self._next_s = self._now() + COMPARE_S
        asked = self._chance.sample(list(others), min(ASKED, len(others)))

        async def ask(peer: str) -> Offset | None:
            try:
                return await clock_offset(self._stub(peer), TIMEOUT_S, self._now)
            except (ShoalError, TimeoutError) as error:
                log.debug("%s does not tell its clock: %s", peer, error)
                return None

        found = await asyncio.gather(*map(ask, asked))
        self.offsets = [offset for offset in found if offset is not None]


def verdict(offsets: Sequence[Offset], cut_s: float) -> Finding | None:
    """Say that this machine's clock is off, by what most of those who were asked say; None if it is not.

    Off by more than the time until the cut, no offer of this peer is ever in time, and it hears those of the others too
    late. A single one that differs proves nothing of who is wrong, and says so.
    """
    most_s = min(MAX_SKEW_S, cut_s)
    off = [each for each in offsets if abs(each.offset_s) - each.uncertainty_s > most_s]
    if not off or 2 * len(off) <= len(offsets):
        return None
    seconds = median(each.offset_s for each in off)
    way = "behind" if seconds > 0 else "ahead of"
    if len(offsets) == 1:
        cause = f"this machine's clock is {abs(seconds):.1f} s {way} the other peer's"
        cure = "set the wrong one of the two, for example by turning on NTP"
    else:
        cause = f"this machine's clock is {abs(seconds):.1f} s {way} those of {len(off)} of {len(offsets)} others"
        cure = "turn on NTP here, or set the clock"
    return Finding(
        code="clock",
        affects="this peer's rounds",
        cause=f"{cause}; these rounds bear {most_s:.2g} s",
        cure=cure,
        is_severe=True,
    )
