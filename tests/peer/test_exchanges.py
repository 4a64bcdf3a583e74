"""A round's fault ends with the round."""

import asyncio
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from configs.clock import Clock
from configs.errors import DeviceError, PeerError, StateError
from configs.run import RunSpec
from peer import exchanges
from peer.exchanges import FAULTY, Exchanges, is_of_this_machine
from peer.rounds import Meeting

BLOCK = "model"


class FakeReplica:
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
