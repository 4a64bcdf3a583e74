"""The adversary's offers, the rules beside the product's, and the bars that are made of them."""

import pytest
import torch
from torch import Tensor

from benchmarks.adversary import AIMED, ATTACKS, TRAINING, Scene
from benchmarks.hostile import ONE_SEED, RULES, Plan, _bars
from benchmarks.hostile_swarm import BASELINES, Cell

SIZE, HONEST = 400, 5


def drawn(seed: int) -> Tensor:
    return torch.randn(SIZE, generator=torch.Generator().manual_seed(seed))


def scene(hostile: int) -> Scene:
    honest = torch.stack([2 * drawn(99) + drawn(seed) for seed in range(HONEST)])

    def combine(offers: list[Tensor]) -> Tensor:  # type: ignore[type-arg]
        return torch.cat([honest, torch.stack(offers)] if offers else [honest]).mean(dim=0)

    own = torch.stack([drawn(50 + index) for index in range(hostile)])
    chance = torch.Generator().manual_seed(0)
    return Scene(0.7, honest, own, hostile, combine, drawn(99), chance)


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_attack_makes_an_offer_for_each_hostile_member(attack: str) -> None:
    offers = ATTACKS[attack](scene(2))
    assert len(offers) == 2 and all(each.shape == (SIZE,) and bool(torch.isfinite(each).all()) for each in offers)
    assert ATTACKS.keys() >= AIMED | TRAINING


def test_min_max_stays_as_near_as_the_honest_ones_are_apart_and_no_nearer() -> None:
    seen = scene(1)
    far = float(torch.cdist(ATTACKS["min_max"](seen)[0][None], seen.honest).max())
    assert far == pytest.approx(float(torch.cdist(seen.honest, seen.honest).max()), rel=1e-3)


def test_who_knows_the_rule_does_more_harm_than_who_does_not() -> None:
    seen = scene(1)
    clean = seen.combine([])
    harms = {
        name: float((seen.combine(ATTACKS[name](seen)) - clean).norm()) for name in ("tailored_far", "alie", "noise")
    }
    assert harms["tailored_far"] > max(harms["alie"], harms["noise"])


def test_the_rules_beside_the_product_s() -> None:
    offers = torch.stack([torch.full((3,), value) for value in (1.0, 2.0, 3.0, 4.0, 1000.0)])
    assert BASELINES["hivemind"](offers)[0] == 202
    assert BASELINES["trimmed"](offers)[0] == 3
    assert BASELINES["geometric"](offers)[0] == pytest.approx(3, abs=0.1)


def test_a_plan_trains_no_cell_twice_and_bars_leave_out_what_nobody_can_tell_apart() -> None:
    plan = Plan({"hostile_1_of_5": (4, 1)}, (5,), list(ATTACKS), RULES, (0, 1), 10)
    cells = plan.cells()
    attacked = [cell for cell in cells if cell.attack]
    assert len(set(attacked)) == len(attacked) == len(ATTACKS) * (2 + len(ONE_SEED) * (len(RULES) - 1))
    assert Cell("mean", "", 4, 0, 10, 1) in cells and Cell("robust", "", 5, 0, 10, 1) in cells
    rows = {attack: dict.fromkeys(RULES, 1.0) for attack in ATTACKS}
    rows["aimed"] = dict.fromkeys(RULES, 1.5)
    rows["alie"]["robust"], rows["noise"]["hivemind"] = 1.005, 1.2
    harm, tax = _bars({"hostile_1_of_5": rows}, {5: 1.0, 10: 1.003})
    assert (harm.value, harm.baseline, harm.holds) == (1.005, 1.2, True)
    assert (tax.value, tax.holds) == (1.003, False)
