"""What members record of the rounds of a whole swarm, and what the status shows of it."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm

from configs.run import RunSpec
from dht.identity import Identity
from peer.http.history import RoundRecord
from peer.train.partition import COMMON

TICKS = 30  # of a swarm of three; then one is killed

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


def test_rounds_are_recorded_with_who_was_there_and_who_was_not(
    smallest_run: Callable[..., RunSpec], identities: list[Identity], tmp_path: Path
) -> None:
    spec = smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1})

    async def main() -> None:
        swarm = InLoopSwarm(spec, identities[:3], tmp_path, seed=5)
        await swarm.start(stagger_s=2.0)
        await swarm.until(TICKS)
        first, killed = swarm.members[0], swarm.members[2]
        assert first.daemon is not None
        await killed.kill()
        await swarm.until(TICKS + 6)
        rounds = first.daemon.parts.timeline.rounds(COMMON).rounds
        shared = [each for each in rounds if len(each.parts) == 3]
        good = [each for each in shared if {part.fate for part in each.parts} == {"sealed"}]
        assert good, [each.outcome for each in shared]
        for each in good:
            assert each.is_step and each.digest and each.bytes_in > 0
            assert next(iter(each.phases)) == "snapshot" and list(each.phases)[-1] == "applied"
            assert list(each.phases.values()) == sorted(each.phases.values())
            assert all(part.offer_s is not None and part.offer_s <= each.cut_s for part in each.parts)
        without = [each for each in shared if fate(each, killed.peer_id) == "absent"]
        assert without and all(each.tick > TICKS - 1 for each in without)
        status = first.daemon.lookout.status()
        block = next(block for block in status.blocks if block.block == COMMON)
        last = first.daemon.parts.timeline.last(COMMON)
        assert last is not None and block.fates == {part.peer: part.fate for part in last.parts}
        await first.leave()  # writes what is recorded
        again = first.folder / "rounds.jsonl"
        assert RoundRecord.model_validate_json(again.read_text().splitlines()[-1]).tick >= last.tick

    loop = JumpingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert not loop.faults, loop.faults


def fate(record: RoundRecord, peer: str) -> str:
    return next(part.fate for part in record.parts if part.peer == peer)
