"""Splits passages into clusters that use unlike tokens: a mixture of unigrams, fitted by hard EM. Pure, no files.

A cluster is what the router knows of a domain (router.py): how often it uses each token. The E-step gives each passage
to the cluster under which it is likeliest, the M-step counts the tokens of each cluster anew (classification EM: Celeux
and Govaert, 1992). Sizes are kept within bounds by a price that a cluster takes for each token, as in the dual of the
assignment problem, so where a passage belongs depends on the passage alone.

Nothing passes between the steps but sums: token counts (K, V), sizes (K,), how many passages moved. Sums add up over
parts of a text, so several places fit one mixture together, each to its own part (`fit` with `add`), and it is bit for
bit that of one place with all the text: log probabilities and prices are multiples of 1 / GRAIN, whose sums are exact
in any order; a passage begins in a cluster by its own hash. When few passages move, a climb ends: the difference
between two sums of it never tells of fewer.

Shapes: N passages, T tokens of all of them, K clusters, V tokens of the vocabulary.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from configs.errors import PeerError
from peer.corpus.data import Tokens, log_unigrams

GRAIN = 1 << 16
BOUNDS = (0.3, 1.8)  # fewest and most tokens of a cluster, as shares of the mean
EVEN_BOUNDS = (0.9, 1.1)  # these at first: clusters of one size do not swallow each other while they are still alike
EVEN_STEPS = 5
MAX_STEPS = 50  # steps of EM
MAX_MOVES = 200  # moves of the prices in one step; some dozens are enough
FIRST_MOVE = 0.02  # size of the first move, in nats a token
RESTARTS = 3
FEW = 1e-3  # share of the passages that may move in a last step
FEW_PASSAGES = 16  # or so many, but of a short text no more than a
SHORT_PART = 32  # th part

Array = NDArray[np.float64]
Integers = NDArray[np.int64]
Add = Callable[[Integers], Integers]  # takes this place's sums and returns those of all places; from 0 to below 2^32
T = TypeVar("T")
Work = Generator[Integers, Integers, T]  # yields this place's sums and is sent those of all


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

    def drawn(self, num_clusters: int, seed: int) -> Integers:
        """Draw a cluster for each passage, (N,), by its own tokens and the seed, wherever else it may be."""
        places = np.arange(self.tokens.size) - np.repeat(self.starts, self.lengths)
        mixed = _mixed(self.tokens.astype(np.uint64) + _mixed(places.astype(np.uint64)))
        hashes = np.add.reduceat(mixed, self.starts)  # modulo 2^64
        salt = _mixed(np.full(1, seed, dtype=np.uint64))
        return ((_mixed(hashes + salt) >> np.uint64(32)) % np.uint64(num_clusters)).astype(np.int64)

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

    def without(self, is_out: NDArray[np.bool_]) -> "Mixture":
        """Return the same with some clusters, (K,), out of everybody's reach."""
        return Mixture(self.log_unigrams, np.where(is_out, np.inf, self.prices))


def log_unigrams_of(counts: Integers) -> Array:
    """Return the log probability of each token in each cluster, (K, V), from token counts (K, V): the M-step."""
    return _grained(log_unigrams(counts))


def choose(scores: Array, lengths: Integers, prices: Array) -> Integers:
    """Return the cluster of each passage, (N,), from scores (N, K) and prices (K,): the E-step."""
    return np.asarray(np.argmax(scores - lengths[:, None] * prices, axis=1))


def settle(scores: Array, lengths: Integers, before: Integers, bounds: tuple[float, float]) -> Work["Settled"]:
    """Find the prices that keep all clusters in bounds, as near as that is possible; `before` is where passages were.

    Each move of the prices takes the sums of all places: sizes (K,), passages that moved, passages.
    """
    prices = Prices.zero(scores.shape[1])
    for move in range(MAX_MOVES):
        clusters = choose(scores, lengths, prices.values)
        sizes = np.bincount(clusters, lengths, minlength=scores.shape[1]).astype(np.int64)
        summed = yield np.array([*sizes, (clusters != before).sum(), len(clusters)])
        moved = prices.moved(_checked(summed[:-2]), bounds)
        if moved is None or move == MAX_MOVES - 1:
            break
        prices = moved
    return Settled(prices.values, clusters, summed[:-2], *map(int, summed[-2:]))


