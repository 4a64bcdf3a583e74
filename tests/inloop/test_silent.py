"""Whoever is silent stops nobody: strangers who only publish records, holders who stop answering, divided networks.

Voices follow from the sealed history; the pure rule is tested in `tests/protocols/test_sealing.py`.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jumping import JumpingLoop
from swarm import GENESIS, InLoopSwarm, Ledger, Member

from configs.run import RunSpec
from dht.identity import Identity
from dht.membership import ACT_TICKS, HOLD_TICKS
from dht.records import MemberRecord, sign_record
from peer.block.timing import silent_ticks
from peer.member.newcomers import ARRIVE_S
from peer.train.partition import COMMON
from protocols.sealing import PATIENCE_ROUNDS

DAY_S = 86_400.0
AGREE_ROUNDS = 20  # after a fault, until all have the same bits

pytestmark = pytest.mark.usefixtures("one_thread", "quick_disk")


@pytest.fixture
def spec(smallest_run: Callable[..., RunSpec]) -> RunSpec:
    return smallest_run(genesis=GENESIS, rounds={"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1})


@pytest.fixture
def swarm_of(spec: RunSpec, identities: list[Identity], tmp_path: Path) -> Iterator[Callable[[int], InLoopSwarm]]:
    yield lambda count: InLoopSwarm(spec, identities[:count], tmp_path, seed=5)


@pytest.fixture
def silent(identities: list[Identity]) -> Callable[[InLoopSwarm, int], Any]:
    """Return what keeps publishing the records of identities behind which there is nobody."""

    async def publish(swarm: InLoopSwarm, count: int) -> None:
        run_id = swarm.spec.run_id
        while True:
            now = GENESIS + asyncio.get_running_loop().time()
            tick = int(now - GENESIS)
            for identity in identities[-count:]:
                held = {COMMON: (max(0, tick - 1), tick + HOLD_TICKS)}
                record = MemberRecord(run_id=run_id, holdings=held, keeps={COMMON: 1}, ages={COMMON: 1})
                data = sign_record(identity, "member", record, now)
                entries = swarm.air.records.setdefault(record.key, {})
                entries[identity.peer_id] = data, now + record.lifetime_s(1.0)
            await asyncio.sleep(2.0)

    return publish


def play(main: Callable[[], Awaitable[None]]) -> None:
    loop = JumpingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())  # type: ignore[arg-type]
    assert not loop.faults, loop.faults


def shared(member: Member) -> list[int]:
    """Return at which ticks a member has taken a step in which another peer's offer is, of the last ones."""
    assert member.daemon is not None and not member.errors, member.errors
    lineage = member.daemon.parts.session.replicas[COMMON].lineage
    return [each.round for each in lineage if each.offers.keys() - {member.peer_id}]


def version(member: Member) -> int:
    assert member.daemon is not None and not member.errors, member.errors
    return member.daemon.parts.session.replicas[COMMON].state.version


async def agreed(swarm: InLoopSwarm, tick: int) -> int:
    """Wait until all have the same bits; return how many ticks after `tick` that was."""
    for more in range(AGREE_ROUNDS + 1):
        await swarm.until(tick + more + 0.99)
        if len(swarm.digests()[COMMON]) == 1:
            return more
    raise AssertionError(f"no agreement: {swarm.digests()}")


@pytest.mark.parametrize("comes", [0, 12])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_strangers_who_answer_nothing_stop_nobody(
    comes: int, count: int, spec: RunSpec, swarm_of: Callable[[int], InLoopSwarm], silent: Any
) -> None:
    """Two honest peers, and as many records as they, or more: from the beginning, and when they are at work."""
    swarm = swarm_of(2)

    async def main() -> None:
        async def come() -> None:
            await swarm.until(comes)
            await silent(swarm, count)

        strangers = asyncio.create_task(come())
        await swarm.start(stagger_s=0.5)
        await swarm.until(max(14, comes + ACT_TICKS + 2))
        tick = int(asyncio.get_running_loop().time())
        view = swarm.members[0].daemon.parts.membership.view(COMMON, tick)  # type: ignore[union-attr]
        assert len(view) == 2 + count, "the records are believed"
        before = [version(member) for member in swarm.members]
        await swarm.until(tick + 10.9)
        for member, had in zip(swarm.members, before, strict=True):
            assert version(member) >= had + 10
            assert set(range(tick + 1, tick + 10)) <= set(shared(member))
        assert len(swarm.digests()[COMMON]) == 1
        strangers.cancel()
        await swarm.stop()

    play(main)


