"""Which blocks have more holders than one group, and with whom this peer exchanges them at which tick.

Such a block's holders form buckets, others at every tick (`protocols/grouping.py`). A peer says `ACT_TICKS` ahead that
it comes to its bucket, and reads a tick ahead who else does, so all have been dialled when the round begins. How many
holders there are is estimated from what is found there: nobody lists them all.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from configs.names import MAX_ADDRESSES
from dht.buckets import Buckets
from dht.membership import ACT_TICKS, Membership
from dht.network import Network
from peer.block.replica import Replica
from peer.block.timing import due
from peer.member.facts import Facts
from protocols.grouping import Census, begin, bits_for, draw, group, revised, sought

log = logging.getLogger(__name__)

LISTED = 128  # peers of a large swarm whose member records are in the DHT, about: whom newcomers and keepers find


class Crowds:
    """Counts the holders of the blocks in training here; a block is a crowd when they are too many for one group."""

    def __init__(
        self,
        facts: Facts,
        network: Network,
        membership: Membership,
        replicas: Mapping[str, Replica],
        takes_part: Callable[[str], bool],
        addresses: Callable[[], Sequence[str]],
    ) -> None:
        self._facts, self._network, self._membership, self._replicas = facts, network, membership, replicas
        self._takes_part, self._addresses = takes_part, addresses
        self._buckets = Buckets(network, facts.spec.run_id, facts.clock)
        self._group_size = facts.spec.rounds.group_size
        self._census: dict[str, Census] = {}
        self._bits: dict[tuple[str, int], int] = {}  # block and tick → bits of the bucket that was announced
        self._groups: dict[tuple[str, int], Sequence[str]] = {}  # block and tick → who exchanges there

    def is_crowd(self, block: str) -> bool:
        """Whether the block is exchanged in random groups."""
        census = self._census.get(block)
        return census is not None and census.bits > 0

    def group(self, block: str, tick: int) -> Sequence[str]:
        """Return with whom this peer exchanges a crowd's block at `tick`, itself among them; none if it is not told."""
        return self._groups.get((block, tick), ())

    def holders(self, block: str) -> float:
        """Return how many peers hold a block, about."""
        return self._census[block].holders

    def told(self) -> dict[str, float]:
        """Return what this peer tells others of its crowds: block → holders, about."""
        return {block: census.holders for block, census in self._census.items() if self.is_crowd(block)}

    def is_listed(self) -> bool:
        """Whether this peer's member record belongs in the DHT: always, unless all its blocks are large crowds."""
        census = list(self._census.values())
        if not census or any(each.bits == 0 for each in census):
            return True
        bits = bits_for(min(each.holders for each in census), LISTED)
        return self._draw("", 0)[:bits] == "0" * bits

    async def keep_up(self, tick: int) -> None:
        """Count, say where this peer will be two ticks from now, and read who comes to its bucket in the next one."""
        for block in list(self._census):
            if block not in self._replicas:
                del self._census[block]
        for block in list(self._replicas):
            self._count(block, tick)
        self._groups = {at: members for at, members in self._groups.items() if at[1] >= tick}
        self._bits = {at: bits for at, bits in self._bits.items() if at[1] >= tick}
        crowds = [block for block in self._replicas if self.is_crowd(block)]
        async with asyncio.TaskGroup() as tasks:
            for block in crowds:
                tasks.create_task(self._announce(block, tick + ACT_TICKS))
                tasks.create_task(self._find(block, tick + 1))

    def _count(self, block: str, tick: int) -> None:
        """Take in how many holders are heard, or told by the members' records, as long as they are one group."""
        if self.is_crowd(block):
            return
        view = self._membership.holders(block, tick)
        others = [peer for peer in self._membership.members(tick) if peer != self._facts.me]
        records = [self._membership.record(peer) for peer in others if self._membership.knows(peer)]
        told = [record.crowds[block] for record in records if record is not None and block in record.crowds]
        if told and 2 * len(told) >= len(view):
            self._census[block] = begin(median(told), self._group_size)
        else:
            # Whom one has heard there: records alone would part those who are few.
            seen = 1 + sum(self._replicas[block].hearing.hears(peer) for peer in view if peer != self._facts.me)
            census = self._census.get(block) or Census(seen, seen, 0)
            self._census[block] = revised(census, {0: [seen] * (seen - 1)}, [seen], self._group_size)
        if self.is_crowd(block):
            holders = self.holders(block)
            log.info("%s has about %.0f holders: from now on it is exchanged in random groups", block, holders)

    async def _announce(self, block: str, tick: int) -> None:
        replica, census = self._replicas.get(block), self._census.get(block)
        if replica is None or census is None or not self._takes_part(block):
            return
        if not due(self._facts.spec, {block: replica.state.age}, tick):
            return
        self._bits[block, tick] = census.bits
        addresses = self._addresses()[:MAX_ADDRESSES]
        prefix = self._draw(block, tick)[: census.bits]
        await self._buckets.announce(block, tick, prefix, holders=census.holders, addresses=addresses)

    async def _find(self, block: str, tick: int) -> None:
        """Read the bucket to which this peer said it would come, call its members, and take them into account."""
        bits = self._bits.get((block, tick))
        if bits is None:
            return
        own = self._draw(block, tick)
        found = await self._buckets.read(block, tick, own[:bits])
        if block not in self._census:  # put away meanwhile
            return
        told = {peer: record.holders for peer, record in found.items()} | {self._facts.me: self.holders(block)}
        draws = {peer: self._draw(block, tick, peer) for peer in told}
        members = group(self._facts.me, draws, bits, self._group_size)
        self._groups[block, tick] = members
        for peer in members:
            if peer != self._facts.me:
                await self._network.remember(peer, found[peer].addresses)
        others = [told[peer] for peer in told if peer != self._facts.me and draws[peer].startswith(own[:bits])]
        await self._revise(block, tick, {bits: others}, [told[peer] for peer in members])

    async def _revise(self, block: str, tick: int, found: dict[int, list[float]], told: Sequence[float]) -> None:
        census = self._census.get(block)
        if census is None or census.bits not in found:
            return
        own = self._draw(block, tick)
        while more := sought(census, found):
            for bits in more:
                records = await self._buckets.read(block, tick, own[:bits])
                found[bits] = [record.holders for peer, record in records.items() if peer != self._facts.me]
        if self._census.get(block) is not census:  # a later reading has revised it while this one looked up
            return
        self._census[block] = revised(census, found, told, self._group_size)
        if not self.is_crowd(block):
            log.info("%s has about %.0f holders: from now on they are one group", block, self.holders(block))

    def _draw(self, block: str, tick: int, peer: str = "") -> str:
        peer, admission = peer or self._facts.me, self._network.admission
        nonce = "" if admission is None else admission.nonce(peer)
        return draw(self._facts.spec.run_id, block, tick, peer, nonce)