@dataclass(frozen=True)
class Settled:
    """Where prices came to rest."""

    prices: Array  # (K,)
    clusters: Integers  # of this place's passages, (N,)
    sizes: Integers  # tokens of each cluster at all places, (K,)
    moved: int  # passages of all places that are in another cluster than before
    passages: int  # of all places

    @property
    def is_calm(self) -> bool:
        """Whether so few passages moved that another step is not worth it, and would tell of single ones."""
        return self.moved < max(FEW * self.passages, min(FEW_PASSAGES, self.passages / SHORT_PART))


def alone(sums: Integers) -> Integers:
    """Return the sums over all places where there is one."""
    return sums


def fit(passages: Passages, shape: tuple[int, int], seed: int, add: Add = alone) -> Mixture:
    """Return the mixture of that shape (K, V) under which the passages are likeliest, of several random starts.

    The clusters are numbered by their sizes, the largest first. With `add` the passages are this place's part of a
    text, at least one: every place that calls this alike gets the same mixture. Raises PeerError: sums that cannot be.
    """
    climbs = [_climb(passages, shape, seed * RESTARTS + start) for start in range(RESTARTS)]
    _, mixture = min(in_step(climbs, add), key=lambda climb: climb[0])
    return mixture


def in_step(works: Sequence[Work[T]], add: Add) -> list[T]:
    """Do all works side by side, with one call of `add` for all that wait for sums, and return their results."""
    results: dict[int, T] = {}
    asked = {index: next(work) for index, work in enumerate(works)}
    while asked:
        ends = np.cumsum([len(sums) for sums in asked.values()])
        summed = np.split(add(np.concatenate(list(asked.values()))), ends[:-1])
        for index, sums in zip(list(asked), summed, strict=True):
            try:
                asked[index] = works[index].send(sums)
            except StopIteration as end:
                results[index] = end.value
                del asked[index]
    return [results[index] for index in range(len(works))]


def halves_of(value: int) -> list[int]:
    """Return a number from 0 to below 2^52 as two that can be added up, high and low."""
    return [value >> 20, value & 0xFFFFF]


def whole_of(halves: Sequence[int] | Integers) -> int:
    """Return the number of two halves, also of summed ones."""
    return (int(halves[0]) << 20) + int(halves[1])


def _climb(passages: Passages, shape: tuple[int, int], seed: int) -> Work[tuple[int, Mixture]]:
    """Go from a random assignment to one that stays as it is; return minus the log likelihood and the mixture."""
    clusters, total = passages.drawn(shape[0], seed), None
    for step in range(MAX_STEPS):
        counts = _checked((yield passages.counts(clusters, shape).ravel()), total)
        total = int(counts.sum())
        unigrams = log_unigrams_of(counts.reshape(shape))
        scores = passages.scores(unigrams)
        for bounds in (EVEN_BOUNDS, BOUNDS) if step < EVEN_STEPS else (BOUNDS,):
            found = yield from settle(scores, passages.lengths, clusters, bounds)
            if not found.is_calm:
                break
        clusters = found.clusters
        if found.is_calm:
            break
    likelihood = np.take_along_axis(scores, clusters[:, None], axis=1).sum()
    cost = yield np.array(halves_of(round(-float(likelihood) * GRAIN)))
    order = np.argsort(-found.sizes, stable=True)
    return whole_of(cost), Mixture(unigrams[order], found.prices[order])


def _checked(sums: Integers, total: int | None = None) -> Integers:
    """Return sums of tokens that are possible. Raises PeerError."""
    if sums.min() < 0 or sums.sum() <= 0 or (total is not None and sums.sum() != total):
        raise PeerError(
            "the sums of the participants cannot be of one text: another number of tokens than before; "
            "one of them is damaged or lies; begin again without it"
        )
    return sums


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return hashes of numbers (the finalizer of splitmix64: Steele, Lea and Flood, 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


def _grained(values: Array) -> Array:
    return np.asarray(np.round(values * GRAIN) / GRAIN)
