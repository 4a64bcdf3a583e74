"""Keeps the state directory within the limit that the owner of the machine has set.

Given up for it, in this order, is text that lies here for others, then blocks that are kept for others and that others
have too. What is this peer's own, and the last copy of a block, never is: then the limit is too low, and that is said.
"""

import asyncio
import logging
from pathlib import Path

from configs.files import discard
from configs.limits import GB
from dht.membership import Membership
from peer.block.room import Room
from peer.block.store import BlockStore
from peer.corpus.data import BLOBS
from peer.member.facts import Facts
from peer.member.library import Library
from peer.member.session import Session

log = logging.getLogger(__name__)


class Disk:
    """The state directory of one member, and its limit: `room` is what the store and the library ask."""

    def __init__(
        self, facts: Facts, membership: Membership, store: BlockStore, session: Session, library: Library
    ) -> None:
        self._facts, self._membership, self._store = facts, membership, store
        self._session, self._library = session, library
        self.room = store.room = library.room = Room(facts.config.state_dir, facts.config.disk_gb)
        self.present = ""  # that the limit is too low, as long as it is
        self._looked_at = -1

    def is_due(self, tick: int) -> bool:
        """Return whether to look again: as often as at what is kept, and at once where the limit is new."""
        return self.room.disk_gb is not None and tick - self._looked_at >= self._facts.config.keep_ticks

    def limit(self, disk_gb: float | None) -> None:
        """Let the state directory take no more from now on; what is too much goes at the next tick."""
        self.room.disk_gb, self.present, self._looked_at = disk_gb, "", -self._facts.config.keep_ticks

    async def keep_within(self, tick: int) -> None:
        """Give up what is too much, as far as it is for others."""
        self._looked_at = tick
        await asyncio.to_thread(self.room.look)
        for path in await asyncio.to_thread(self._spare_text):
            if self.room.over_bytes:
                log.info("the disk's limit: %s, text that others train on, is given up", path.name)
                await asyncio.to_thread(discard, path)
                await asyncio.to_thread(self.room.look)
        for block in await asyncio.to_thread(self._store.kept):
            if self.room.over_bytes and self._others_have(block, tick):
                log.info("the disk's limit: %s is no longer kept for others", block)
                await self._store.give_up(block)
                await asyncio.to_thread(self.room.look)
        self.present = self._warning()

    def _spare_text(self) -> list[Path]:
        """Return the files of text that lie here only so that others may have it."""
        library, sub_model = self._library, self._session.sub_model
        if not sub_model:
            return []
        own = {
            shard.content_id for domain in library.trains(self._facts.strategy, sub_model) for shard in domain.shards
        }
        shards = (shard.content_id for domain in library.domains for shard in domain.shards)
        places = (library.folder / BLOBS / shard for shard in shards if shard not in own)
        return [path for path in places if path.is_file()]

    def _others_have(self, block: str, tick: int) -> bool:
        others = (peer for peer in self._membership.known_members(tick) if peer != self._facts.me)
        return any(self._membership.stores(peer, block) for peer in others)

    def _warning(self) -> str:
        if not self.room.over_bytes:
            return ""
        used, most = f"{self.room.used_bytes / GB:.3g} GB", f"{self.room.disk_gb:g} GB"
        return (
            f"{self.room.folder} takes {used}, more than its limit of {most}, and what is left is this peer's own or a "
            "last copy: raise the limit with `shoal limits --disk-gb N`"
        )
