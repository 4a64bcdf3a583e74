"""Splits passages into clusters that use unlike tokens: a mixture of unigrams, fitted by hard EM. Pure, no files.

A cluster is what the router knows of a domain (router.py): how often it uses each token. The E-step gives each passage
to the cluster under which it is likeliest, the M-step counts the tokens of each cluster anew (classification EM: Celeux
and Govaert, 1992). Sizes are kept within bounds by a price that a cluster takes for each token, as in the dual of the
assignment problem, so where a passage belongs depends on the passage alone.

Nothing passes between the steps but sums, token counts (K, V) and sizes (K,), and sums add up over parts of a text.
Log probabilities and prices are multiples of 1 / GRAIN: their sums are exact, the same in any order, on any machine.

Shapes: N passages, T tokens of all of them, K clusters, V tokens of the vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peer.corpus.data import Tokens, log_unigrams

GRAIN = 1 << 16
BOUNDS = (0.3, 1.8)  # fewest and most tokens of a cluster, as shares of the mean
EVEN_BOUNDS = (0.9, 1.1)  # these at first: clusters of one size do not swallow each other while they are still alike
EVEN_STEPS = 5
MAX_STEPS = 50  # steps of EM
MAX_MOVES = 200  # moves of the prices in one step; some dozens are enough
FIRST_MOVE = 0.02  # size of the first move, in nats a token
RESTARTS = 3

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Passages:
    """Passages of at least one token each, one after the other."""

    tokens: Integers  # (T,)
    starts: Integers  # (N,), where each begins

    @classmethod
    def of(cls, passages: Sequence[Tokens]) -> "Passages":
        """Lay passages out."""
        lengths = [len(passage) for passage in passages]
        starts = np.cumsum([0, *lengths[:-1]], dtype=np.int64)
        return cls(np.concatenate(passages).astype(np.int64), starts)

    @cached_property
    def lengths(self) -> Integers:
        """Tokens of each passage, (N,)."""
        return np.diff(self.starts, append=self.tokens.size)

    def scores(self, unigrams: Array) -> Array:
        """Return the log likelihood of each passage under each cluster, (N, K), from log probabilities (K, V)."""
        return np.stack([np.add.reduceat(row[self.tokens], self.starts) for row in unigrams], axis=1)

    def counts(self, clusters: Integers, shape: tuple[int, int]) -> Integers:
        """Return how often each cluster uses each token, (K, V): all that the next step needs of the passages."""
        places = np.repeat(clusters, self.lengths) * shape[1] + self.tokens
        return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)


@dataclass(frozen=True)
class Prices:
    """What each cluster takes for a token, in nats (K,), and how it moved there."""

    values: Array
    moves: Array  # the length of the next move
    signs: Array  # of the last move

    @classmethod
    def zero(cls, num_clusters: int) -> "Prices":
        """Begin without prices."""
        return cls(np.zeros(num_clusters), np.full(num_clusters, FIRST_MOVE), np.zeros(num_clusters))

    def moved(self, sizes: Integers, bounds: tuple[float, float]) -> "Prices | None":
        """Raise the prices of clusters that are too large and lower those of small ones; None if all are in bounds.

        `sizes` are tokens, (K,). A move that goes on in its direction grows, one that turns shrinks (Rprop).
        """
        shares = sizes * len(sizes) / sizes.sum()
        signs = (shares > bounds[1]).astype(np.float64) - (shares < bounds[0])
        if not signs.any():
            return None
        factors = np.choose((signs * self.signs + 1).astype(np.int64), [0.4, 1.0, 1.5])
        moves = self.moves * factors
        return Prices(_grained(self.values + signs * moves), moves, np.where(signs == 0, self.signs, signs))


@dataclass(frozen=True)
class Mixture:
    """K clusters, and what decides between them."""

    log_unigrams: Array  # (K, V)
    prices: Array  # (K,), nats a token

    def assign(self, passages: Passages) -> Integers:
        """Return the cluster of each passage, (N,)."""
        return choose(passages.scores(self.log_unigrams), passages.lengths, self.prices)


def log_unigrams_of(counts: Integers) -> Array:
    """Return the log probability of each token in each cluster, (K, V), from token counts (K, V): the M-step."""
    return _grained(log_unigrams(counts))


def choose(scores: Array, lengths: Integers, prices: Array) -> Integers:
    """Return the cluster of each passage, (N,), from scores (N, K) and prices (K,): the E-step."""
    return np.asarray(np.argmax(scores - lengths[:, None] * prices, axis=1))


def settle(scores: Array, lengths: Integers, bounds: tuple[float, float]) -> Array:
    """Return the prices (K,) that keep all clusters in bounds, as near as that is possible."""
    prices = Prices.zero(scores.shape[1])
    for _ in range(MAX_MOVES):
        sizes = np.bincount(choose(scores, lengths, prices.values), lengths, minlength=scores.shape[1])
        moved = prices.moved(sizes.astype(np.int64), bounds)
        if moved is None:
            break
        prices = moved
    return prices.values


def fit(passages: Passages, shape: tuple[int, int], seed: int) -> Mixture:
    """Return the mixture of that shape (K, V) under which the passages are likeliest, of several random starts."""
    climbs = [_climb(passages, shape, np.random.default_rng([seed, start])) for start in range(RESTARTS)]
    return max(climbs, key=lambda climb: climb[0])[1]


def _climb(passages: Passages, shape: tuple[int, int], random: np.random.Generator) -> tuple[float, Mixture]:
    """Go from a random assignment to one that stays as it is; return the log likelihood and the mixture."""
    clusters = random.integers(shape[0], size=len(passages.starts))
    for step in range(MAX_STEPS):
        unigrams = log_unigrams_of(passages.counts(clusters, shape))
        scores = passages.scores(unigrams)
        prices = settle(scores, passages.lengths, EVEN_BOUNDS if step < EVEN_STEPS else BOUNDS)
        before, clusters = clusters, choose(scores, passages.lengths, prices)
        if step > EVEN_STEPS and (before != clusters).mean() < 1e-3:
            break
    likelihood = np.take_along_axis(scores, clusters[:, None], axis=1).sum()
    return float(likelihood), Mixture(unigrams, prices)


def _grained(values: Array) -> Array:
    return np.asarray(np.round(values * GRAIN) / GRAIN)
