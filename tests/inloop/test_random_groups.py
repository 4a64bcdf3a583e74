"""More holders than one group: they exchange in random groups, and in one again when they are few."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm

from configs.run import RunSpec
from dht.identity import Identity

MANY, FEW = 9, 3
TICKS = 30  # that all are there
SETTLE_TICKS = 60  # for those who stay to be one group, with equal bits

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


def test_many_holders_exchange_in_random_groups_until_they_are_few(
    smallest_run: Callable[..., RunSpec], identities: list[Identity], tmp_path: Path
) -> None:
    spec = smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "group_size": 4})
    loop = JumpingLoop()
    swarm = InLoopSwarm(spec, identities[:MANY], tmp_path, seed=3)

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(TICKS)
        for member in swarm.members:
            assert member.daemon is not None
            chronicle, replicas = member.daemon.parts.chronicle, member.daemon.parts.session.replicas
            assert member.daemon.crowds.is_crowd("model")
            assert chronicle.rounds > TICKS / 2, f"member {member.index}: {chronicle.skipped}"
            assert len(replicas["model"].state.ages) > 1, "others' work is in it"
        assert len(swarm.digests()["model"]) > 1, "groups differ, and so do replicas"
        for member in swarm.members[FEW:]:
            await member.leave()
        for tick in range(TICKS, TICKS + SETTLE_TICKS):
            await swarm.until(tick + 0.99)
            if len(swarm.digests()["model"]) == 1 and tick > TICKS + 20:
                break
        assert len(swarm.digests()["model"]) == 1, swarm.digests()
        assert not any(
            member.errors or (member.daemon and member.daemon.parts.chronicle.faults) for member in swarm.members
        )
        await swarm.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert not loop.faults, loop.faults
