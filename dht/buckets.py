"""Who exchanges a block at a tick in which bucket: group records, written ahead of the tick and read before it.

The key of the own bucket is the only one that a peer writes and, but for thin ones, reads, so its cost does not depend
on the size of the swarm. Which bucket is whose stands in `protocols/grouping.py`.
"""

import logging
from collections.abc import Mapping, Sequence

from configs.clock import Clock
from configs.errors import NetworkError
from dht.membership import EARLY_S
from dht.network import Network
from dht.records import GroupRecord, group_key, open_entries, sign_record

log = logging.getLogger(__name__)

MAX_FOUND = 256  # records of one bucket that are looked at


class Buckets:
    """The buckets of one run, in the DHT."""

    def __init__(self, network: Network, run_id: str, clock: Clock) -> None:
        self._network, self._run_id, self._clock = network, run_id, clock

    async def announce(self, block: str, tick: int, prefix: str, *, holders: float, addresses: Sequence[str]) -> bool:
        """Say that this peer exchanges `block` at `tick` in a bucket; return whether the DHT took it."""
        record = GroupRecord(
            run_id=self._run_id,
            block=block,
            tick=tick,
            prefix=prefix,
            holders=max(1.0, holders),
            addresses=list(addresses),
        )
        now = self._clock.now()
        data = sign_record(self._network.identity, "group", record, now)
        expires = now + record.lifetime_s(self._clock.tick_seconds)
        return await self._network.store(record.key, self._network.peer_id, data, expires)

    async def read(self, block: str, tick: int, prefix: str) -> Mapping[str, GroupRecord]:
        """Return the records of a bucket by peer, this peer's own among them if it is there; none without an answer."""
        key = group_key(self._run_id, block, tick, prefix)
        try:
            found = await self._network.fetch(key)
        except NetworkError as error:
            log.debug("bucket %s was not read: %s", key, error)
            return {}
        latest = self._clock.now() + EARLY_S
        entries = open_entries(found, MAX_FOUND, "group", GroupRecord, key, latest)
        return {peer: entry.record for peer, entry in entries.items()}
