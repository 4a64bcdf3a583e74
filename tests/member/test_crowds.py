"""How many holders a block has, and whether they are one group."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from configs.clock import Clock
from configs.run import RunSpec
from peer.member.crowds import Crowds
from protocols.grouping import begin, draw


@pytest.fixture
def rooms(smallest_run: Callable[..., RunSpec]) -> Any:
    spec = smallest_run(rounds={"tick_seconds": 1, "double_tokens": 10**9, "group_size": 4})
    rooms = SimpleNamespace(view=("me",), told={}, strangers=(), silent=())
    rooms.facts = SimpleNamespace(spec=spec, clock=Clock(0.0, 1.0, lambda: 8.0), me="me")
    rooms.membership = SimpleNamespace(
        holders=lambda block, tick: rooms.view,
        members=lambda tick: (*rooms.view, *rooms.strangers),
        knows=lambda peer: peer not in rooms.strangers,
        record=lambda peer: SimpleNamespace(crowds=rooms.told.get(peer, {})),
    )
    hearing = SimpleNamespace(hears=lambda peer: peer not in rooms.silent)
    rooms.replicas = {"model": SimpleNamespace(state=SimpleNamespace(age=0), hearing=hearing)}
    return rooms


def crowds_of(rooms: Any, admission: Any = None) -> Crowds:
    network: Any = SimpleNamespace(admission=admission)
    return Crowds(rooms.facts, network, rooms.membership, rooms.replicas, lambda block: False, list)


@pytest.mark.parametrize(("holders", "is_crowd"), [(1, False), (4, False), (40, True)])
def test_a_block_is_a_crowd_when_its_holders_are_more_than_a_group(rooms: Any, holders: int, is_crowd: bool) -> None:
    rooms.view = (*tuple(f"peer{n}" for n in range(holders - 1)), "me")
    crowds = crowds_of(rooms)
    asyncio.run(crowds.keep_up(8))
    assert crowds.is_crowd("model") == is_crowd
    assert bool(crowds.told()) == is_crowd
    if not is_crowd:
        assert crowds.is_listed(), "who is in one group is known by its record"


def test_holders_who_are_not_heard_make_no_crowd(rooms: Any) -> None:
    rooms.silent = tuple(f"peer{n}" for n in range(39))
    rooms.view = (*rooms.silent, "other", "me")
    crowds = crowds_of(rooms)
    asyncio.run(crowds.keep_up(8))
    assert not crowds.is_crowd("model")


def test_strangers_records_make_no_crowd_of_two(rooms: Any) -> None:
    rooms.view, rooms.strangers = ("a", "me"), ("b", "c", "d")
    rooms.told = {peer: {"model": 900.0} for peer in rooms.strangers}
    crowds = crowds_of(rooms)
    asyncio.run(crowds.keep_up(8))
    assert not crowds.is_crowd("model")


def test_a_newcomer_takes_the_word_of_those_who_have_counted(rooms: Any) -> None:
    rooms.view = ("a", "b", "me")
    rooms.told = {"a": {"model": 900.0}, "b": {"model": 1100.0}}
    crowds = crowds_of(rooms)
    asyncio.run(crowds.keep_up(8))
    assert crowds.is_crowd("model")
    assert crowds.holders("model") == pytest.approx(1000.0, rel=0.2)


def test_in_a_closed_run_nobody_chooses_his_draws(rooms: Any) -> None:
    """An identity is quickly made; its invitation's nonce comes from somebody else."""
    open_run = {crowds_of(rooms)._draw("model", tick) for tick in range(9)}
    closed = crowds_of(rooms, SimpleNamespace(nonce=lambda peer: f"nonce of {peer}"))
    drawn = {closed._draw("model", tick) for tick in range(9)}
    assert not open_run & drawn
    run_id = rooms.facts.spec.run_id
    assert drawn == {draw(run_id, "model", tick, "me", "nonce of me") for tick in range(9)}
    assert closed._draw("model", 1, "a") == draw(run_id, "model", 1, "a", "nonce of a")


def test_a_block_that_was_put_away_is_counted_no_more(rooms: Any) -> None:
    rooms.view = (*tuple(f"peer{n}" for n in range(39)), "me")
    crowds = crowds_of(rooms)
    asyncio.run(crowds.keep_up(8))
    rooms.replicas.clear()
    asyncio.run(crowds.keep_up(9))
    assert not crowds.is_crowd("model") and crowds.told() == {}


def test_a_slow_reading_gives_way_to_a_later_one(rooms: Any) -> None:
    """Both begin with one estimate; the later reading has revised it while the slow one still looks further."""
    rooms.view = (*tuple(f"peer{n}" for n in range(39)), "me")
    crowds = crowds_of(rooms)
    asyncio.run(crowds.keep_up(8))
    before, later = crowds._census["model"], begin(500.0, 4)
    looked = []

    async def read(block: str, tick: int, prefix: str) -> dict[str, Any]:
        looked.append(prefix)
        crowds._census["model"] = later
        return {}

    crowds._buckets = SimpleNamespace(read=read)  # type: ignore[assignment]
    asyncio.run(crowds._revise("model", 9, {before.bits: []}, [before.holders]))
    assert looked, "an empty bucket is a reason to look further"
    assert crowds._census["model"] is later
