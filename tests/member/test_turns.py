"""Which sub-model a peer trains next."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from configs.run import RunSpec
from peer.block.timing import TURN_TICKS
from peer.member.turns import Turns
from peer.train.partition import COMMON, Strategy

SUB_MODELS = ("branch.0", "branch.1", "branch.2")


@pytest.fixture
def daemon(smallest_run: Callable[..., RunSpec]) -> Any:
    """A daemon whose common phase has just ended; `views` says who held what."""
    spec = smallest_run(strategy={"kind": "branches", "common_tokens": 100})
    views: dict[str, tuple[str, ...]] = {COMMON: ("a", "b"), "branch.0": ("a",), "branch.1": ("b",)}
    common = SimpleNamespace(state=SimpleNamespace(is_final=True, round=7))
    return SimpleNamespace(
        views=views,
        me="me",
        spec=spec,
        strategy=Strategy.of(spec.strategy, 3),
        config=SimpleNamespace(sub_model=None),
        is_paused=False,
        clock=SimpleNamespace(tick=lambda: 9),
        session=SimpleNamespace(sub_model=COMMON, replicas={COMMON: common}),
        membership=SimpleNamespace(view=lambda block, tick: views.get(block, ())),
        standing=SimpleNamespace(acting_tick=lambda: 11, ages=dict, is_done=lambda sub_model: False),
        library=SimpleNamespace(can_train=lambda strategy, sub_model: True),
    )


def test_where_sub_models_part_everybody_has_a_place(daemon: Any) -> None:
    daemon.views[COMMON] = ("a", "b", "me")
    places = {}
    for me in daemon.views[COMMON]:
        daemon.me = me
        places[me] = Turns(cast(Any, daemon)).target(9)
    assert sorted(places.values()) == sorted(SUB_MODELS)


def test_who_was_not_in_the_last_common_view_takes_what_needs_it_most(daemon: Any) -> None:
    assert Turns(cast(Any, daemon)).target(9) == "branch.2"


@pytest.mark.parametrize(("stride", "turn_ticks"), [(1, TURN_TICKS), (TURN_TICKS, TURN_TICKS), (16, 16)])
def test_a_turn_has_a_round_of_ones_own_in_it(daemon: Any, stride: int, turn_ticks: int) -> None:
    """One peer trains three branches in turn; the two that it is not at are younger and have nobody."""
    replica = SimpleNamespace(state=SimpleNamespace(is_final=False, age=50))
    daemon.session = SimpleNamespace(sub_model="branch.0", replicas={"branch.0": replica})
    daemon.views.clear()
    daemon.views["branch.0"] = ("me",)
    daemon.standing.ages = lambda: {"branch.0": 50, "branch.1": 10, "branch.2": 20}
    daemon.membership.strides = lambda block, tick: {"me": stride}
    turns = Turns(cast(Any, daemon))
    turns.began = 100
    assert turns.target(100 + turn_ticks - 1) == "branch.0"
    assert turns.target(100 + turn_ticks) == "branch.1"
