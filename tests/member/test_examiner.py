"""Held-out text is looked at now and then, and a loss that rises for long is said."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.errors import DataError
from peer.block.saved import load_state
from peer.member.best import FOLDER, best_looks
from peer.member.chronicle import MAX_LOSSES, Chronicle
from peer.member.examiner import EXAMINE_S, OVER, RISE_NATS, RISING, SHARE, Examiner, is_over, warning
from peer.train.outer import SWARM, OuterState, new_state
from peer.train.partition import COMMON


class World:
    """A member that trains, in which looking takes a while."""

    def __init__(self, folder: Path, takes_s: float = 1.0, keeps: bool = True) -> None:
        self.now, self.takes_s = 100.0, takes_s
        self.is_training, self.step_s = True, 0.5
        self.losses, self.pauses = {"fish": 2.0}, 0
        self.activity: Any = SimpleNamespace(takes_part=lambda: self.is_training, is_paused=False)
        session: Any = SimpleNamespace(held_out_losses=self.look, progress=self, sub_model="model", states=self.states)
        self.chronicle = Chronicle(folder)
        self.folder = folder / FOLDER if keeps else None
        self.examiner = Examiner(self.activity, session, self.chronicle, lambda: self.now, self.folder, self.pause)

    async def look(self) -> dict[str, float]:
        self.now += self.takes_s
        if self.takes_s < 0.0:
            raise DataError("damaged")
        self.chronicle.tokens += 1000
        return self.losses

    def states(self) -> list[OuterState]:
        values = torch.full((4,), sum(self.losses.values()))
        return [
            new_state(COMMON, values, None, version=1, round_=1, ages={SWARM: self.chronicle.tokens}, is_final=False)
        ]

    async def pause(self, why: str) -> None:
        assert why.startswith("paused by itself: the held-out loss rises")
        self.pauses += 1
        self.activity.is_paused = True

    def see(self, *losses: float, **others: float) -> None:
        """Look once for each loss of fish."""
        for loss in losses:
            self.losses = {"fish": loss, **others}
            asyncio.run(self.examiner.examine())


def test_it_looks_every_few_minutes_while_there_is_training(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert not world.examiner.is_due()
    world.now += EXAMINE_S
    assert world.examiner.is_due()
    world.is_training = False
    assert not world.examiner.is_due()
    world.is_training = True
    asyncio.run(world.examiner.examine())
    assert world.chronicle.held_out == {"fish": [(1000, 2.0)]}
    assert not world.examiner.is_due()
    world.now += EXAMINE_S - world.takes_s
    assert world.examiner.is_due()


@pytest.mark.parametrize("takes_s", [EXAMINE_S * SHARE / 2, EXAMINE_S * SHARE * 2])
def test_what_takes_long_is_done_more_rarely(takes_s: float, tmp_path: Path) -> None:
    world = World(tmp_path, takes_s)
    asyncio.run(world.examiner.examine())
    world.now += max(EXAMINE_S, takes_s / SHARE) - takes_s - 0.1
    assert not world.examiner.is_due()
    world.now += 0.2
    assert world.examiner.is_due()


def test_a_look_that_fails_is_not_repeated_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, -0.1)
    world.now += EXAMINE_S
    with pytest.raises(DataError):
        asyncio.run(world.examiner.examine())
    assert not world.examiner.is_due()


def points(*losses: float) -> list[tuple[int, float]]:
    return [(1000 * at, loss) for at, loss in enumerate(losses, start=1)]


def test_a_loss_that_rises_for_long_is_said_with_where_it_was_best() -> None:
    worse = [2.0 + 2 * RISE_NATS] * RISING
    kept = Path("/x/state/best")
    said = warning({"cod": points(2.5, 2.0, *worse), "eel": points(2.5, 2.0, *worse[1:])}, kept)
    assert "cod from 2.000 at 2,000 tokens to 2.040" in said and "eel" not in said
    assert "shoal fuse /x/state --best" in said
    assert "--best" not in warning({"cod": points(2.0, *worse)}, None)
    assert not warning({}, kept)
    assert not warning({"cod": []}, kept)
    assert not warning({"cod": points(2.5, 2.0, *worse[1:], 2.0 + RISE_NATS / 2)}, kept)  # almost as good again
    assert not warning({"cod": points(2.0, *worse, 1.9)}, kept)  # better than ever


def test_the_state_that_was_best_is_kept_also_over_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    for losses, best in (((3.0, 2.0, 2.5), 2.0), ((1.9,), 1.9), ((1.95,), 1.9)):
        world.see(*losses)
        look, place = best_looks([tmp_path])[COMMON]
        assert look.losses == {"fish": best} and look.loss == best
        state = load_state(place, COMMON, 4)
        assert state is not None and state.phi.tolist() == pytest.approx([best] * 4) and state.age == look.tokens
    World(tmp_path).see(2.1)
    assert best_looks([tmp_path])[COMMON][0].loss == 1.9
    World(tmp_path).see(2.2, eel=9.0)  # of a domain more: nothing was better
    assert best_looks([tmp_path])[COMMON][0].losses == {"fish": 2.2, "eel": 9.0}


def test_where_no_moment_is_best_for_all_nothing_is_kept(tmp_path: Path) -> None:
    World(tmp_path, keeps=False).see(2.0)
    assert not best_looks([tmp_path])


def test_of_several_peers_the_best_is_taken_and_an_unfinished_one_is_none(tmp_path: Path) -> None:
    for name, loss in (("a", 2.0), ("b", 1.0), ("c", 0.5)):
        (tmp_path / name).mkdir()
        World(tmp_path / name).see(loss)
    (tmp_path / "c" / FOLDER / COMMON / "look.json").unlink()  # as after a crash between the writes
    assert best_looks([tmp_path / name for name in "abc"])[COMMON][1] == tmp_path / "b" / FOLDER / COMMON


def test_it_pauses_by_itself_when_all_domains_have_risen_for_long(tmp_path: Path) -> None:
    world = World(tmp_path)
    worse = [2.0 + 2 * RISE_NATS] * OVER
    world.see(2.5, 2.0, *worse[1:])
    assert not world.pauses
    world.see(*worse[:1])
    assert world.pauses == 1 and "paused by itself" in world.chronicle.events[-1]
    world.see(*worse)  # by its own wish it stays so
    assert world.pauses == 1
    world.activity.is_paused = False  # by the user's: it has as many looks again, from what it is now
    world.see(*worse)
    assert world.pauses == 1


def test_one_domain_that_still_learns_keeps_it_going(tmp_path: Path) -> None:
    world = World(tmp_path)
    worse = [2.0 + 2 * RISE_NATS] * OVER
    for at, loss in enumerate([2.0, *worse]):
        world.see(loss, eel=3.0 - at / 100)
    assert not world.pauses
    assert not is_over({}) and is_over({"cod": points(2.0, *worse)})
    assert not is_over({"cod": points(2.0, *worse), "eel": points(2.0, *worse[1:])})


def test_a_long_curve_keeps_its_lowest_point(tmp_path: Path) -> None:
    chronicle = Chronicle(tmp_path)
    for at in range(3 * MAX_LOSSES):
        chronicle.tokens = at
        chronicle.examined({"fish": 1.0 if at == 9 else 2.0 + at / 1e4})
    assert len(chronicle.held_out["fish"]) <= MAX_LOSSES + 1
    assert min(loss for _, loss in chronicle.held_out["fish"]) == 1.0
