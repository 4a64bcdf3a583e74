"""Who should take what, decided by each peer alone from what all see: sub-models, data shards, copies of states.

Pure functions: the same arguments give every peer the same answer. Ties are broken by rendezvous hashing, so that one
peer more or less changes few answers.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Protocol, TypeVar


class Shard(Protocol):
    """Something that is leased by its content id."""

    @property
    def content_id(self) -> str:
        """Its name."""


S = TypeVar("S", bound=Shard)


def score(*parts: str | int) -> bytes:
    """Return a value that orders candidates at random, but for all peers alike (rendezvous hashing)."""
    return sha256("\0".join(str(part) for part in parts).encode()).digest()


def assign(members: Iterable[str], sub_models: Sequence[str], seed: int) -> dict[str, str]:
    """Return which sub-model each member takes when the sub-models part: evenly, one more at most."""
    counts = dict.fromkeys(sub_models, 0)
    taken = {}
    for peer in sorted(set(members), key=lambda peer: score(seed, peer)):
        taken[peer] = min(sub_models, key=lambda name: (counts[name], score(seed, peer, name)))
        counts[taken[peer]] += 1
    return taken


def choose_sub_model(holders: Mapping[str, Collection[str]], ages: Mapping[str, int], own_peer: str, seed: int) -> str:
    """Return the sub-model that a peer without one takes: fewest other holders, then youngest.

    holders has a (possibly empty) entry for each sub-model; a missing age counts as 0.
    """
    return min(
        holders,
        key=lambda name: (len(set(holders[name]) - {own_peer}), ages.get(name, 0), score(seed, own_peer, name)),
    )


def next_turn(
    current: str, holders: Mapping[str, Collection[str]], ages: Mapping[str, int], own_peer: str
) -> str | None:
    """Return the sub-model without holders that this peer should change to, or None to stay.

    A peer that shares its sub-model may always be spared, save one; a sole holder moves only to a younger one. When
    several may move, each takes another: the spared ones first, then those of the oldest sub-models, to the youngest.
    """
    held = {name: set(peers) - {own_peer} for name, peers in holders.items()}
    held.setdefault(current, set()).add(own_peer)
    free = sorted((name for name in held if not held[name]), key=lambda name: (ages.get(name, 0), name))
    movers = []
    for name, peers in held.items():
        ranked = sorted(peers, key=lambda peer: score(name, peer))
        movers += [(rank == 0, -ages.get(name, 0), peer, name) for rank, peer in enumerate(ranked)]
    stays, *_ = own = next(mover for mover in movers if mover[2:] == (own_peer, current))
    place = sorted(movers).index(own)
    if place >= len(free):
        return None
    target = free[place]
    return target if not stays or ages.get(target, 0) < ages.get(current, 0) else None


def choose_shards(shards: Iterable[S], leased: Mapping[str, int], count: int, seed: int | str) -> list[S]:
    """Return the `count` shards (fewer if there are not as many) that the fewest peers have leased.

    leased counts the leases by content id; `seed` should differ between peers, so that ties spread.
    """
    return sorted(shards, key=lambda shard: (leased.get(shard.content_id, 0), score(seed, shard.content_id)))[:count]


def keepers(block: str, holders: Collection[str], members: Iterable[str], copies: int) -> tuple[str, ...]:
    """Return the members beside the holders that should store a block's state, so that `copies` peers have it."""
    missing = max(0, copies - len(set(holders)))
    others = set(members) - set(holders)
    return tuple(sorted(others, key=lambda peer: score(block, peer))[:missing])
