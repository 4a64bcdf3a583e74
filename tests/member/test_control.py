"""Who pauses a peer, and who lets it go on: its owner's word, and his rules."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import UsageError
from configs.limits import Limits
from peer.member.activity import Activity, State
from peer.member.chronicle import Chronicle
from peer.member.control import Control
from peer.member.wishes import Machine


class Training:
    """Stands for the session: what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def pause(self) -> None:
        self.told.append("pause")

    async def resume(self) -> None:
        self.told.append("resume")


class World:
    """A peer that trains, on a machine whose facts a test changes."""

    def __init__(self, folder: Path) -> None:
        self.activity, self.training, self.machine = Activity(asyncio.Event()), Training(), Machine()
        self.activity.download()
        self.activity.train()
        self.looks = 0
        self.bounds: Any = SimpleNamespace(now=Limits(), changed=asyncio.Event(), seen={})
        self.chronicle = Chronicle(folder)
        session: Any = self.training
        self.control = Control(self.activity, session, self.chronicle, self.bounds, self)  # type: ignore[arg-type]

    def look(self, limits: Limits) -> Machine:
        self.looks += 1
        return self.machine

    async def heeded(self, *, machine: Machine | None = None, limits: Limits | None = None) -> None:
        """Let the machine or the limits become so, and wait until that was taken in."""
        self.machine = self.machine if machine is None else machine
        self.bounds.now = self.bounds.now if limits is None else limits
        looks = self.looks
        self.bounds.changed.set()
        while (self.looks == looks and self.bounds.now.has_rules) or self.bounds.changed.is_set():
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0.001)

    def play(self, story: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            heeding = asyncio.create_task(self.control.heed())
            async with asyncio.timeout(60):
                await story()
            heeding.cancel()

        asyncio.run(main())


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


BATTERY, MAINS = Machine(is_on_battery=True), Machine(is_on_battery=False)
ON_MAINS = Limits(pause_on_battery=True)


def test_a_pause_stops_training_and_holds_until_it_is_taken_back(world: World) -> None:
    asyncio.run(world.control.pause())
    assert (world.activity.state, world.training.told) == (State.PAUSED, ["pause"])
    assert world.activity.why_paused() == "paused by the owner of this machine; goes on with `shoal resume`"
    assert asyncio.run(world.control.resume()) == ""
    assert (world.activity.state, world.training.told) == (State.TRAINING, ["pause", "resume"])
    assert world.activity.why_paused() == ""


def test_a_peer_that_leaves_is_neither_paused_nor_resumed(world: World) -> None:
    asyncio.run(world.control.leave())
    assert world.activity.leaving.is_set()
    for ask in (world.control.pause, world.control.resume):
        with pytest.raises(UsageError, match="leaving"):
            asyncio.run(ask())
    assert not world.training.told


def test_a_rule_pauses_as_long_as_it_is_so_and_says_why(world: World) -> None:
    async def story() -> None:
        await world.heeded(machine=BATTERY, limits=ON_MAINS)
        assert world.activity.state is State.PAUSED
        assert world.activity.why_paused() == (
            "paused by itself: the machine runs on its battery; goes on with mains power, or with `shoal resume`"
        )
        assert world.bounds.seen["pause_on_battery"].startswith("the machine runs on its battery")
        await world.heeded(machine=MAINS)
        assert world.activity.state is State.TRAINING and world.training.told == ["pause", "resume"]

    world.play(story)
    assert [event.partition("  ")[2] or event for event in world.chronicle.events][-1].endswith(
        "wants a pause any more"
    )


def test_a_rule_never_resumes_what_the_owner_has_paused(world: World) -> None:
    async def story() -> None:
        await world.control.pause()
        await world.heeded(machine=BATTERY, limits=ON_MAINS)
        await world.heeded(machine=MAINS)
        assert world.activity.state is State.PAUSED and "by the owner" in world.activity.why_paused()
        assert "resume" not in world.training.told
        await world.control.resume()
        assert world.activity.state is State.TRAINING

    world.play(story)


def test_resume_overrules_a_rule_until_that_has_changed(world: World) -> None:
    async def story() -> None:
        await world.heeded(machine=BATTERY, limits=ON_MAINS)
        note = await world.control.resume()
        assert note.startswith("although the machine runs on its battery") and "once it has changed" in note
        assert world.activity.state is State.TRAINING
        await world.heeded()
        assert world.activity.state is State.TRAINING, "it is still so, and overruled"
        await world.heeded(machine=MAINS)
        await world.heeded(machine=BATTERY)
        assert world.activity.state is State.PAUSED, "it has changed, and counts again"

    world.play(story)


def test_another_rule_is_not_overruled_with_the_first(world: World) -> None:
    async def story() -> None:
        await world.heeded(machine=BATTERY, limits=ON_MAINS)
        await world.control.resume()
        minute = time.localtime(time.time() + 7200)
        closed = f"{minute.tm_hour}:00-{minute.tm_hour}:01"
        await world.heeded(limits=ON_MAINS.changed(Limits(hours=closed)))
        assert world.activity.state is State.PAUSED and "hours" in world.activity.why_paused()
        await world.heeded(limits=ON_MAINS)
        assert world.activity.state is State.TRAINING

    world.play(story)


def test_a_limit_that_is_taken_away_pauses_no_more(world: World) -> None:
    async def story() -> None:
        await world.heeded(machine=BATTERY, limits=ON_MAINS)
        assert world.activity.state is State.PAUSED
        await world.heeded(limits=Limits())
        assert world.activity.state is State.TRAINING

    world.play(story)


def test_without_a_rule_the_machine_is_not_looked_at(world: World) -> None:
    async def story() -> None:
        await world.heeded(limits=Limits(up_mbit=3))

    world.play(story)
    assert world.looks == 0
