"""A wait that nobody has given a deadline stops no member for good: it is said, ended, and the next round is whole."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm

from configs.run import RunSpec
from dht.identity import Identity
from peer.member import watch
from peer.train.partition import COMMON
from peer.workers.supervisor import Snapshot

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")

STUCK_AT = 10


def test_a_round_that_waits_for_ever_is_said_and_ended(
    smallest_run: Callable[..., RunSpec],
    identities: list[Identity],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "ALARM_S", 6.0)
    monkeypatch.setattr(watch, "FREE_S", 12.0)
    spec = smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1})
    swarm = InLoopSwarm(spec, identities[:3], tmp_path, seed=5)

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(STUCK_AT - 0.5)
        stuck = swarm.members[0]
        assert stuck.daemon is not None
        workers, daemon = stuck.daemon.workers, stuck.daemon
        answers, silent = workers.take_snapshot, asyncio.Event()

        async def silence() -> Snapshot:
            monkeypatch.setattr(workers, "take_snapshot", answers)
            await silent.wait()
            raise AssertionError("nobody answers")

        monkeypatch.setattr(workers, "take_snapshot", silence)
        daemon.parts.activity.watch._now = asyncio.get_running_loop().time
        await swarm.until(STUCK_AT + 8)
        [alarm] = [each for each in daemon.lookout.status().warnings if "under way" in each]
        assert f"{COMMON}, round {STUCK_AT}: " in alarm and "waits for its worker's snapshot; it is ended" in alarm
        await swarm.until(STUCK_AT + 25.9)
        assert not [each for each in daemon.lookout.status().warnings if "under way" in each]
        assert any("ended, and begun anew" in event for event in daemon.lookout.status().events)
        assert len(swarm.digests()[COMMON]) == 1
        lineage = daemon.parts.session.replicas[COMMON].lineage
        assert stuck.peer_id in lineage[-1].offers and lineage[-1].round >= STUCK_AT + 24
        assert not any(member.errors for member in swarm.members)
        await swarm.stop()

    loop = JumpingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert not loop.faults, loop.faults
