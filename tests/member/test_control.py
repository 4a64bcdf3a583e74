import asyncio

import pytest

from configs.errors import UsageError
from peer.member.activity import Activity, State
from peer.member.control import Control


class Training:
    """Stands for the session: what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def pause(self) -> None:
        self.told.append("pause")

    async def resume(self) -> None:
        self.told.append("resume")


def make() -> tuple[Control, Activity, Training]:
    activity, training = Activity(asyncio.Event()), Training()
    activity.download()
    activity.train()
    return Control(activity, training), activity, training  # type: ignore[arg-type]


def test_a_pause_stops_training_and_holds_until_it_is_taken_back() -> None:
    control, activity, training = make()
    asyncio.run(control.pause())
    assert (activity.state, training.told) == (State.PAUSED, ["pause"])
    asyncio.run(control.resume())
    assert (activity.state, training.told) == (State.TRAINING, ["pause", "resume"])


def test_a_peer_that_leaves_is_neither_paused_nor_resumed() -> None:
    control, activity, training = make()
    asyncio.run(control.leave())
    assert activity.leaving.is_set()
    for ask in (control.pause, control.resume):
        with pytest.raises(UsageError, match="leaving"):
            asyncio.run(ask())
    assert not training.told
