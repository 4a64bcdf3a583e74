"""A peer takes longer rounds when it must, and shorter ones when it can."""

import pytest

from peer.block.stride import FAILED_ROUNDS, GOOD_ROUNDS, LATE_ROUNDS, MAX_STRIDE, RELAXED, SPARE, Trial, next_stride

CUT_S, ROUND_S = 0.8, 2.0
GOOD, TIGHT = Trial(SPARE * CUT_S, CUT_S, True), Trial(SPARE * CUT_S + 0.01, CUT_S, True)
LATE, NEVER = Trial(CUT_S + 0.01, CUT_S, True), Trial(None, CUT_S, False)
FAILED = Trial(0.1, CUT_S, False)


@pytest.mark.parametrize("stride", [1, 2, 8])
def test_a_step_that_is_longer_than_a_round_doubles_it(stride: int) -> None:
    assert next_stride(stride, [], stride * ROUND_S, ROUND_S) == (stride, "")
    new, reason = next_stride(stride, [], stride * ROUND_S + 0.1, ROUND_S)
    assert new == 2 * stride and "a step takes" in reason


@pytest.mark.parametrize("late", [LATE, NEVER])
def test_offers_that_come_after_the_cut_double_it(late: Trial) -> None:
    assert next_stride(1, [GOOD, *[late] * (LATE_ROUNDS - 1)], 0.5, ROUND_S)[0] == 1
    assert next_stride(1, [late, GOOD, late], 0.5, ROUND_S)[0] == 1
    new, reason = next_stride(1, [GOOD, *[late] * LATE_ROUNDS], 0.5, ROUND_S)
    assert new == 2 and "the cut comes after 0.8 s" in reason


def test_rounds_that_come_to_nothing_again_and_again_double_it() -> None:
    assert next_stride(1, [FAILED] * (FAILED_ROUNDS - 1), 0.5, ROUND_S)[0] == 1
    assert next_stride(1, [*[FAILED] * (FAILED_ROUNDS - 1), GOOD], 0.5, ROUND_S)[0] == 1
    assert next_stride(1, [FAILED] * FAILED_ROUNDS, 0.5, ROUND_S)[0] == 2


@pytest.mark.parametrize("trials", [[NEVER] * 8, [FAILED] * 8])
def test_it_has_an_end(trials: list[Trial]) -> None:
    assert next_stride(MAX_STRIDE, trials, 1000.0, ROUND_S) == (MAX_STRIDE, "")


def test_good_rounds_halve_it_if_a_step_fits() -> None:
    good = [GOOD] * GOOD_ROUNDS
    assert next_stride(4, good, 0.5, ROUND_S)[0] == 2
    assert next_stride(1, good, 0.5, ROUND_S)[0] == 1
    assert next_stride(4, good[1:], 0.5, ROUND_S)[0] == 4
    assert next_stride(4, [*good[1:], TIGHT], 0.5, ROUND_S)[0] == 4
    assert next_stride(4, good, RELAXED * 2 * ROUND_S, ROUND_S)[0] == 4
    assert next_stride(4, good, RELAXED * 2 * ROUND_S - 0.01, ROUND_S)[0] == 2


def test_what_was_halved_is_not_doubled_by_the_same_rounds() -> None:
    """At half the length the cut comes after half the time; good offers are ready by half of that."""
    for step_s in (0.1, 1.0, 3.0):
        new, _ = next_stride(4, [GOOD] * GOOD_ROUNDS, step_s, ROUND_S)
        shorter = Trial(GOOD.offer_s, CUT_S / 2, True)
        assert next_stride(new, [shorter] * GOOD_ROUNDS, step_s, ROUND_S)[0] <= new
