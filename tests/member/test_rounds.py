"""A round's fault ends with the round."""

import asyncio
import threading
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.patience import HANG_S
from configs.clock import Clock
from configs.errors import DeviceError, PeerError, StateError
from configs.run import RunSpec
from peer.block.exchange import Outcome
from peer.block.replica import Replica
from peer.block.threads import unbroken
from peer.block.timing import Meeting
from peer.member import rounds as rounds_module
from peer.member.rounds import FAULTY, Rounds, is_of_this_machine
from peer.train.outer import Contribution, new_state
from peer.workers.progress import Progress
from protocols.offers import Offers
from protocols.traffic import Traffic

BLOCK = "model"


SIZE = 64


class Stage(Enum):
    """How far a round is when its peer leaves."""

    MAKING = "the offer is being made"
    OFFERED = "the offer is out, the others are not heard yet"
    STEPPING = "the step is being taken"


@pytest.mark.parametrize("stage", Stage)
def test_a_round_that_is_dropped_has_stepped_as_a_whole_or_owes_its_work(
    rooms: Any, smallest_run: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """Whatever is cut off: φ₀ − φ, the residual and what θ has beyond φ are together the work that was made, once."""
    spec = smallest_run(outer={"codec": "float32", "alpha": 1.0, "mu": 0.0})
    start = torch.zeros(SIZE)
    replica = Replica(new_state(BLOCK, start, None, version=0, round_=0, ages={}, is_final=False), spec, "me")
    theta = torch.full((SIZE,), -1.0)  # what was learnt is one, of each value
    at, go_on = asyncio.Event(), threading.Event()
    rebased: list[bool] = []

    async def rebase(block: str, before: object, cut: object, *, is_step: bool) -> None:
        rebased.append(is_step)
        theta.add_(replica.state.phi - theta)

    async def save(replica: Replica) -> None:
        pass

    async def run_round(*arguments: object) -> None:
        loop = asyncio.get_running_loop()

        def slowly(function: Callable[..., object], *given: object) -> object:
            loop.call_soon_threadsafe(at.set)
            assert go_on.wait(HANG_S)
            return function(*given)

        offer = (replica.offer, 8, theta.clone(), 100)
        await unbroken(*((slowly, *offer) if stage is Stage.MAKING else offer))
        if stage is Stage.OFFERED:
            at.set()
            await asyncio.Event().wait()
        assert replica.pending is not None
        mine = Contribution("me", replica.pending.decoded, 100, 8.0, "all")
        await unbroken(slowly, replica.advance, 8, [mine], {"me": "0" * 64})

    monkeypatch.setattr(rounds_module, "run_round", run_round)
    rooms.session.replicas[BLOCK], rooms.session.rebase = replica, rebase
    of_peer = rounds_of(rooms)

    async def main() -> None:
        due = Meeting(8, ("a", "me"), 1)
        of_peer._under_way[BLOCK] = asyncio.create_task(of_peer._exchange(BLOCK, due, snapshots()))
        await at.wait()
        dropping = asyncio.create_task(of_peer.drop())
        await asyncio.sleep(0)
        go_on.set()
        await dropping
        replica.put_off(theta, 100)

    asyncio.run(main())
    assert rebased == ([True] if stage is Stage.STEPPING else [])
    assert replica.state.version == (stage is Stage.STEPPING)
    made = (start - replica.state.phi) + replica.residual
    assert torch.equal(made, torch.ones(SIZE))


class FakeReplica:
    block = BLOCK

    def __init__(self) -> None:
        self.state = SimpleNamespace(age=0, version=3, digest="d" * 64, is_final=False)
        self.skipped: list[int] = []

    def skip(self, round_: int) -> None:
        self.skipped.append(round_)


@pytest.fixture
def rooms(smallest_run: Callable[..., RunSpec]) -> Any:
    async def nothing(replica: object) -> None:
        pass

    progress = Progress(step_s=0.1)
    return SimpleNamespace(
        facts=SimpleNamespace(spec=smallest_run(), clock=Clock(0.0, 1.0, lambda: 8.0), me="me"),
        session=SimpleNamespace(replicas={BLOCK: FakeReplica()}, progress=progress, save=nothing),
        crowds=SimpleNamespace(is_crowd=lambda block: False),
        ends=[],
    )


def rounds_of(rooms: Any) -> Rounds:
    none: Any = None
    swarm: Any = SimpleNamespace(offers=Offers(Traffic()))
    return Rounds(rooms.facts, none, rooms.session, swarm, none, rooms.crowds, rooms.ends.append)


def snapshots() -> Any:
    """Return snapshots that have been taken already."""
    taken = asyncio.get_running_loop().create_future()
    taken.set_result(SimpleNamespace(works={BLOCK: None}))
    return taken


def exchange(rooms: Any, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_round(*arguments: object) -> None:
        raise error

    async def main() -> None:
        await rounds_of(rooms)._exchange(BLOCK, Meeting(8, ("a", "me"), 1), snapshots())

    monkeypatch.setattr(rounds_module, "run_round", run_round)
    asyncio.run(main())


@pytest.mark.parametrize("error", [ValueError("infinite"), PeerError("it lied"), ExceptionGroup("two", [KeyError(1)])])
def test_a_round_that_fails_is_skipped_and_said(
    rooms: Any, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exchange(rooms, error, monkeypatch)
    assert rooms.session.replicas[BLOCK].skipped == [8]
    [end] = rooms.ends
    assert (end.tick, end.outcome.cause) == (8, FAULTY)
    assert any(record.exc_info for record in caplog.records), "no traceback in the log"


@pytest.mark.parametrize("error", [StateError("the disk is full"), ExceptionGroup("", [DeviceError("gone")])])
def test_what_is_wrong_with_this_machine_ends_the_daemon(
    rooms: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_of_this_machine(error)
    with pytest.raises(type(error)):
        exchange(rooms, error, monkeypatch)


def test_who_leaves_while_the_worker_is_brought_to_a_step_waits_for_that(
    rooms: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the worker's θ is that of before the step, and what it has beyond the new state is owed twice."""
    done: list[str] = []

    async def main() -> None:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def rebase(*arguments: object, **how: object) -> None:
            begun.set()
            await goes_on.wait()
            done.append("rebased")

        async def save(replica: object) -> None:
            done.append("saved")

        async def run_round(swarm: object, replica: Any, *arguments: object) -> Outcome:
            replica.state = SimpleNamespace(age=1, version=4, digest="e" * 64, is_final=False)
            return Outcome("sealed 2 of 2", True)

        rooms.session.rebase, rooms.session.save = rebase, save
        monkeypatch.setattr(rounds_module, "run_round", run_round)
        task = asyncio.create_task(rounds_of(rooms)._exchange(BLOCK, Meeting(8, ("a", "me"), 1), snapshots()))
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        goes_on.set()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert done == ["rebased", "saved"]
