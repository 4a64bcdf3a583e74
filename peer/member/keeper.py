"""What this peer does so that no block is lost: it stores blocks for others, and hands its own over when it goes."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from configs.errors import ShoalError
from dht.leases import keepers
from dht.membership import Membership
from peer.block.keeping import KeepRules
from peer.block.store import BlockStore
from peer.member.facts import Facts
from peer.member.outlook import Outlook
from protocols.state import BlockState, ask_keep

log = logging.getLogger(__name__)


def rules_of(facts: Facts, membership: Membership) -> KeepRules:
    """Return who may ask this peer to keep a block, by the members' records of now."""

    def holders(block: str) -> Sequence[str]:
        return membership.holders(block, facts.clock.tick())

    def is_keeper(block: str, gone: str) -> bool:
        left = [peer for peer in holders(block) if peer != gone]
        others = [peer for peer in membership.known_members(facts.clock.tick()) if peer != gone]
        return facts.me in keepers(block, left, others, facts.config.copies)

    return KeepRules(holders, membership.stores, is_keeper)


class Keeper:
    """Stores blocks for others, as far as their holders are too few."""

    def __init__(
        self,
        facts: Facts,
        membership: Membership,
        store: BlockStore,
        outlook: Outlook,
        state_stub: Callable[[str], Any],
    ) -> None:
        self._facts, self._membership, self._store, self._outlook = facts, membership, store, outlook
        self._state_stub = state_stub
        self._kept_at = 0

    def is_due(self, tick: int) -> bool:
        """Return whether it is time to look after what is kept here."""
        return tick - self._kept_at >= self._facts.config.keep_ticks

    def is_kept_here(self, block: str, tick: int) -> bool:
        """Return whether this peer should store a block that it does not train."""
        holders, members = self._membership.holders(block, tick), self._membership.known_members(tick)
        return self._facts.me not in holders and self._facts.me in self._keepers(block, holders, members)

    async def keep(self, tick: int) -> None:
        """Fetch the newest state of the blocks that this peer keeps for others."""
        self._kept_at = tick
        members = self._membership.known_members(tick)
        for block in sorted(self._outlook.ages()):
            if not self.is_kept_here(block, tick):
                continue
            sources = [peer for peer in members if peer != self._facts.me and self._membership.stores(peer, block)]
            try:
                if found := await self._store.newest(block, sources):
                    await self._store.keep_from(*found)
            except (ShoalError, TimeoutError) as error:
                log.info("%s is not kept yet: %s", block, error)

    async def hand_over(self, tick: int) -> None:
        """Let others fetch what would have too few copies without this peer; returns when they have stored it."""
        others = [peer for peer in self._membership.known_members(tick) if peer != self._facts.me]
        async with asyncio.TaskGroup() as group:
            for state in self._store.block_states():
                holders = [peer for peer in self._membership.holders(state.block, tick) if peer != self._facts.me]
                for peer in self._keepers(state.block, holders, others):
                    group.create_task(self._hand(state, peer))

    async def _hand(self, state: BlockState, peer: str) -> None:
        try:
            await ask_keep(self._state_stub(peer), state)
            log.info("handed %s version %d over to %s", state.block, state.version, peer)
        except ShoalError as error:
            log.warning("could not hand %s over to %s: %s", state.block, peer, error)

    def _keepers(self, block: str, holders: Sequence[str], members: Sequence[str]) -> Sequence[str]:
        return keepers(block, holders, members, self._facts.config.copies)