@pytest.mark.parametrize("moment", [-0.03, 0.0, 0.02])
def test_nobody_waits_for_the_dead_longer_than_the_cut(
    moment: float, spec: RunSpec, swarm_of: Callable[[int], InLoopSwarm]
) -> None:
    """Before its offer nobody waits for its list, and after it the others' lists say that it is sealed."""
    swarm, died = swarm_of(4), 14

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(died + moment)
        await swarm.members[-1].kill()
        await swarm.until(died + spec.rounds.cut_share + 0.08)  # and a call's way there and back
        assert [shared(member)[-1] for member in swarm.members[:-1]] == [died] * 3
        await swarm.stop()

    play(main)


@pytest.mark.parametrize(("count", "mute"), [(3, 1), (4, 2), (5, 3), (3, 2)])
def test_holders_who_fall_silent_are_gone_on_without_and_come_back(
    count: int, mute: int, spec: RunSpec, swarm_of: Callable[[int], InLoopSwarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their records say that they are there. A minority costs nothing, a majority a stated number of ticks."""
    swarm, ledger = swarm_of(count), Ledger()
    ledger.watch(monkeypatch)
    lost = 14
    waits = silent_ticks(spec, 0) if 2 * mute >= count else 1

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(lost + 0.5)
        speaking = swarm.members[: count - mute]
        swarm.air.mute = {member.peer_id for member in swarm.members[count - mute :]}
        await swarm.until(lost + waits + 3.9)
        before = [version(member) for member in speaking]
        assert before[0] > version(swarm.members[-1]) or mute > 1
        await swarm.until(lost + waits + 13.9)
        for member, had in zip(speaking, before, strict=True):  # rounds that came to nothing have made them longer
            assert version(member) >= had + 5
        assert len({member.daemon.parts.session.replicas[COMMON].state.digest for member in speaking}) == 1  # type: ignore[union-attr]
        swarm.air.mute = set()
        back = int(asyncio.get_running_loop().time()) + 1
        await agreed(swarm, back)
        await swarm.until(back + AGREE_ROUNDS + 4.9)
        latest = shared(swarm.members[0])[-1]
        assert latest >= back + AGREE_ROUNDS
        lineage = swarm.members[0].daemon.parts.session.replicas[COMMON].lineage  # type: ignore[union-attr]
        assert lineage[-1].offers.keys() == {member.peer_id for member in swarm.members}, "all take part again"
        await swarm.stop()

    play(main)


def test_a_newcomer_comes_in_among_silent_ones(
    spec: RunSpec, swarm_of: Callable[[int], InLoopSwarm], silent: Any
) -> None:
    swarm = swarm_of(3)

    async def main() -> None:
        strangers = asyncio.create_task(silent(swarm, 4))
        for member in swarm.members[:2]:
            swarm.start_one(member, is_known=member.index == 0)
            await asyncio.sleep(0.5)
        await swarm.until(20)
        swarm.start_one(swarm.members[2], is_known=False)
        await swarm.until(20 + ACT_TICKS + 6)
        lineage = swarm.members[0].daemon.parts.session.replicas[COMMON].lineage  # type: ignore[union-attr]
        assert swarm.members[2].peer_id in lineage[-1].offers
        assert len(swarm.digests()[COMMON]) == 1
        strangers.cancel()
        await swarm.stop()

    play(main)


def test_who_is_heard_by_another_alone_takes_part(swarm_of: Callable[[int], InLoopSwarm]) -> None:
    """Two peers behind NATs, who reach the founder and not each other."""
    swarm = swarm_of(3)
    swarm.air.apart = [{member.peer_id for member in swarm.members[1:]}]

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(16.9)
        for member in swarm.members:
            assert len(shared(member)) >= 10
            lineage = member.daemon.parts.session.replicas[COMMON].lineage  # type: ignore[union-attr]
            assert all(len(each.offers) == 3 for each in lineage[-6:])
        assert len(swarm.digests()[COMMON]) == 1
        await swarm.stop()

    play(main)


def test_who_offers_and_gives_no_list_gets_no_voice(
    spec: RunSpec, swarm_of: Callable[[int], InLoopSwarm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a voice would do more harm than none: it would count, and nobody could have it."""
    swarm = swarm_of(4)

    async def main() -> None:
        for member in swarm.members[:2]:
            swarm.start_one(member, is_known=member.index == 0)
            await asyncio.sleep(0.5)
        await swarm.until(10)
        for member in swarm.members[2:]:
            swarm.start_one(member, is_known=False)
            assert member.daemon is not None
            monkeypatch.setattr(member.daemon.parts.offers, "_list", lambda request: None)
        await swarm.until(20)
        before = [version(member) for member in swarm.members[:2]]
        await swarm.until(40.9)
        half_silent = {member.peer_id for member in swarm.members[2:]}
        for member, had in zip(swarm.members[:2], before, strict=True):
            assert version(member) >= had + 20
            lineage = member.daemon.parts.session.replicas[COMMON].lineage  # type: ignore[union-attr]
            assert not any(each.offers.keys() & half_silent for each in lineage)
        await swarm.stop()

    play(main)


@pytest.mark.parametrize("sides", [(3, 3), (4, 2), (2, 1), (1, 1)])
def test_a_divided_swarm_goes_on_as_two_and_grows_together(
    sides: tuple[int, int], spec: RunSpec, swarm_of: Callable[[int], InLoopSwarm]
) -> None:
    count, parted, ticks = sum(sides), 14 + int(ARRIVE_S), 20  # nobody is expected any more
    swarm = swarm_of(count)

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(parted + 0.5)
        swarm.air.sides = {m.peer_id: int(m.index >= sides[0]) for m in swarm.members}
        before = [version(member) for member in swarm.members]
        await swarm.until(parted + 4.9)
        if sides[0] > sides[1]:
            assert version(swarm.members[0]) >= before[0] + 4, "the larger part loses no round"
        await swarm.until(parted + ticks + 0.9)
        for member, had in zip(swarm.members, before, strict=True):
            assert version(member) >= had + ticks - HOLD_TICKS - ACT_TICKS - 2
        assert len(swarm.digests()[COMMON]) == 2
        tokens = [member.daemon.parts.session.replicas[COMMON].state.ages for member in swarm.members]  # type: ignore[union-attr]
        swarm.air.sides = {}
        await agreed(swarm, int(asyncio.get_running_loop().time()) + 1)
        await swarm.until(int(asyncio.get_running_loop().time()) + 8.9)
        ages = swarm.members[0].daemon.parts.session.replicas[COMMON].state.ages  # type: ignore[union-attr]
        assert all(ages[peer] >= held[peer] for held in tokens for peer in held), "tokens of both sides are kept"
        await swarm.stop()

    play(main)


def test_holders_return_after_days(spec: RunSpec, swarm_of: Callable[[int], InLoopSwarm]) -> None:
    swarm = swarm_of(3)

    async def main() -> None:
        await swarm.start(stagger_s=0.5)
        await swarm.until(14.5)
        for member in swarm.members:
            await member.leave()
        stored = [json.loads((m.folder / "blocks" / f"{COMMON}.json").read_text()) for m in swarm.members]
        before = max(each["version"] for each in stored)
        await asyncio.sleep(3 * DAY_S)
        chance = random.Random(4)
        for member in swarm.members:
            swarm.start_one(member)
            await asyncio.sleep(chance.uniform(0.0, 1.0))
        back = int(asyncio.get_running_loop().time())
        await agreed(swarm, back + 4)
        await swarm.until(back + AGREE_ROUNDS + 0.9)
        assert all(version(member) >= before + AGREE_ROUNDS - 8 for member in swarm.members)
        await swarm.stop()

    play(main)


def test_records_alone_make_no_crowd(
    smallest_run: Callable[..., RunSpec], identities: list[Identity], tmp_path: Path, silent: Any
) -> None:
    """More names than fit into one group part nobody: two who hear each other are one group."""
    rounds = {"tick_seconds": 1, "double_tokens": 10**9, "last_ticks": 1, "group_size": 2}
    swarm = InLoopSwarm(smallest_run(genesis=GENESIS, rounds=rounds), identities[:2], tmp_path, seed=5)

    async def main() -> None:
        strangers = asyncio.create_task(silent(swarm, 10))
        await swarm.start(stagger_s=0.5)
        await swarm.until(30.9)
        for member in swarm.members:
            assert member.daemon is not None and not member.daemon.crowds.is_crowd(COMMON)
            assert len(shared(member)) >= 20
        assert len(swarm.digests()[COMMON]) == 1
        strangers.cancel()
        await swarm.stop()

    play(main)


def test_who_is_silent_is_not_waited_for(spec: RunSpec, swarm_of: Callable[[int], InLoopSwarm], silent: Any) -> None:
    """A correction that comes late costs some of what was learnt: nearly all rounds close soon."""
    swarm = swarm_of(2)
    took_s: list[float] = []

    async def main() -> None:
        strangers = asyncio.create_task(silent(swarm, 2))
        await swarm.start(stagger_s=0.5)
        await swarm.until(14 + PATIENCE_ROUNDS)
        replica = swarm.members[0].daemon.parts.session.replicas[COMMON]  # type: ignore[union-attr]
        for tick in range(20, 36):
            await swarm.until(tick + 0.01)
            had = replica.state.version
            while replica.state.version == had:
                await asyncio.sleep(0.01)
            took_s.append(asyncio.get_running_loop().time() - tick)
        strangers.cancel()
        await swarm.stop()

    play(main)
    cut_s = spec.rounds.cut_share * spec.rounds.tick_seconds
    assert sum(each < cut_s + 0.1 for each in took_s) >= 0.8 * len(took_s), took_s
