"""Whether a state that one peer alone has is like those that others have: drawn parts of it are compared.

In random groups, replicas of a block differ, so there is no digest for which a majority could vouch. Whoever begins
with the state of one of them looks at a few places of three others', which it draws itself: what is far from all of
them, as they are from each other, was not made by training with them.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from configs.errors import NetworkError, PeerError
from peer.train.outer import OuterState, most_state_bytes
from protocols.shards import download_part
from protocols.state import BlockState

ASKED = 3  # other peers, whose states are looked at
PLACES = 4  # of each
PLACE_VALUES = 4096  # of φ at each place
RATIO = 4.0  # times the distance of the two others that are nearest to each other, up to which a state is like them
FLOOR = 0.05  # of the values' own size, that is no difference: others may have the same bits, and be a round ahead
DEADLINE_S = 30.0  # for what one peer shows


def drawn(sources: Sequence[str], named: Mapping[str, BlockState], chance: random.Random) -> list[str]:
    """Return whose states are looked at to check the one that `sources` have: none where others vouch for it."""
    others = sorted(set(named) - set(sources))
    if 2 * len(sources) > len(named) or len(others) < 2:
        return []
    return chance.sample(others, min(ASKED, len(others)))


def is_alike(mine: Tensor, others: Sequence[Tensor]) -> bool:
    """Return whether the values `mine` are as near to those of at least two others as these are to each other.

    All have the shape (V,). A hostile one among three others changes nothing: nearest are those that are honest.
    """
    apart = min(_distance(a, b) for a, b in itertools.combinations(others, 2))
    own = median(_distance(mine, other) for other in others)
    return own <= max(RATIO * apart, FLOOR * float(mine.square().mean().sqrt()))


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


class UnlikeError(PeerError):
    """A state is not like those of the others."""


@dataclass(frozen=True)
class Glimpse:
    """What others have at drawn places of a block's φ: where these begin, and the values of each of them, (V,)."""

    begins: Sequence[int]
    values: Sequence[Tensor]

    def check(self, state: OuterState) -> None:
        """Raise UnlikeError if a state is not like those of the others. Of fewer than two nothing can be said."""
        count = min(PLACE_VALUES, state.size)
        mine = [state.phi[begin : begin + count] for begin in self.begins]
        if len(self.values) > 1 and not is_alike(torch.cat(mine), self.values):
            raise UnlikeError(f"state of {state.block}: it is not like those of {len(self.values)} others")


async def look(
    peers: Sequence[str],
    named: Mapping[str, BlockState],
    size: int,
    shards_stub: Callable[[str], Any],
    chance: random.Random,
) -> Glimpse:
    """Look at drawn places of the states that `peers` have named; who does not show them is left out.

    To be begun with the download: afterwards they have gone on, and do not have these states any more.
    """
    begins = [chance.randrange(max(1, size - PLACE_VALUES)) for _ in range(PLACES)]
    count = min(PLACE_VALUES, size)
    shown: list[list[Tensor]] = []

    async def see(peer: str) -> None:
        with suppress(NetworkError, TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                shown.append([await _part(peer, named[peer], size, begin, count, shards_stub) for begin in begins])

    async with asyncio.TaskGroup() as tasks:
        for peer in peers:
            tasks.create_task(see(peer))

    def joined() -> list[Tensor]:
        return [values for values in (torch.cat(parts) for parts in shown) if bool(torch.isfinite(values).all())]

    return Glimpse(begins, await asyncio.to_thread(joined))


async def _part(peer: str, told: BlockState, size: int, begin: int, count: int, stub: Callable[[str], Any]) -> Tensor:
    """Return `count` values of a peer's φ; a state ends with φ and as many values of momentum, float32."""
    data = await download_part(
        stub, peer, told.content_id, most_state_bytes(size),
        from_end=8 * size - 4 * begin, size_bytes=4 * count, deadline_s=DEADLINE_S,
    )  # fmt: skip
    if len(data) != 4 * count:
        raise NetworkError(f"{peer} has no such part of {told.block}")
    return torch.frombuffer(bytearray(data), dtype=torch.float32)
