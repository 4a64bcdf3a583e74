"""Who joins a peer that was alone downloads its state once: the lone peer takes no step meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm

from configs.run import RunSpec
from dht.identity import Identity
from peer.block import exchange
from peer.member.newcomers import ARRIVE_S

ALONE_TICKS, TICKS = 10, 40

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


@pytest.mark.parametrize("has_asked", [True, False])
def test_one_download_is_enough(
    has_asked: bool,
    smallest_run: Callable[..., RunSpec],
    identities: list[Identity],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1})
    loop = JumpingLoop()
    swarm = InLoopSwarm(spec, identities[:2], tmp_path, seed=3)
    founder, newcomer = swarm.members
    again: list[str] = []
    fetch = exchange._fetch_state

    async def counted(*arguments: Any) -> Any:
        again.append(arguments[1].block)
        return await fetch(*arguments)

    monkeypatch.setattr(exchange, "_fetch_state", counted)

    async def main() -> None:
        swarm.start_one(founder)
        await swarm.until(ALONE_TICKS + 0.5)
        assert founder.daemon is not None
        rounds = founder.daemon.parts.chronicle.rounds
        assert rounds > ALONE_TICKS / 2
        swarm.air.slow[newcomer.peer_id] = 20.0  # the download takes longer than a round
        swarm.start_one(newcomer, is_known=not has_asked)
        await swarm.until(ALONE_TICKS + 5)
        swarm.air.slow.clear()
        await swarm.until(TICKS)
        assert newcomer.daemon is not None
        assert newcomer.daemon.parts.chronicle.rounds > 3
        assert len(swarm.digests()["model"]) == 1, swarm.digests()
        assert bool(again) != has_asked
        await newcomer.leave()
        await swarm.until(TICKS + ARRIVE_S)
        before = founder.daemon.parts.chronicle.rounds
        await swarm.until(TICKS + ARRIVE_S + 10)
        assert founder.daemon.parts.chronicle.rounds > before + 5, "nobody is expected any more"
        await swarm.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert not loop.faults, loop.faults
