"""The Bayes filter: causal, a proper mixture, and quick to change its mind."""

import numpy as np
import pytest

from peer.fused.router import Router, mix

COUNTS = np.array([[90, 10, 0], [10, 90, 0]], dtype=np.uint64)


def random_likelihoods(tokens: int, seed: int = 0) -> np.ndarray:
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(4), size=(2, tokens))[..., 0])


def test_every_sub_model_is_equally_likely_before_the_first_token() -> None:
    router = Router(np.array([[300, 0], [50, 50]], dtype=np.uint64))
    assert np.exp(router.log_prior) == pytest.approx([0.5, 0.5])


def test_first_token_is_routed_by_the_prior_alone() -> None:
    router = Router(COUNTS)
    weights, _ = router.route(random_likelihoods(5))
    assert weights[:, 0] == pytest.approx(router.log_prior)


def test_a_later_token_does_not_change_an_earlier_weight() -> None:
    likelihoods = random_likelihoods(20)
    changed = likelihoods.copy()
    changed[:, 12] = np.log([1e-6, 0.9])
    before, _ = Router(COUNTS).route(likelihoods)
    after, _ = Router(COUNTS).route(changed)
    assert np.array_equal(before[:, :13], after[:, :13])
    assert not np.allclose(before[:, 13], after[:, 13])


def test_a_document_may_be_routed_in_parts() -> None:
    router, likelihoods = Router(COUNTS), random_likelihoods(30)
    whole, end = router.route(likelihoods)
    first, middle = router.route(likelihoods[:, :11])
    second, after = router.route(likelihoods[:, 11:], middle)
    assert np.array_equal(whole, np.concatenate([first, second], axis=1))
    assert np.array_equal(end, after)


def test_with_full_evidence_and_without_switching_it_is_the_bayes_mixture_over_whole_texts() -> None:
    router, likelihoods = Router(COUNTS, switch=1e-300, evidence=1.0), random_likelihoods(40)
    weights, _ = router.route(likelihoods)
    evidence = np.logaddexp.reduce(router.log_prior + likelihoods.sum(axis=1))
    assert mix(weights, likelihoods).sum() == pytest.approx(evidence)


def test_the_mixture_costs_little_more_than_the_best_sub_model() -> None:
    likelihoods = np.stack([np.full(1000, np.log(0.5)), np.full(1000, np.log(0.1))])
    weights, _ = Router(COUNTS).route(likelihoods)
    assert -mix(weights, likelihoods).mean() < np.log(2) + 0.04


def test_where_two_are_right_by_turns_the_vote_beats_both() -> None:
    right = np.tile(np.repeat([True, False], 4), 100)
    likelihoods = np.log(np.where(np.stack([right, ~right]), 0.5, 0.05))
    router = Router(COUNTS)
    weights, _ = router.route(likelihoods)
    voted = mix(weights, likelihoods).mean()
    sharp, _ = Router(COUNTS, switch=1e-300, evidence=1.0).route(likelihoods)
    assert voted > likelihoods.mean(axis=1).max() + 0.2
    assert voted > mix(sharp, likelihoods).mean()


def test_the_route_changes_when_the_text_does() -> None:
    tokens = [0] * 200 + [1] * 30
    router = Router(COUNTS)
    weights, _ = router.route(router.naive_bayes(tokens))
    assert np.exp(weights[0, 199]) > 0.9
    assert np.exp(weights[1, -1]) > 0.9


def test_an_unseen_token_decides_nothing_alone() -> None:
    router = Router(COUNTS)
    assert np.isfinite(router.naive_bayes([2])).all()
    assert router.naive_bayes([]).shape == (2, 0)
