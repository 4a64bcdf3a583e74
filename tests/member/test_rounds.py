"""A round's fault ends with the round."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmarks.patience import HANG_S
from configs.clock import Clock
from configs.errors import DeviceError, PeerError, StateError
from configs.run import RunSpec
from peer.block.exchange import unbroken
from peer.block.replica import Replica
from peer.block.timing import Meeting
from peer.member import rounds as exchanges
from peer.member.rounds import FAULTY, Exchanges, is_of_this_machine
from peer.train.outer import Contribution, new_state

BLOCK = "model"


SIZE = 64


class Stage(Enum):
    """How far a round is when its peer leaves."""

    MAKING = "the offer is being made"
    OFFERED = "the offer is out, the others are not heard yet"
    STEPPING = "the step is being taken"


@pytest.mark.parametrize("stage", Stage)
def test_a_round_that_is_dropped_has_stepped_as_a_whole_or_owes_its_work(
    daemon: Any, smallest_run: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch, stage: Stage
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

    monkeypatch.setattr(exchanges, "run_round", run_round)
    daemon.session.replicas[BLOCK], daemon.session.rebase = replica, rebase
    daemon.store = SimpleNamespace(save=lambda replica: None)
    rooms = Exchanges(cast(Any, daemon))

    async def main() -> None:
        cut = cast(Any, SimpleNamespace(works={BLOCK: None}))
        rooms._under_way[BLOCK] = asyncio.create_task(rooms._exchange(BLOCK, Meeting(8, ("a", "me"), 1), cut))
        await at.wait()
        dropping = asyncio.create_task(rooms.drop())
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
def daemon(smallest_run: Callable[..., RunSpec]) -> Any:
    return SimpleNamespace(
        spec=smallest_run(),
        clock=Clock(0.0, 1.0, lambda: 8.0),
        session=SimpleNamespace(replicas={BLOCK: FakeReplica()}, sub_model=BLOCK),
        crowds=SimpleNamespace(is_crowd=lambda block: False),
        chronicle=SimpleNamespace(outcomes={}, skipped=Counter(), rounds=0, happened=lambda event: None),
        company=SimpleNamespace(ended=lambda trial, cause: None),
        workers=SimpleNamespace(progress=SimpleNamespace(loss=None, step_s=0.1)),
        swarm=None,
    )


def exchange(daemon: Any, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run_round(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(exchanges, "run_round", run_round)
    cut = SimpleNamespace(works={BLOCK: None})
    due = Meeting(8, ("a", "me"), 1)
    asyncio.run(Exchanges(cast(Any, daemon))._exchange(BLOCK, due, cast(Any, cut)))


@pytest.mark.parametrize("error", [ValueError("infinite"), PeerError("it lied"), ExceptionGroup("two", [KeyError(1)])])
def test_a_round_that_fails_is_skipped_and_said(
    daemon: Any, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exchange(daemon, error, monkeypatch)
    assert daemon.session.replicas[BLOCK].skipped == [8]
    assert daemon.chronicle.skipped == {FAULTY: 1}
    assert any(record.exc_info for record in caplog.records), "no traceback in the log"


@pytest.mark.parametrize("error", [StateError("the disk is full"), ExceptionGroup("", [DeviceError("gone")])])
def test_what_is_wrong_with_this_machine_ends_the_daemon(
    daemon: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_of_this_machine(error)
    with pytest.raises(type(error)):
        exchange(daemon, error, monkeypatch)
