"""Perplexity of a model on held-out tokens of each domain. Every unmarked token counts, whatever the model is made of.

How good the answers to a task are is `scores.py`'s.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.errors import DataError
from peer.corpus.data import Array, unmarked
from peer.fused.routed import RoutedModel

Progress = Callable[[str, int, int], None]  # (domain, tokens done, tokens of the domain)


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts the held-out tokens of each domain. Losses are in nats per token.

    `alone` has the losses of each sub-model by itself, domain by domain: they come with the forward passes that the
    routed score needs anyway. `forward_passes` is the cost of one token in passes through one sub-model.
    """

    losses: dict[str, float]
    tokens: dict[str, int]
    alone: dict[str, dict[str, float]]
    forward_passes: int
    seconds: float

    @property
    def perplexities(self) -> dict[str, float]:
        """The perplexity in each domain."""
        return {domain: math.exp(loss) for domain, loss in self.losses.items()}

    @property
    def mean(self) -> float:
        """The perplexity over all domains, which weigh the same: exp of the mean of their losses."""
        return mean_perplexity(self.losses.values())

    def as_dict(self) -> dict[str, object]:
        """Return what `shoal eval --json` prints."""
        return {
            "mean_perplexity": self.mean,
            "perplexity": self.perplexities,
            "loss": self.losses,
            "tokens": self.tokens,
            "mean_perplexity_alone": {name: mean_perplexity(own.values()) for name, own in self.alone.items()},
            "forward_passes_per_token": self.forward_passes,
            "seconds": round(self.seconds, 3),
        }


def evaluate(
    model: RoutedModel | Path,
    heldout: Mapping[str, np.ndarray],
    *,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the held-out tokens (T,) of each domain; documents end with the end-of-text token, which counts too.

    Marked tokens (data.py), the prompts of a task, are read and decide the route, but are not scored.
    `model` is a loaded model or a directory: routed, a fused Mixtral or Llama, one sub-model, any Hugging Face
    causal LM with the same tokenizer. At most the first `max_tokens` of a domain are read.
    Raises DataError: no such model, a domain without tokens, tokens of another tokenizer.
    """
    started = time.monotonic()
    routed = model if isinstance(model, RoutedModel) else RoutedModel.load(model)
    if not heldout:
        raise DataError("there is nothing to evaluate on: the corpus has no held-out tokens; prepare it again")
    losses: dict[str, float] = {}
    counted: dict[str, int] = {}
    alone: dict[str, dict[str, float]] = {info.name: {} for info in routed.sub_models}
    for domain, tokens in heldout.items():
        if len(tokens) == 0:
            raise DataError(f"domain '{domain}' has no held-out tokens; prepare it again")
        documents = split_documents(tokens[:max_tokens], routed.end_of_text)
        step = None if progress is None else _of_domain(progress, domain)
        log_likelihoods = routed.log_likelihoods([unmarked(document) for document in documents], step)
        counts = np.concatenate([document >= 0 for document in documents])
        counted[domain] = int(counts.sum())
        if not counted[domain]:
            raise DataError(f"the first {max_tokens} tokens of domain '{domain}' hold no target; allow more tokens")
        losses[domain] = _mean_loss((routed.mixture(each) for each in log_likelihoods), counts)
        for index, info in enumerate(routed.sub_models):
            alone[info.name][domain] = _mean_loss((each[index] for each in log_likelihoods), counts)
    return Evaluation(losses, counted, alone, len(routed.models), time.monotonic() - started)


def split_documents(tokens: np.ndarray, end_of_text: int) -> list[np.ndarray]:
    """Cut a stream of tokens after each end-of-text; the last document may lack one. Nothing is dropped."""
    ends = np.flatnonzero(tokens == end_of_text) + 1
    return [np.asarray(document) for document in np.split(tokens, ends) if len(document)]


def mean_perplexity(losses: Iterable[float]) -> float:
    """Return exp of the mean of the losses of the domains."""
    values = list(losses)
    return math.exp(sum(values) / len(values))


def _mean_loss(log_likelihoods: Iterable[Array], counts: np.ndarray) -> float:
    """Return the mean over the tokens of all documents that count."""
    return -float(np.concatenate(list(log_likelihoods))[counts].mean())


def _of_domain(progress: Progress, domain: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(domain, done, total)
