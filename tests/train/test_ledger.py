"""The account of tokens says what θ contains, whatever happens between a snapshot and its anchor."""

import random

import pytest

from peer.train.ledger import TokenLedger


def test_what_is_learnt_after_the_snapshot_stays_on_top_of_the_anchor() -> None:
    ledger = TokenLedger()
    ledger.trained(10)
    ledger.snapshot()
    ledger.trained(5)
    assert (ledger.tokens, ledger.in_anchor, ledger.since_anchor) == (15, 0, 15)
    ledger.rebased()
    assert (ledger.tokens, ledger.in_anchor, ledger.since_anchor) == (15, 10, 5)


def test_a_reset_drops_what_the_anchor_has_not() -> None:
    ledger = TokenLedger(anchor=20)
    ledger.trained(10)
    ledger.reset()
    assert (ledger.tokens, ledger.since_anchor) == (20, 0)


def test_work_of_a_snapshot_that_was_dropped_comes_back_with_its_anchor() -> None:
    ledger = TokenLedger(anchor=20)
    ledger.trained(10)
    ledger.snapshot()
    ledger.trained(5)
    ledger.reset()
    ledger.trained(3)
    ledger.rebased()
    assert (ledger.tokens, ledger.in_anchor) == (33, 30)
    ledger.rebased()  # a second block's anchor, of the same snapshot
    assert (ledger.tokens, ledger.in_anchor) == (33, 30)


@pytest.mark.parametrize("seed", range(20))
def test_the_account_is_the_sum_of_the_work_in_theta(seed: int) -> None:
    """Against sets of steps: θ, the anchor and the snapshot each as the steps whose work is in them."""
    chance, step = random.Random(seed), 0
    ledger = TokenLedger()
    theta, anchor, snapshot = set[int](), set[int](), set[int]()
    for _ in range(200):
        match chance.choice(["step", "step", "snapshot", "rebase", "reset"]):
            case "step":
                ledger.trained(64)
                theta.add(step)
                step += 1
            case "snapshot":
                ledger.snapshot()
                snapshot = set(theta)
            case "rebase":
                ledger.rebased()
                theta, anchor = theta | snapshot, set(snapshot)
            case "reset":
                ledger.reset()
                theta = set(anchor)
        assert ledger.tokens == 64 * len(theta)
        assert ledger.in_anchor == 64 * len(anchor)
        assert ledger.since_anchor == 64 * len(theta - anchor)
