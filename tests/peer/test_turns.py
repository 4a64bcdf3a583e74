"""Which sub-model a peer trains next."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from configs.run import RunSpec
from peer.train.partition import COMMON, Strategy
from peer.turns import Turns

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
