"""The curves of a run, as one peer sees them."""

import math
from pathlib import Path

import pytest

from configs.errors import StateError
from peer.http.history import Point
from peer.member.learning import FILE, MAX_CURVES, MAX_POINTS, Learning


def values(points: list[Point]) -> list[tuple[int, float]]:
    return [(point.tokens, point.value) for point in points]


def test_a_sub_model_s_looks_are_points_over_its_age(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.examined("expert.0", 100, 1.0, {"docs": 3.0})
    learning.examined("expert.0", 150, 2.0, {"docs": 3.0})  # the same look, told again with a later record
    learning.examined("expert.0", 200, 3.0, {"docs": 2.5, "cpp": 4.0})
    learning.examined("expert.0", 190, 4.0, {"docs": 9.0})  # another peer's, of an older state
    held_out = learning.curves.held_out["expert.0"]
    assert values(held_out["docs"]) == [(100, 3.0), (200, 2.5)] and values(held_out["cpp"]) == [(200, 4.0)]
    assert learning.latest("expert.0") == {"docs": 2.5, "cpp": 4.0} and learning.latest("expert.1") == {}


def test_the_run_is_as_good_as_who_knows_a_domain_best(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.examined("model", 50, 1.0, {"docs": 4.0})
    learning.summed_up(50, 1.0)
    learning.examined("expert.0", 100, 2.0, {"docs": 3.0})
    learning.summed_up(300, 2.0)
    learning.summed_up(400, 3.0)  # nobody has looked since
    assert values(learning.curves.run["docs"]) == [(50, 4.0), (300, 3.0)]


def test_own_steps_are_added_once_and_what_is_not_finite_never(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.trained(10, 1.0, 5.0, 1e-3, 0.7)
    learning.trained(10, 2.0, 4.9, 1e-3, 0.7)
    learning.trained(20, 3.0, math.nan, 1e-3, math.inf)
    assert values(learning.curves.training) == [(10, 5.0)]
    assert values(learning.curves.learning_rate) == [(10, 1e-3), (20, 1e-3)]
    assert values(learning.curves.gradient_norm) == [(10, 0.7)]


def test_curves_stay_short_with_their_ends_and_their_lowest_point(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    for at in range(3 * MAX_POINTS):
        learning.trained(at + 1, float(at), 1.0 if at == 7 else 2.0 + at / 1e4, 0.1, 0.1)
    curve = learning.curves.training
    assert len(curve) <= MAX_POINTS and (curve[0].tokens, curve[-1].tokens) == (1, 3 * MAX_POINTS)
    assert min(point.value for point in curve) == 1.0


def test_others_cannot_make_curves_without_end(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    for at in range(MAX_CURVES + 5):
        learning.examined("model", 1, 1.0, {f"domain{at}": 1.0})
    assert len(learning.curves.held_out["model"]) == MAX_CURVES


def test_curves_survive_a_restart_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    learning = Learning(tmp_path)
    learning.examined("model", 1, 1.0, {"docs": 2.0})
    learning.save()
    assert Learning(tmp_path).curves == learning.curves
    (tmp_path / FILE).write_text("{")
    with pytest.raises(StateError, match=r"curves\.json is damaged.*delete it"):
        Learning(tmp_path)
