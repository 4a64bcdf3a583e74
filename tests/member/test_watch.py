"""What is stuck is said with what it waits for, and ended; what is done or quick is not."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from peer.block.threads import unbroken
from peer.member.watch import ALARM_ROUNDS, ALARM_S, FREE_S, Watch


async def hang() -> None:
    await asyncio.Event().wait()


async def gather() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hang())


async def rest() -> None:
    await asyncio.to_thread(lambda: None)
    await gather()


@pytest.fixture
def at() -> list[float]:
    """Return the time, to be moved."""
    return [100.0]


def watching(
    work: Callable[[], Coroutine[Any, Any, None]], at: list[float], then: Callable[..., None], **how: float
) -> None:
    async def main() -> None:
        watch = Watch(lambda: at[0])
        task, needed = asyncio.create_task(work()), asyncio.create_task(hang())
        watch.follow("a round", task, needed, **how)
        await asyncio.sleep(0.05)
        then(watch)
        task.cancel()
        needed.cancel()
        await asyncio.wait([task, needed])

    asyncio.run(main())


@pytest.mark.parametrize("round_s", [0.0, 1.0, ALARM_S])
def test_what_is_stuck_is_said_once_and_shown_as_long_as_it_lasts(round_s: float, at: list[float]) -> None:
    def then(watch: Watch) -> None:
        patience_s = max(ALARM_S, ALARM_ROUNDS * round_s)
        at[0] += patience_s - 1.0
        assert watch.look() == watch.present == []
        at[0] += 1.0
        [alarm] = watch.look()
        assert alarm == f"a round: under way for {patience_s:.0f} s, waits for the others' offers and lists"
        assert watch.present == [alarm]
        assert watch.look() == []
        assert len(watch.present) == 1

    watching(rest, at, then, round_s=round_s)


def test_what_is_stuck_for_very_long_is_ended_with_what_it_waits_for(at: list[float]) -> None:
    async def main() -> None:
        watch = Watch(lambda: at[0])
        tasks = asyncio.create_task(rest()), asyncio.create_task(hang())
        watch.follow("a round", *tasks)
        await asyncio.sleep(0.05)
        at[0] += FREE_S - 1.0
        watch.look()
        at[0] += 1.0
        [said] = watch.look()
        assert said.endswith("ended, and begun anew when it is due")
        await asyncio.wait(tasks)
        assert all(task.cancelled() for task in tasks)
        assert watch.look() == watch.present == []

    asyncio.run(main())


def test_who_does_not_end_is_ended_once(at: list[float]) -> None:
    """A second cancellation would break what must be done as a whole."""
    counted = 0

    async def stubborn() -> None:
        nonlocal counted
        while True:
            try:
                await hang()
            except asyncio.CancelledError:
                counted += 1
                if counted > 1:
                    raise

    async def main() -> None:
        watch = Watch(lambda: at[0])
        task = asyncio.create_task(stubborn())
        watch.follow("a round", task)
        await asyncio.sleep(0)
        at[0] += FREE_S
        assert len(watch.look()) == 1
        await asyncio.sleep(0)
        assert watch.look() == []
        await asyncio.sleep(0)
        assert counted == len(watch.present) == 1
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())


def test_a_function_without_words_is_named(at: list[float]) -> None:
    def then(watch: Watch) -> None:
        at[0] += ALARM_S
        [alarm] = watch.look()
        assert alarm.endswith("waits for 'wait'"), alarm

    watching(hang, at, then)


def test_a_thread_is_waited_for_in_words(at: list[float]) -> None:
    release = threading.Event()

    async def compute() -> None:
        await unbroken(release.wait)

    def then(watch: Watch) -> None:
        at[0] += ALARM_S
        [alarm] = watch.look()
        assert alarm.endswith("waits for a computation, or the disk"), alarm
        release.set()

    watching(compute, at, then)


def test_what_is_over_is_forgotten(at: list[float]) -> None:
    async def quick() -> None:
        pass

    def then(watch: Watch) -> None:
        at[0] += 2 * FREE_S
        assert watch.look() == watch.present == []

    watching(quick, at, then)
