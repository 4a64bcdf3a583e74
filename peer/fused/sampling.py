"""How the next token of an answer is chosen: pure functions of what the model thinks, and of the answer so far."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from configs.run import Frozen
from peer.corpus.data import Array

Penalty = Annotated[float, Field(ge=-2, le=2)]


class Sampling(Frozen):
    """How tokens are drawn. The penalties and the bias are OpenAI's."""

    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 128
    temperature: Annotated[float, Field(ge=0, le=10)] = 0.8  # 0: always the likeliest token
    top_k: Annotated[int, Field(ge=0)] = 50  # 0: draw from all tokens
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0  # draw from the likeliest that have so much together
    seed: int = 0
    no_repeat_ngram: Annotated[int, Field(ge=0, le=64)] = 0  # tokens in a row that no answer has twice; 0: any may
    presence_penalty: Penalty = 0.0  # taken from the logarithm of each token that the answer has
    frequency_penalty: Penalty = 0.0  # the same, each time that it has it
    logit_bias: Mapping[int, float] = {}  # token → what is added to its logarithm


@dataclass(frozen=True)
class Chance:
    """What the model thought of a token before it was there: its logarithm, and those of the likeliest ones."""

    log_probability: float
    likeliest: tuple[tuple[int, float], ...]  # the likeliest first


def draw(log_probabilities: Array, answer: Sequence[int], sampling: Sampling, random: np.random.Generator) -> int:
    """Draw the token that follows the `answer` from what the model thinks of each token, (V,)."""
    scores = log_probabilities.copy()
    for token, bias in sampling.logit_bias.items():
        scores[token] += bias
    if sampling.presence_penalty or sampling.frequency_penalty:
        for token, count in Counter(answer).items():
            scores[token] -= sampling.presence_penalty + count * sampling.frequency_penalty
    if sampling.no_repeat_ngram:
        scores[repeating(answer, sampling.no_repeat_ngram)] = -np.inf
    if sampling.temperature == 0:
        return int(scores.argmax())
    scores /= sampling.temperature
    if 0 < sampling.top_k < len(scores):
        scores[scores < np.partition(scores, -sampling.top_k)[-sampling.top_k]] = -np.inf
    if sampling.top_p < 1:
        scores[_unlikely(scores, sampling.top_p)] = -np.inf
    # Gumbel's trick: the argmax of perturbed logarithms is a draw from their softmax.
    return int((scores + random.gumbel(size=len(scores))).argmax())


def repeating(tokens: Sequence[int], length: int) -> list[int]:
    """Return the tokens that would end a sequence of `length` tokens which stands in `tokens` already."""
    last = list(tokens[len(tokens) - length + 1 :])
    starts = range(len(tokens) - length + 1)
    return [tokens[at + length - 1] for at in starts if list(tokens[at : at + length - 1]) == last]


def chances(log_probabilities: Array, tokens: Sequence[int], count: int) -> list[Chance]:
    """Return what the model thought of each of T tokens, from the logarithms (T, V), with `count` of the likeliest."""
    found = []
    for row, token in zip(log_probabilities, tokens, strict=True):
        top = np.argpartition(-row, min(count, len(row) - 1))[:count]
        ordered = sorted(((int(at), float(row[at])) for at in top), key=lambda each: -each[1])
        found.append(Chance(float(row[token]), tuple(ordered)))
    return found


def _unlikely(scores: Array, share: float) -> Array:
    """Return the tokens outside the nucleus (1904.09751): the smallest set of the likeliest that has the `share`."""
    order = np.argsort(-scores, kind="stable")
    probabilities = np.exp(scores[order] - scores[order[0]])
    before = np.cumsum(probabilities) - probabilities
    return np.asarray(order[before > share * probabilities.sum()])
