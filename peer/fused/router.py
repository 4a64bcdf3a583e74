"""Which sub-model answers: a Bayes filter over sub-models that sees earlier tokens only. Pure, no models here.

Shapes: K sub-models, T tokens of one document in order, V tokens of the vocabulary. Logarithms are natural.

Evidence is what each sub-model thought of the tokens so far: its own likelihood or, where it has not read them,
naive Bayes, that is, the likelihood under the unigram counts of its domain.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from peer.corpus.data import Array, log_unigrams


@dataclass(frozen=True)
class Router:
    """Unigram likelihoods of K sub-models, and how evidence moves the weight from one to another.

    A Bayes filter that is made slow to be certain, so that several sub-models vote where a text is not one domain's
    alone. `evidence` is the power to which each token's likelihoods count (a tempered posterior). `switch` is the
    probability that the next token belongs to a freshly drawn domain (the fixed share of Herbster and Warmuth, 1998),
    so that the route is decided anew as the text goes on. Before the first token all are equally likely: how much
    text a domain has tells nothing of the text that will be asked about.
    """

    counts: npt.NDArray[np.uint64]  # (K, V)
    switch: float = 0.03
    evidence: float = 0.3

    @cached_property
    def log_prior(self) -> Array:
        """Log weight of each sub-model before anything was read, (K,)."""
        return np.full(len(self.counts), -np.log(len(self.counts)))

    @cached_property
    def log_unigrams(self) -> Array:
        """Log probability of each token in each domain, (K, V)."""
        return log_unigrams(self.counts)

    def naive_bayes(self, tokens: npt.ArrayLike) -> Array:
        """Return the log likelihood (K, T) of each token under each domain's unigrams."""
        return np.asarray(self.log_unigrams[:, np.asarray(tokens, dtype=np.int64)])

    def step(self, log_weights: Array, log_likelihoods: Array) -> Array:
        """Return the log weights (K,) for the next token, after one with these log likelihoods (K,) was seen."""
        posterior = log_weights + self.evidence * log_likelihoods
        posterior -= np.logaddexp.reduce(posterior)
        return np.asarray(np.logaddexp(np.log1p(-self.switch) + posterior, np.log(self.switch) + self.log_prior))

    def route(self, log_likelihoods: Array, start: Array | None = None) -> tuple[Array, Array]:
        """Filter a document.

        Args:
            log_likelihoods: (K, T), what each sub-model thought of each token.
            start: log weights (K,) for the first token; None is a document's beginning, the prior.

        Returns: the log weights (K, T) for each token, from earlier tokens only, and those for the token after.
        """
        weights = np.empty_like(log_likelihoods, dtype=np.float64)
        current = self.log_prior if start is None else start
        for at in range(log_likelihoods.shape[1]):
            weights[:, at] = current
            current = self.step(current, log_likelihoods[:, at])
        return weights, current


def mix(log_weights: Array, log_likelihoods: Array) -> Array:
    """Return the log likelihood (T,) of each token under the mixture, from log weights and likelihoods (K, T)."""
    weighted = log_weights + log_likelihoods
    # One alone is what it is: of a large vocabulary the sum would cost as much as a small model's step.
    return np.asarray(weighted[0] if len(weighted) == 1 else np.logaddexp.reduce(weighted, axis=0))
