"""Several places fit one mixture, each to its own passages, by sums alone: the same as one place with all of them."""

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from benchmarks.patience import HANG_S
from configs.errors import PeerError
from peer.corpus.mixture import (
    FEW_PASSAGES,
    Add,
    Integers,
    Mixture,
    Passages,
    _climb,
    alone,
    fit,
    halves_of,
    in_step,
    whole_of,
)

VOCABULARY = 60


def kinds_of_passages(count: int, seed: int = 0, num_kinds: int = 4) -> list[np.ndarray]:
    """Draw passages of unlike kinds, lengths and clearness."""
    random = np.random.default_rng(seed)
    kinds = random.dirichlet(np.full(VOCABULARY, 0.5), size=num_kinds)
    return [
        random.choice(VOCABULARY, random.integers(5, 60), p=kinds[random.integers(num_kinds)]) for _ in range(count)
    ]


class Table:
    """Adds up in memory what so many threads bring."""

    def __init__(self, places: int) -> None:
        self._brought: list[Integers | None] = [None] * places
        self._barrier = Barrier(places, timeout=HANG_S)
        self.calls = 0

    def add_of(self, place: int) -> Add:
        def add(sums: Integers) -> Integers:
            assert sums.min() >= 0 and sums.max() < 2**32
            self._brought[place] = sums.copy()
            self._barrier.wait()
            summed = sum(each for each in self._brought if each is not None)
            self._barrier.wait()
            self.calls += place == 0
            return np.asarray(summed)

        return add


def fit_together(parts: Sequence[Sequence[np.ndarray]], shape: tuple[int, int], seed: int) -> list[Mixture]:
    table = Table(len(parts))
    with ThreadPoolExecutor(len(parts)) as threads:
        fits = [
            threads.submit(fit, Passages.of(part), shape, seed, table.add_of(place)) for place, part in enumerate(parts)
        ]
        return [each.result() for each in fits]


@pytest.mark.parametrize("seed", [0, 7])
def test_three_places_find_exactly_what_one_place_finds(seed: int) -> None:
    texts = kinds_of_passages(900, seed)
    parts = [texts[:60], texts[60:500], texts[500:]]  # of unlike sizes
    shape = (4, VOCABULARY)
    one = fit(Passages.of(texts), shape, seed)
    for mixture in fit_together(parts, shape, seed):
        assert np.array_equal(mixture.log_unigrams, one.log_unigrams) and np.array_equal(mixture.prices, one.prices)
    together = np.concatenate([one.assign(Passages.of(part)) for part in parts])
    assert np.array_equal(together, one.assign(Passages.of(texts)))
    sizes = np.bincount(one.assign(Passages.of(texts)), [len(text) for text in texts], minlength=4)
    assert (np.diff(sizes) <= 0).all()  # numbered by size


def test_the_order_of_passages_changes_nothing() -> None:
    texts = kinds_of_passages(300)
    shape = (4, VOCABULARY)
    there, back = fit(Passages.of(texts), shape, 3), fit(Passages.of(texts[::-1]), shape, 3)
    assert np.array_equal(there.log_unigrams, back.log_unigrams) and np.array_equal(there.prices, back.prices)


def test_a_start_is_drawn_evenly_and_by_the_passage_alone() -> None:
    texts = kinds_of_passages(4000)
    drawn = Passages.of(texts).drawn(5, seed=1)
    assert np.bincount(drawn, minlength=5).min() > 700
    assert np.array_equal(Passages.of(texts[100:200]).drawn(5, seed=1), drawn[100:200])
    assert 0.1 < (Passages.of(texts).drawn(5, seed=2) == drawn).mean() < 0.3  # of another seed: as by chance
    turned = Passages.of([text[::-1] for text in texts]).drawn(5, seed=1)
    assert 0.1 < (turned == drawn).mean() < 0.3  # the order of the tokens matters


def test_counts_that_follow_each_other_differ_by_no_fewer_than_a_few_passages() -> None:
    """What is shown of the text between two steps of a climb is never of fewer than FEW_PASSAGES."""
    passages, shape = Passages.of(kinds_of_passages(1200)), (4, VOCABULARY)
    shown: list[Integers] = []
    in_step([_climb(passages, shape, 0)], lambda sums: shown.append(sums) or sums)  # type: ignore[func-returns-value]
    places = [place for place, sums in enumerate(shown) if len(sums) == shape[0] * VOCABULARY]
    assert len(places) > 3
    for before, after in itertools.pairwise(places):
        assert shown[after - 1][-2] >= FEW_PASSAGES  # so many moved in between
        assert np.abs(shown[after] - shown[before]).sum() > 2 * FEW_PASSAGES
    assert shown[-2][-2] < FEW_PASSAGES  # and the step after which fewer had moved is not shown


@pytest.mark.parametrize("lie", [lambda sums: sums + 1, lambda sums: sums * 0, lambda sums: sums - sums.max() - 1])
def test_sums_that_cannot_be_are_refused(lie: Add) -> None:
    calls = 0

    def add(sums: Integers) -> Integers:
        nonlocal calls
        calls += 1
        return lie(sums) if calls > 4 else sums

    with pytest.raises(PeerError, match="cannot be of one text"):
        fit(Passages.of(kinds_of_passages(200)), (4, VOCABULARY), 0, add)


def test_a_number_is_the_sum_of_its_halves() -> None:
    values = [0, 1, 2**20 - 1, 2**20, 987_654_321_012]
    assert [whole_of(halves_of(value)) for value in values] == values
    assert whole_of(np.sum([halves_of(value) for value in values], axis=0)) == sum(values)
    assert np.array_equal(alone(np.arange(3)), np.arange(3))
