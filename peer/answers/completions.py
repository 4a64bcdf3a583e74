"""OpenAI's completions as data: what POST /v1/completions is asked, and how its answers look."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from peer.answers.asked import MAX_CHOICES, MAX_LIKELIEST, MAX_TOKENS, Asked, Choice, Token, Usage, parse, spelt

NEUTRAL: dict[str, Sequence[Any]] = {"suffix": ()}  # as in `parse`
WORDING = {"prompt": f"must be a text, its tokens, or a list of up to {MAX_CHOICES} of them"}

TokenIds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
Prompts = Annotated[list[str] | list[TokenIds], Field(min_length=1, max_length=MAX_CHOICES)]


class CompletionRequest(Asked):
    """What POST /v1/completions is asked."""

    prompt: str | TokenIds | Prompts
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 16
    best_of: Annotated[int | None, Field(ge=1, le=MAX_CHOICES)] = None  # so many are written, the likeliest n sent
    logprobs: Annotated[int | None, Field(ge=0, le=MAX_LIKELIEST)] = None
    echo: bool = False

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if len(self.prompts) * self.written > MAX_CHOICES:
            raise ValueError(f"at most {MAX_CHOICES} answers are written to one request")
        if self.written < self.n:
            raise ValueError("best_of must be at least n")
        if self.stream and self.written > self.n:
            raise ValueError("the best of several answers are known when all are written: leave out stream")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each a text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)

    @property
    def written(self) -> int:
        """How many answers are written to each prompt."""
        return self.n if self.best_of is None else self.best_of

    @property
    def alternatives(self) -> int | None:
        """How many of the likeliest tokens are told at each place; None: no logarithms are told."""
        return self.logprobs

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a request. Raises Refusal."""
        return parse(body, cls, NEUTRAL, WORDING)


@dataclass(frozen=True)
class Completion:
    """Answers, as a whole or event by event: all parts have the same id."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """Return the body of an answer."""
        return {**self._with([_choice(each) for each in choices]), "usage": usage.as_dict()}

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return what a stream says before the first piece of an answer."""
        return None

    def piece(self, choice: Choice) -> dict[str, Any]:
        """Return a part of a stream; the last of an answer has the reason why it ends."""
        return self._with([_choice(choice)])

    def usage(self, usage: Usage) -> dict[str, Any]:
        """Return the part of a stream that tells the numbers of tokens."""
        return {**self._with([]), "usage": usage.as_dict()}

    def _with(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        told = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return {**told, "choices": choices}


def _choice(choice: Choice) -> dict[str, Any]:
    told = None if choice.tokens is None else _logprobs(choice.tokens, choice.offset)
    return {"index": choice.index, "text": choice.text, "logprobs": told, "finish_reason": choice.finish_reason}


def _logprobs(tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += token.chars
    return {
        "tokens": [spelt(token.raw) for token in tokens],
        "token_logprobs": [token.log_probability for token in tokens],
        "top_logprobs": [None if token.log_probability is None else _named(token.likeliest) for token in tokens],
        "text_offset": offsets,
    }


def _named(likeliest: Sequence[tuple[bytes, float]]) -> dict[str, float]:
    return {spelt(raw): value for raw, value in likeliest}
