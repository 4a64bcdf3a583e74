"""Text from a model, piece by piece, with who spoke which part.

Every sub-model reads every token; the next one is drawn from their mixture, weighted by how well each foretold the
text so far. A token costs one forward pass of each sub-model.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from configs.errors import DataError
from peer.corpus.data import Array
from peer.corpus.examples import TaskEncoder
from peer.corpus.tokenizer import EMPTY_PROMPT, decode_part, encode_text
from peer.fused.batch import Batch, Seat
from peer.fused.routed import TASK, RoutedModel
from peer.fused.router import mix
from peer.fused.sampling import Chance, Sampling, chances, draw


@dataclass(frozen=True)
class Segment:
    """A part of a text that one sub-model spoke: for each of its tokens it had the greatest share."""

    text: str
    sub_model: str
    domain: str
    weight: float  # its mean share in these tokens, 0 to 1
    is_prompt: bool


@dataclass
class Generation:
    """A text in the making: iterate for the pieces of the answer, then ask who spoke which part.

    Of a prompt longer than the context, the last tokens are read; the earlier ones still count for the route, by
    naive Bayes. When the context is full, the last three quarters of it are read again.
    Raises DataError: the prompt is empty, or the model came without a tokenizer.
    """

    model: RoutedModel
    prompt: str | Sequence[int]  # a text, or its tokens
    sampling: Sampling = field(default_factory=Sampling)
    begins: bool = True  # the prompt is read after an end of text, as in training
    alternatives: int | None = None  # how many likeliest tokens are noted at each place; None: nothing is noted
    batch: Batch | None = None  # of the texts that are written beside it; None: it is by itself
    tokens: list[int] = field(init=False)  # of the prompt, then of the answer
    prompt_tokens: int = field(init=False)  # how many of them are the prompt's
    # What was thought of each token, if it is noted; None where it was not read with what stands before it.
    chances: list[Chance | None] = field(init=False, default_factory=list)
    _shares: list[Array] = field(init=False, default_factory=list)  # (K,) for each token: who spoke it

    def __post_init__(self) -> None:
        if self.model.tokenizer is None:
            raise DataError("the model directory has no tokenizer.json, so text cannot be read; fuse again")
        if isinstance(self.prompt, str):
            self.tokens = encode_text(self.model.tokenizer, self.prompt)
        else:
            self.tokens = list(self.prompt)
        self.prompt_tokens = len(self.tokens)
        if not self.tokens:
            raise DataError(EMPTY_PROMPT)
        if max(self.tokens) >= self.model.vocab_size:
            raise DataError("the tokenizer beside the model is not the model's own; fuse again")

    def __iter__(self) -> Generator[str]:
        """Yield the answer piece by piece, as whole characters, until the end-of-text token or `max_tokens`.

        A piece for each token, so that one who iterates can stop at any: an empty one where a character is incomplete.
        """
        with (self.batch or Batch(self.model)).seat() as seat:
            yield from self._pieces(seat)

    def _pieces(self, seat: Seat) -> Iterator[str]:
        model, router = self.model, self.model.router
        random = np.random.default_rng(self.sampling.seed)
        del self.tokens[self.prompt_tokens :], self._shares[:], self.chances[:]

        kept = self.tokens if len(self.tokens) < model.context_length else self.tokens[-seat.room :]
        early = len(self.tokens) - len(kept)
        _, weights = self._route(router.naive_bayes(self.tokens[:early]), None)
        logs, following = seat.read(kept, begins=self.begins or early > 0)
        told, weights = self._route(_chosen(logs, kept), weights)
        self._note_prompt(logs, told)
        written = ""
        for _ in range(self.sampling.max_tokens):
            mixed = mix(weights[:, None], following)
            token = draw(mixed, self.tokens[self.prompt_tokens :], self.sampling, random)
            if self.alternatives is not None:
                self.chances += chances(mixed[None], [token], self.alternatives)
            self._shares.append(_shares(weights[:, None], following[:, token, None])[:, 0])
            weights = router.step(weights, following[:, token])
            self.tokens.append(token)
            if token in model.ends:
                break
            text = self.text(self.prompt_tokens, len(self.tokens))
            if len(text) <= len(written) or text.endswith("\ufffd"):  # a character is still incomplete
                text = written
            yield text[len(written) :]
            written = text
            following = seat.follow(self.tokens)
        text = self.text(self.prompt_tokens, len(self.tokens))
        if len(text) > len(written):
            yield text[len(written) :]

    @property
    def has_ended(self) -> bool:
        """Whether the model has ended its answer; else it was cut at `max_tokens`, or is not finished yet."""
        return len(self.tokens) > self.prompt_tokens and self.tokens[-1] in self.model.ends

    @property
    def answer_tokens(self) -> int:
        """How many tokens the answer has so far, without the end-of-text."""
        return len(self.tokens) - self.prompt_tokens - self.has_ended

    def segments(self) -> list[Segment]:
        """Return the prompt and what has been written so far, cut where another sub-model speaks."""
        found: list[Segment] = []
        count = len(self._shares)
        speakers = [int(share.argmax()) for share in self._shares]
        start = 0
        for end in range(1, count + 1):
            if end < count and end != self.prompt_tokens and speakers[end] == speakers[start]:
                continue
            info = self.model.sub_models[speakers[start]]
            weight = float(np.mean([share[speakers[start]] for share in self._shares[start:end]]))
            text = self.text(start, end)
            found.append(Segment(text, info.name, info.domain, weight, start < self.prompt_tokens))
            start = end
        return found

    def _route(self, log_likelihoods: Array, start: Array | None) -> tuple[Array, Array]:
        """Move the router over a part of the prompt (K, T), and note who spoke each of its tokens."""
        weights, after = self.model.router.route(log_likelihoods, start)
        self._shares.extend(_shares(weights, log_likelihoods).T)
        return weights, after

    def _note_prompt(self, logs_KTV: Array, weights: Array) -> None:
        """Note what was thought of the prompt's tokens that were read, by the weights (K, T) before each."""
        if self.alternatives is None:
            return
        count = logs_KTV.shape[1]
        tokens = self.tokens[self.prompt_tokens - count : self.prompt_tokens]
        self.chances += [None] * (self.prompt_tokens - count)
        for at in range(count):  # one after the other: all at once would need the vocabulary for each
            mixed = mix(weights[:, -count + at, None], logs_KTV[:, at])
            self.chances += chances(mixed[None], [tokens[at]], self.alternatives)

    def text(self, start: int, end: int) -> str:
        """Return what these tokens add to the text of those before them."""
        assert self.model.tokenizer is not None
        return decode_part(self.model.tokenizer, self.tokens, start, end)


def task_prompt(model: RoutedModel, text: str) -> list[int]:
    """Return the tokens that `model` reads before it answers the input `text`.

    Raises DataError: it was not trained on a task, the input is empty, or it leaves no room for an answer.
    """
    if model.task is None or model.tokenizer is None:
        raise DataError(f"the model was not trained on a task (it has no {TASK} or tokenizer.json); leave out --task")
    return TaskEncoder(model.task, model.tokenizer, model.end_of_text).question(text, model.context_length)


def _chosen(logs_KTV: Array, tokens: Sequence[int]) -> Array:
    """Return the log likelihoods (K, T) of the tokens; 0 for a first one of which nothing was thought."""
    read = np.array(tokens[len(tokens) - logs_KTV.shape[1] :], dtype=np.int64)
    chosen = np.take_along_axis(logs_KTV, read[None, :, None], axis=2)[:, :, 0]
    return np.pad(chosen, ((0, 0), (len(tokens) - len(read), 0)))


def _shares(log_weights: Array, log_likelihoods: Array) -> Array:
    """Return how probable it is that each sub-model spoke each token, (K, T)."""
    return np.asarray(np.exp(log_weights + log_likelihoods - mix(log_weights, log_likelihoods)))
