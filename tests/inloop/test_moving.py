"""A peer that moves to another network tells the others its new address."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm

from configs.run import RunSpec
from dht.identity import Identity
from dht.membership import RENEW_TICKS

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


def test_the_record_of_a_peer_has_the_address_that_it_has_now(
    smallest_run: Callable[..., RunSpec], identities: list[Identity], tmp_path: Path
) -> None:
    spec = smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1})
    loop = JumpingLoop()
    swarm = InLoopSwarm(spec, identities[:2], tmp_path, seed=3)
    moving, other = swarm.members

    def seen() -> list[str]:
        assert other.daemon is not None
        record = other.daemon.parts.membership.record(moving.peer_id)
        return [] if record is None else list(record.addresses)

    async def main() -> None:
        for member in swarm.members:
            swarm.start_one(member)
        await swarm.until(10)
        assert seen() == [f"/ip4/192.0.2.1/tcp/4001/p2p/{moving.peer_id}"]
        swarm.air.there[moving.peer_id].host = "198.51.100.7"
        await swarm.until(10 + 2 * RENEW_TICKS)
        assert seen() == [f"/ip4/198.51.100.7/tcp/4001/p2p/{moving.peer_id}"]
        assert moving.daemon is not None and "198.51.100.7" in moving.daemon.lookout.status().join
        await swarm.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert not loop.faults, loop.faults
