"""Measured against theory: what a pull takes off, and where the spread between replicas settles."""

from statistics import fmean

import pytest

from benchmarks.scale import pulled
from peer.simulate.run import Simulation, one_thread
from peer.simulate.scenario import Figures, Scenario
from peer.simulate.theory import expected_groups, pull_factor, steady_spread
from peer.simulate.work import NOISE
from protocols.grouping import draw


def simulated(**scenario: object) -> list[Figures]:
    with one_thread():
        return list(Simulation(Scenario.model_validate({"peers": 16, "group_size": 4, **scenario})).rounds())


@pytest.mark.parametrize("peers", [8, 32])
def test_a_pull_takes_off_what_theory_says(peers: int) -> None:
    with one_thread():
        measured = pulled(peers, ticks=100)
    assert measured.ratio == pytest.approx(1, abs=0.04)
    assert measured.exact < measured.rounded < 1.3 * measured.exact


def test_the_factor_at_its_ends() -> None:
    assert pull_factor(16, 1) == 0  # one group: all the same
    assert pull_factor(16, 16) == 1  # everybody alone
    assert pull_factor(3, 2) == 0.5  # of three values two meet: half of the variance is left


def test_buckets_that_are_not_empty() -> None:
    assert expected_groups(8, 8) == 1
    ticks = range(400)
    found = [len({draw("", "model", tick, f"peer{number}")[:2] for number in range(16)}) for tick in ticks]
    assert expected_groups(16, 4) == pytest.approx(fmean(found), rel=0.02)


def test_the_spread_follows_theory_and_stays_bounded() -> None:
    rounds = simulated(rounds=200, codec="float32")
    assert [figures.spread for figures in rounds[:40]] == pytest.approx([f.theory for f in rounds[:40]], rel=0.12)
    early, late = (fmean(figures.spread for figures in part) for part in (rounds[50:100], rounds[150:]))
    assert late <= 1.1 * early
    assert late == pytest.approx(fmean(figures.theory for figures in rounds[150:]), rel=0.08)


def test_the_spread_stays_bounded_while_peers_are_replaced() -> None:
    rounds = simulated(rounds=150, churn=0.3)
    assert fmean(figures.spread for figures in rounds[100:]) < 2.3  # 1.7; without a pull it is 5 by now
    assert 0.28 < rounds[-1].lost < 0.38


def test_the_steady_spread() -> None:
    assert steady_spread(8, 1, 16, 0.7, 0.5) == 0
    by_fragments = [steady_spread(16, 4, fragments, 0.7, 0.5) for fragments in (1, 4, 16)]
    assert by_fragments == sorted(by_fragments)
    kept, added = pull_factor(16, 4), NOISE * 3 / 16
    assert steady_spread(16, 4, 1, 1.0, 0.0) == pytest.approx((added / (1 - kept)) ** 0.5, rel=1e-6)
