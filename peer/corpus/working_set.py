"""In which order the windows of many shards are drawn when only a few shards can lie here at a time. Pure.

In each epoch the shards come in an order that is drawn anew. Each takes part in K *turns* in a row, in each of which it
gives a K-th of its windows, and with each turn the next one joins: so a turn mixes K shards, one of them leaves after
it, and what comes next is known long before. Where a window stands is a pure function of the shards, K and the seed:
training resumes by its step alone, and nothing is read for that.

    turn      0     1     2     3     4     5        N = 4 shards, K = 3
    shard a   a0    a1    a2
    shard b         b0    b1    b2
    shard c               c0    c1    c2
    shard d                     d0    d1    d2

So an epoch begins and ends with few shards, and the first step of all waits for one only. Once it was seen whole, a
corpus of no more than K shards is one turn an epoch, in which everything mixes.

Costs: the order of the windows of the shards of one turn, and of the turn, in memory (8 bytes for each window).
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """A turn: the `turn`-th of an epoch."""

    epoch: int
    turn: int


@dataclass(frozen=True)
class Turn:
    """What a turn draws from: windows of shards, each a range of that shard's own order."""

    shards: tuple[int, ...]
    starts: tuple[int, ...]  # of each range
    sizes: tuple[int, ...]  # windows of each range

    @cached_property
    def ends(self) -> Integers:
        """Windows of the ranges up to and with each one."""
        return np.cumsum(self.sizes, dtype=np.int64)

    @property
    def size(self) -> int:
        """Windows in all."""
        return sum(self.sizes)


class WorkingSet:
    """The order of the windows of some shards, of which at most `active` are drawn from at a time.

    A *pick* is the number of a draw, from 0 on; an epoch has as many as there are windows.
    """

    def __init__(self, names: Sequence[str], windows: Sequence[int], active: int, seed: int) -> None:
        """`names` are those of the shards, which seed the order of each one's windows; every shard has a window."""
        assert active >= 1 and len(names) == len(windows) and min(windows, default=0) >= 1
        self._windows, self._seed = list(windows), seed
        self._names = [zlib.crc32(name.encode()) for name in names]
        self._active = min(active, len(windows))
        self.size = sum(windows)  # of an epoch
        self._layout = lru_cache(maxsize=2)(self._lay_out)  # a batch may reach into the next epoch
        self._mixed = lru_cache(maxsize=2)(self._mix)
        self._order = lru_cache(maxsize=2 * self._active + 2)(self._shuffle)

    def window(self, pick: int) -> tuple[int, int]:
        """Return from which shard that pick is, and which of its windows."""
        epoch, place = divmod(pick, self.size)
        ends, turns = self._layout(epoch)
        number = int(np.searchsorted(ends, place, side="right"))
        turn = turns[number]
        begin = int(ends[number]) - turn.size
        mixed = int(self._mixed(epoch, number)[place - begin])
        at = int(np.searchsorted(turn.ends, mixed, side="right"))
        within = mixed - int(turn.ends[at]) + turn.sizes[at] + turn.starts[at]
        shard = turn.shards[at]
        return shard, int(self._order(epoch, shard)[within])

    def place(self, pick: int) -> Place:
        """Return the turn of a pick."""
        epoch, place = divmod(pick, self.size)
        return Place(epoch, int(np.searchsorted(self._layout(epoch)[0], place, side="right")))

    def shards(self, place: Place) -> tuple[int, ...]:
        """Return the shards that a turn draws from."""
        return self._layout(place.epoch)[1][place.turn].shards

    def ahead(self, pick: int) -> Iterator[tuple[int, int]]:
        """Yield (pick, shard) for what is needed from that pick on, in the order of need, up to the next epoch's end.

        Each shard comes once in an epoch, with the first pick of its turn: that it is in need at the latest.
        """
        here = self.place(pick)
        for epoch in (here.epoch, here.epoch + 1):
            ends, turns = self._layout(epoch)
            seen: set[int] = set()
            for number in range(here.turn if epoch == here.epoch else 0, len(turns)):
                first = epoch * self.size + int(ends[number]) - turns[number].size
                for shard in turns[number].shards:
                    if shard not in seen:
                        seen.add(shard)
                        yield max(pick, first), shard

    def _lay_out(self, epoch: int) -> tuple[Integers, list[Turn]]:
        """Return the turns of an epoch that are not empty, and how many picks there are up to the end of each."""
        count = len(self._windows)
        order = [int(shard) for shard in np.random.default_rng([self._seed, count, epoch]).permutation(count)]
        is_one_turn = epoch > 0 and count <= self._active
        pieces = 1 if is_one_turn else self._active
        turns = []
        for number in range(1 if is_one_turn else count + pieces - 1):
            drawn = range(count) if is_one_turn else range(max(0, number - pieces + 1), min(number, count - 1) + 1)
            ranges = []
            for at in drawn:
                piece, size = 0 if is_one_turn else number - at, self._windows[order[at]]
                start = size * piece // pieces
                if stop := size * (piece + 1) // pieces - start:
                    ranges.append((order[at], start, stop))
            if ranges:
                shards, starts, sizes = zip(*ranges, strict=True)
                turns.append(Turn(shards, starts, sizes))
        return np.cumsum([turn.size for turn in turns], dtype=np.int64), turns

    def _mix(self, epoch: int, number: int) -> Integers:
        """Return the order in which a turn draws its windows."""
        size = self._layout(epoch)[1][number].size
        return np.random.default_rng([self._seed, epoch, number, size]).permutation(size)

    def _shuffle(self, epoch: int, shard: int) -> Integers:
        """Return the order of the windows of a shard in an epoch, as `Sampler` has it for a file."""
        random = np.random.default_rng([self._seed, self._names[shard], epoch])
        return random.permutation(self._windows[shard])
