"""What this peer knows of the swarm: who is there, how old the blocks are, who is done. Read only."""

from collections import Counter
from collections.abc import Mapping, Sequence

from dht.addresses import distance
from dht.membership import ACT_TICKS, Membership
from peer.block.store import BlockStore
from peer.member.facts import Facts
from peer.member.unseen import check_understood
from peer.train.inner import Schedule
from peer.train.partition import COMMON, TRUNK

ASKED = 16  # peers that are asked for a state or for text, when not more of them are known


class Outlook:
    """The swarm by its members' records, and by what is stored here."""

    def __init__(self, facts: Facts, membership: Membership, store: BlockStore, dialled: Sequence[str]) -> None:
        self._facts, self._membership, self._store = facts, membership, store
        self._dialled = dialled  # at the start, before any record was read
        self._schedule = Schedule(facts.spec, facts.strategy)

    def others(self) -> list[str]:
        """Return the other peers that are present, those first that are known, and those dialled at the start."""
        present = [peer for peer in self._membership.members(self._facts.clock.tick()) if peer != self._facts.me]
        known = [peer for peer in present if self._membership.knows(peer)]
        on_trial = [peer for peer in present if not self._membership.knows(peer)][: max(0, ASKED - len(known))]
        return list(dict.fromkeys([*known, *self._dialled, *on_trial]))

    def nearest(self, addresses: Sequence[str]) -> list[list[str]]:
        """Return the other peers in widening circles around `addresses`: this machine, this network, everybody."""
        others, known = self.others(), self.members()
        far = {peer: distance(addresses, known.get(peer, ())) for peer in others}
        circles = [[peer for peer in others if far[peer] <= most] for most in range(3)]
        return [circle for at, circle in enumerate(circles) if circle and circle not in circles[:at]]

    def members(self) -> Mapping[str, list[str]]:
        """Return where the members are, for those who join: those first of whom there is more than a record."""
        known = sorted(self._membership.known().items(), key=lambda item: not self._membership.knows(item[0]))
        return {peer: list(m.record.addresses) for peer, m in known if not m.record.is_leaving}

    def check_understood(self) -> None:
        """Raise ProtocolError, with the remedy, if this peer is of a version that none of the others understands."""
        apart = {peer: why for peer, why in self._membership.apart().items() if self._membership.knows(peer)}
        understood = {*self._membership.known_members(self._facts.clock.tick())} - {self._facts.me}
        check_understood(apart, understood)

    def acting_tick(self) -> int:
        """Return the tick at which what is published now will act."""
        return self._facts.clock.tick() + ACT_TICKS

    def ages(self) -> dict[str, int]:
        """Return the age of every block that anybody stores."""
        ages = self._store.ages()
        for member in self._membership.known().values():
            for block, age in member.record.ages.items():
                ages[block] = max(age, ages.get(block, 0))
        return ages

    def stored(self) -> dict[str, dict[str, int]]:
        """Return what each present peer stores, this one too: block → age, in tokens."""
        known = self._membership.known()
        others = {peer: dict(known[peer].record.ages) for peer in self.others() if peer in known}
        return {**others, self._facts.me: self._store.ages()}

    def leased(self) -> Mapping[str, int]:
        """Return how many other peers train on each data shard, by its content id."""
        known = self._membership.known().items()
        return Counter(shard for peer, member in known if peer != self._facts.me for shard in member.record.leases)

    def is_done(self, sub_model: str) -> bool:
        """Return whether a sub-model has had all its tokens."""
        return self.ages().get(sub_model, 0) >= self._schedule.last_age(sub_model)

    def phase(self) -> str:
        """Return how far the run is: `common`, `parted` or `done`."""
        sub_models = self._facts.strategy.sub_models
        if all(map(self.is_done, sub_models)):
            return "done"
        ages = self.ages()
        return "parted" if any(name in ages for name in sub_models if name != COMMON) else "common"

    def swarm_age(self) -> int:
        """Return the tokens that all blocks together have absorbed, the common ones counted once."""
        ages = self.ages()
        common = ages.get(COMMON, 0)
        parted = [max(0, ages.get(name, 0) - common) for name in self._facts.strategy.sub_models if name != COMMON]
        return max(common + sum(parted), ages.get(TRUNK, 0))
