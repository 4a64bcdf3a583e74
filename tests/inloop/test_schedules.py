"""Whole swarms through random faults: no work is lost or counted twice, nobody is stranded, all agree in the end.

python -m pytest tests/inloop                                  # 200 schedules
SHOAL_SCHEDULES=5000 python -m pytest tests/inloop             # more of them; a seed is printed where one fails
SHOAL_SCHEDULES=1 SHOAL_SEED=17 python -m pytest tests/inloop  # that one again
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jumping import JumpingLoop
from swarm import GENESIS, Fault, InLoopSwarm, Kind, Ledger

from configs.run import RunSpec
from dht.identity import Identity

SCHEDULES = int(os.environ.get("SHOAL_SCHEDULES", "200"))
FIRST_SEED = int(os.environ.get("SHOAL_SEED", "0"))
PARTS = 8  # tests that the schedules are dealt to
MOST = 12  # members of a swarm, as many as there are identities
TICKS = 24  # in which faults happen
LONG_S = 60.0  # of a fault: longer than the others keep rounds and marks, of one tick or two each
SETTLE_ROUNDS = 20  # after the last fault, until all agree

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


def schedule(seed: int, make: Callable[..., RunSpec]) -> tuple[RunSpec, int, list[Fault]]:
    """Return a run, how many members it has, and what befalls them."""
    chance = random.Random(seed)
    members = chance.choice((5, 6, 8, MOST)) if seed % 20 == 0 else chance.choice((3, 3, 3, 4))
    parts = chance.random() < 0.5
    strategy = {"kind": "branches", "common_tokens": 600 * members} if parts else {"kind": "replicas"}
    spec = make(
        strategy=strategy,
        seed=seed,
        genesis=GENESIS,
        outer={"codec": chance.choice(("float32", "int8"))},
        rounds={
            "tick_seconds": 1,
            "double_tokens": 10**9,
            "first_ticks": chance.choice((1, 2)),
            "last_ticks": 2,
            "group_size": 16,
        },
    )
    faults = []
    for _ in range(chance.randrange(1, 5)):
        kind = chance.choice(list(Kind))
        seconds = chance.uniform(1.0, 6.0) if chance.random() < 0.95 else chance.uniform(20.0, LONG_S)
        seconds = 3600.0 if kind is Kind.CLOCK else seconds
        faults.append(Fault(kind, chance.randrange(members), chance.randrange(6, TICKS), seconds))
    return spec, members, faults


def run_schedule(
    seed: int, make: Callable[..., RunSpec], identities: list[Identity], folder: Path, ledger: Ledger
) -> Counter[str]:
    spec, count, faults = schedule(seed, make)
    loop = JumpingLoop()
    swarm = InLoopSwarm(spec, identities[:count], folder, seed)
    told: Counter[str] = Counter()

    async def main() -> None:
        for fault in faults:
            swarm.befall(fault)
        await swarm.start(stagger_s=1.0)
        await swarm.settled()
        length = spec.rounds.last_ticks
        settled = loop.time() // 1 + 1
        for tick in range(1, SETTLE_ROUNDS * length * longest_stride(swarm) + 1):
            await swarm.until(settled + tick - 0.01)
            agree = all(len(digests) == 1 for digests in swarm.digests().values())
            if agree and not (away := stranded(swarm)) and tick >= 4 * length:
                break
        assert agree, f"no agreement in {SETTLE_ROUNDS} rounds: {swarm.digests()}"
        assert not away, f"after {SETTLE_ROUNDS} rounds: {away}"
        check(swarm, ledger, told)
        await swarm.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    assert not loop.faults, loop.faults
    return told


def longest_stride(swarm: InLoopSwarm) -> int:
    """Return how many rounds one round of the slowest takes: it comes back to shorter ones step by step."""
    daemons = [member.daemon for member in swarm.members if member.daemon is not None]
    told = [stride for daemon in daemons for _, stride in daemon.rounds.strides().values()]
    return max(told, default=1)


def stranded(swarm: InLoopSwarm) -> list[str]:
    """Return who is not in its place: in training, counted by the others, and in rounds that go on."""
    found = []
    for member in swarm.members:
        found += [f"member {member.index} ended: {error!r}" for error in member.errors]
        if member.daemon is None:
            found.append(f"member {member.index} is away")
            continue
        parts = member.daemon.parts
        tick = parts.facts.clock.tick()
        if parts.activity.state != "training" or not parts.session.replicas:
            found.append(f"member {member.index} is {parts.activity.state}")
        for block, replica in parts.session.replicas.items():
            for other in swarm.members:
                if other.daemon and member.peer_id not in other.daemon.parts.membership.view(block, tick):
                    found.append(f"member {member.index} is not counted for {block} by member {other.index}")
            if tick - replica.state.round > 12:
                found.append(f"member {member.index}: {block} stands still")
    return found


def check(swarm: InLoopSwarm, ledger: Ledger, told: Counter[str]) -> None:
    """See that nothing went wrong, and that the work adds up."""
    for member in swarm.members:
        assert not member.errors, member.errors
        assert member.daemon is not None, "it did not come back"
        parts = member.daemon.parts
        assert not parts.chronicle.faults, parts.chronicle.events
        assert "faulty" not in parts.chronicle.skipped
        for block, replica in parts.session.replicas.items():
            history = ledger.counted(replica.state)
            if history is None:
                told["merged"] += 1
                continue
            begun, counted = history
            if len(ledger.roots(block)) > 1:
                told["parted"] += 1  # the common phase ended twice, apart
                continue
            made, left = member.made(block, begun.get(member.peer_id, 0)), member.left(block)
            applied = counted.get(member.peer_id, torch.zeros_like(made))
            away = float((applied + left - made).abs().max())
            tokens = away / float(member.direction(replica.size).abs().max())
            digest = member.stored.get(block)
            if digest is not None and not ledger.leads_to(replica.state, digest):
                told["left behind"] += 1  # it went while another was just taking the block over from an older state
                continue
            assert away <= 1e-3 * float(made.abs().max()) + 1e-5, (
                f"member {member.index}: {block} is {tokens:.1f} tokens away from the {parts.chronicle.tokens} made: "
                f"{parts.chronicle.events}, {parts.chronicle.skipped}"
            )
            told["adds up"] += 1


@pytest.mark.parametrize("part", range(PARTS))
def test_swarms_live_through_random_faults(
    part: int,
    smallest_run: Callable[..., RunSpec],
    identities: list[Identity],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: Counter[str] = Counter()
    for seed in range(FIRST_SEED + part, FIRST_SEED + SCHEDULES, PARTS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        ledger = Ledger()
        with monkeypatch.context() as patch:
            ledger.watch(patch)
            try:
                told += run_schedule(seed, smallest_run, identities, folder, ledger)
            except BaseException:
                print(f"seed {seed}: {schedule(seed, smallest_run)[1:]}")
                raise
    print(dict(told))
    assert told["merged"] + told["parted"] + told["left behind"] <= 0.2 * told["adds up"] + 3, told
