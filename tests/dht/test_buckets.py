"""Buckets in a real DHT: who announced itself in time is found, and nobody else."""

import time
from pathlib import Path

import uvloop
from test_network import swarm

from configs.clock import Clock
from dht.buckets import Buckets
from dht.records import GroupRecord, group_key, sign_record


def test_members_of_a_bucket_find_each_other_and_nobody_else(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        async with swarm(identity_paths, run_id) as networks:
            clock = Clock(time.time(), 1.0)
            one, two, three = (Buckets(network, run_id, clock) for network in networks)
            where = {"one": ("model", 5, "01"), "two": ("model", 5, "01"), "three": ("model", 5, "00")}
            for buckets, name in ((one, "one"), (two, "two"), (three, "three")):
                assert await buckets.announce(*where[name], holders=9.5, addresses=["/ip4/127.0.0.1/tcp/1"])
            ids = [network.peer_id for network in networks]
            found = await three.read("model", 5, "01")
            assert set(found) == set(ids[:2])
            assert found[ids[0]].holders == 9.5 and found[ids[0]].addresses == ["/ip4/127.0.0.1/tcp/1"]
            assert set(await one.read("model", 5, "00")) == {ids[2]}
            assert not await one.read("model", 6, "01")
            assert not await one.read("trunk", 5, "01")

    uvloop.run(main())


def test_a_record_under_another_key_or_another_s_name_is_not_taken(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        async with swarm(identity_paths[:2], run_id) as (liar, reader):
            record = GroupRecord(run_id=run_id, block="model", tick=5, prefix="01", holders=9.0)
            now = time.time()
            data = sign_record(liar.identity, "group", record, now)
            assert not await liar.store(group_key(run_id, "model", 5, "00"), liar.peer_id, data, now + 60)
            assert not await liar.store(record.key, reader.peer_id, data, now + 60)
            buckets = Buckets(reader, run_id, Clock(now, 1.0))
            assert not await buckets.read("model", 5, "00") and not await buckets.read("model", 5, "01")
            assert await liar.store(record.key, liar.peer_id, data, now + 60)
            assert set(await buckets.read("model", 5, "01")) == {liar.peer_id}

    uvloop.run(main())
