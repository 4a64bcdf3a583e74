"""Held-out text is looked at now and then, and a loss that rises for long is said."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import DataError
from peer.member.examiner import EXAMINE_S, RISE_NATS, RISING, SHARE, Examiner, warning


class World:
    """A member that trains, in which looking takes a while."""

    def __init__(self, takes_s: float = 1.0) -> None:
        self.now, self.takes_s = 100.0, takes_s
        self.told: list[dict[str, float]] = []
        self.is_training, self.step_s = True, 0.5
        activity: Any = SimpleNamespace(takes_part=lambda: self.is_training)
        session: Any = SimpleNamespace(held_out_losses=self.look, progress=self)
        chronicle: Any = SimpleNamespace(examined=self.told.append)
        self.examiner = Examiner(activity, session, chronicle, lambda: self.now)

    async def look(self) -> dict[str, float]:
        self.now += self.takes_s
        if self.takes_s < 0.0:
            raise DataError("damaged")
        return {"fish": 2.0}


def test_it_looks_every_few_minutes_while_there_is_training() -> None:
    world = World()
    assert not world.examiner.is_due()
    world.now += EXAMINE_S
    assert world.examiner.is_due()
    world.is_training = False
    assert not world.examiner.is_due()
    world.is_training = True
    asyncio.run(world.examiner.examine())
    assert world.told == [{"fish": 2.0}]
    assert not world.examiner.is_due()
    world.now += EXAMINE_S - world.takes_s
    assert world.examiner.is_due()


@pytest.mark.parametrize("takes_s", [EXAMINE_S * SHARE / 2, EXAMINE_S * SHARE * 2])
def test_what_takes_long_is_done_more_rarely(takes_s: float) -> None:
    world = World(takes_s)
    asyncio.run(world.examiner.examine())
    world.now += max(EXAMINE_S, takes_s / SHARE) - takes_s - 0.1
    assert not world.examiner.is_due()
    world.now += 0.2
    assert world.examiner.is_due()


def test_a_look_that_fails_is_not_repeated_at_once() -> None:
    world = World(-0.1)
    world.now += EXAMINE_S
    with pytest.raises(DataError):
        asyncio.run(world.examiner.examine())
    assert not world.examiner.is_due()


def points(*losses: float) -> list[tuple[int, float]]:
    return [(1000 * at, loss) for at, loss in enumerate(losses, start=1)]


def test_a_loss_that_rises_for_long_is_said_with_where_it_was_best() -> None:
    worse = [2.0 + 2 * RISE_NATS] * RISING
    said = warning({"cod": points(2.5, 2.0, *worse), "eel": points(2.5, 2.0, *worse[1:])})
    assert "cod from 2.000 at 2,000 tokens to 2.040" in said and "eel" not in said
    assert "shoal fuse" in said
    assert not warning({})
    assert not warning({"cod": []})
    assert not warning({"cod": points(2.5, 2.0, *worse[1:], 2.0 + RISE_NATS / 2)})  # almost as good again
    assert not warning({"cod": points(2.0, *worse, 1.9)})  # better than ever
