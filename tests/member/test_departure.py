"""A member leaves by one deadline, whatever hangs, and says that it has left."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from loop import FakeTime

from peer.ending import LEAVE_S
from peer.member.departure import HAND_OVER, RECORD, ROUNDS, SNAPSHOT, depart


@pytest.mark.parametrize(
    ("hangs", "share"),
    [((), 0.0), (("rounds",), ROUNDS), (("drop",), SNAPSHOT), (("hand over",), HAND_OVER), (("record",), RECORD)],
)
def test_each_step_has_its_part_of_the_time(hangs: tuple[str, ...], share: float) -> None:
    done: list[str] = []

    def step(name: str) -> Callable[..., Awaitable[None]]:
        async def work(*arguments: object, **options: object) -> None:
            if name in hangs:
                await asyncio.Event().wait()
            done.append(name)

        return work

    async def put_away(until: float) -> None:
        assert until == pytest.approx(SNAPSHOT * LEAVE_S)
        done.append("put away")

    async def main() -> float:
        parts: Any = SimpleNamespace(
            activity=SimpleNamespace(leave=lambda: done.append("leaving")),
            save=lambda: done.append("saved"),
            facts=SimpleNamespace(clock=SimpleNamespace(tick=lambda: 7)),
        )
        rounds: Any = SimpleNamespace(settle=step("rounds"), drop=step("drop"))
        changes: Any = SimpleNamespace(settle=step("changes"), put_away=put_away)
        keeper, announcer = SimpleNamespace(hand_over=step("hand over")), SimpleNamespace(publish=step("record"))
        await depart(parts, rounds, changes, keeper, announcer)  # type: ignore[arg-type]
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=FakeTime) as runner:
        assert runner.run(main()) == pytest.approx(share * LEAVE_S, abs=0.01)
    every = ["changes", "rounds", "drop", "leaving", "put away", "saved", "hand over", "record"]
    assert done == [name for name in every if name not in hangs]


def test_every_step_that_hangs_leaves_time_to_close() -> None:
    assert ROUNDS < SNAPSHOT < HAND_OVER < RECORD <= 0.75
