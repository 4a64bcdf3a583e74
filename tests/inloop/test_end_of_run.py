"""What a member has trained is counted once, and all of it: when it leaves, and when the run comes to its end."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm

from configs.run import RunSpec
from dht.identity import Identity
from peer.member.activity import State
from peer.member.chronicle import Chronicle

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


@pytest.mark.parametrize("until", [9.5, 120])  # ticks: in mid-run, and long after its end
@pytest.mark.parametrize("kind", ["replicas", "branches"])
def test_tokens_counted_are_tokens_trained(
    kind: str, until: float, smallest_run: Callable[..., RunSpec], identities: list[Identity], tmp_path: Path
) -> None:
    # Branches change their sub-model once, from what is common to one of their own.
    parted = {"common_tokens": 1200} if kind == "branches" else {}
    rounds = {"tick_seconds": 1, "double_tokens": 10**9, "first_ticks": 2, "last_ticks": 2}
    strategy = {"kind": kind, **parted}
    spec = smallest_run(strategy=strategy, genesis=GENESIS, rounds=rounds, total_tokens=6000)
    swarm = InLoopSwarm(spec, identities[:2], tmp_path, seed=1)
    counted: list[tuple[int, int]] = []

    async def main() -> None:
        await swarm.start(stagger_s=1.0)
        await swarm.until(until)
        for member in swarm.members:
            assert member.daemon is not None and member.workers is not None
            parts = member.daemon.parts
            assert parts.activity.state is (State.SERVING if until == 120 else State.TRAINING)
            if until == 120:
                counted.append((parts.chronicle.tokens, member.workers.trained))
            await member.leave()
            counted.append((Chronicle(member.folder).tokens, member.workers.trained))

    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(main())
    assert all(tokens == trained > 100 for tokens, trained in counted), counted
