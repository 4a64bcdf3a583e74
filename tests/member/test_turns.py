"""Which sub-model a peer trains next."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from configs.run import RunSpec
from peer.member.turns import TURN_TICKS, Turns
from peer.train.partition import COMMON, Strategy

SUB_MODELS = ("branch.0", "branch.1", "branch.2")


@pytest.fixture
def rooms(smallest_run: Callable[..., RunSpec]) -> Any:
    """The rooms of a peer whose common phase has just ended; `views` says who held what."""
    spec = smallest_run(strategy={"kind": "branches", "common_tokens": 100})
    views: dict[str, tuple[str, ...]] = {COMMON: ("a", "b"), "branch.0": ("a",), "branch.1": ("b",)}
    common = SimpleNamespace(state=SimpleNamespace(is_final=True, round=7, ages={"a": 9, "b": 9, "me": 9}))
    config, clock = SimpleNamespace(sub_model=None), SimpleNamespace(tick=lambda: 9)
    return SimpleNamespace(
        views=views,
        facts=SimpleNamespace(spec=spec, strategy=Strategy.of(spec.strategy, 3), config=config, clock=clock, me="me"),
        activity=SimpleNamespace(is_paused=False),
        session=SimpleNamespace(sub_model=COMMON, replicas={COMMON: common}),
        membership=SimpleNamespace(
            view=lambda block, tick: (*views.get(block, ()), "stranger"),
            holders=lambda block, tick: views.get(block, ()),
        ),
        outlook=SimpleNamespace(acting_tick=lambda: 11, ages=dict, is_done=lambda sub_model: False),
        library=SimpleNamespace(can_train=lambda strategy, sub_model: True),
    )


def turns_of(rooms: Any) -> Turns:
    return Turns(rooms.facts, rooms.activity, rooms.membership, rooms.outlook, rooms.session, rooms.library)


def test_where_sub_models_part_everybody_has_a_place(rooms: Any) -> None:
    rooms.views[COMMON] = ("a", "b", "me")
    places = {}
    for me in rooms.views[COMMON]:
        rooms.facts.me = me
        places[me] = turns_of(rooms).target(9)
    assert sorted(places.values()) == sorted(SUB_MODELS)


def test_who_was_not_in_the_last_common_view_takes_what_needs_it_most(rooms: Any) -> None:
    assert turns_of(rooms).target(9) == "branch.2"


@pytest.mark.parametrize(("stride", "turn_ticks"), [(1, TURN_TICKS), (TURN_TICKS, TURN_TICKS), (16, 16)])
def test_a_turn_has_a_round_of_ones_own_in_it(rooms: Any, stride: int, turn_ticks: int) -> None:
    """One peer trains three branches in turn; the two that it is not at are younger and have nobody."""
    replica = SimpleNamespace(state=SimpleNamespace(is_final=False, age=50))
    rooms.session = SimpleNamespace(sub_model="branch.0", replicas={"branch.0": replica})
    rooms.views.clear()
    rooms.views["branch.0"] = ("me",)
    rooms.outlook.ages = lambda: {"branch.0": 50, "branch.1": 10, "branch.2": 20}
    rooms.membership.strides = lambda block, tick: {"me": stride}
    turns = turns_of(rooms)
    turns.began = 100
    assert turns.target(100 + turn_ticks - 1) == "branch.0"
    assert turns.target(100 + turn_ticks) == "branch.1"


def test_a_run_that_is_done_is_served_only(rooms: Any) -> None:
    rooms.session = SimpleNamespace(sub_model="branch.0", replicas={})
    rooms.outlook.is_done = lambda sub_model: True
    assert turns_of(rooms).target(9) is None
    rooms.session.sub_model = ""
    assert turns_of(rooms).target(10) is None


def test_who_is_paused_keeps_what_it_has(rooms: Any) -> None:
    rooms.activity.is_paused = True
    assert turns_of(rooms).target(9) == COMMON
