"""OpenAI's chat completions as data, and the template by which a model reads turns.

A template is a program in the model's own directory, rendered in Transformers' sandbox. What stands in a message stays
text: one that spells a special token is refused.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from tokenizers import Tokenizer

from configs.files import read_json
from configs.run import Frozen
from peer.answers.asked import MAX_LIKELIEST, MAX_TOKENS, Asked, Choice, Refusal, Token, Usage, parse, spelt
from peer.fused.chat_files import WORDS_FILE, template_of

DEFAULT_TOKENS = 256  # of an answer, if the request does not say
MAX_MESSAGES = 1024
NEUTRAL: dict[str, Sequence[Any]] = {  # as in `parse`
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
}
WORDING = {"messages": "must be a list of turns, each with a role and a content that is text"}


class Part(Frozen):
    """A part of a turn's content: text, and nothing else is read."""

    type: Literal["text"]
    text: str


class Turn(Frozen):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None  # not used

    @property
    def text(self) -> str:
        """What was said."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(Asked):
    """What POST /v1/chat/completions is asked."""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: Annotated[int | None, Field(ge=1, le=MAX_TOKENS)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MAX_TOKENS)] = None
    logprobs: bool = False
    top_logprobs: Annotated[int | None, Field(ge=0, le=MAX_LIKELIEST)] = None
    metadata: dict[str, str] | None = None  # not used
    safety_identifier: str | None = None  # not used
    prompt_cache_key: str | None = None  # not used

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        return self

    @property
    def limit(self) -> int:
        """How many tokens an answer has at most."""
        return self.max_completion_tokens or self.max_tokens or DEFAULT_TOKENS

    @property
    def alternatives(self) -> int | None:
        """How many of the likeliest tokens are told at each place; None: no logarithms are told."""
        return self.top_logprobs or 0 if self.logprobs else None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Read a request. Raises Refusal."""
        return parse(body, cls, NEUTRAL, WORDING)


@dataclass(frozen=True)
class ChatTemplate:
    """How a model reads turns: its template, and the tokens that it may name."""

    source: str
    tokenizer: Tokenizer  # it knows the special tokens that the template writes
    names: Mapping[str, str]  # such as bos_token

    @classmethod
    def read(cls, folder: Path, tokenizer: Tokenizer) -> Self | None:
        """Return the template in a model's directory, or None if there is none. Raises DataError: a damaged one."""
        source, said = template_of(folder), read_json(folder / WORDS_FILE)
        if source is None or said is None:
            return None
        plain = Tokenizer.from_str(tokenizer.to_str())
        plain.encode_special_tokens = False
        named = {key: said.get(key) for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
        names = {key: value["content"] if isinstance(value, dict) else value for key, value in named.items()}
        return cls(source, plain, {key: value for key, value in names.items() if isinstance(value, str)})

    def tokens(self, turns: Sequence[Turn]) -> list[int]:
        """Return what the model reads before it answers. Raises Refusal: turns that the template does not take."""
        from transformers.utils.chat_template_utils import render_jinja_template

        for turn in turns:
            spelt = [each.content for each in self.tokenizer.get_added_tokens_decoder().values() if each.special]
            if found := next((token for token in spelt if token in turn.text), None):
                raise Refusal(400, f"a message spells the special token {found}; write it in another way", "messages")
        told = [{"role": turn.role, "content": turn.text} for turn in turns]
        try:
            (text,), _ = render_jinja_template(
                conversations=[told], chat_template=self.source, add_generation_prompt=True, **self.names
            )
        except Exception as error:  # whatever a template raises
            raise Refusal(400, f"the model's chat template refuses these messages: {error}", "messages") from None
        tokens: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return tokens


@dataclass(frozen=True)
class ChatCompletion:
    """Answers to a chat, as a whole or event by event: all parts have the same id."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        """Return the body of an answer."""
        told = [_choice(each, message={"role": "assistant", "content": each.text, "refusal": None}) for each in choices]
        return {**self._with("chat.completion", told), "usage": usage.as_dict()}

    def opening(self, index: int) -> dict[str, Any] | None:
        """Return what a stream says before the first piece of an answer."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._with("chat.completion.chunk", [_choice(Choice(index, ""), delta=delta)])

    def piece(self, choice: Choice) -> dict[str, Any]:
        """Return a part of a stream; the last of an answer has the reason why it ends."""
        delta = {"content": choice.text} if choice.text else {}
        return self._with("chat.completion.chunk", [_choice(choice, delta=delta)])

    def usage(self, usage: Usage) -> dict[str, Any]:
        """Return the part of a stream that tells the numbers of tokens."""
        return {**self._with("chat.completion.chunk", []), "usage": usage.as_dict()}

    def _with(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def _choice(choice: Choice, **said: Any) -> dict[str, Any]:
    told = None if choice.tokens is None else {"content": [_token(each) for each in choice.tokens], "refusal": None}
    return {"index": choice.index, **said, "logprobs": told, "finish_reason": choice.finish_reason}


def _token(token: Token) -> dict[str, Any]:
    likeliest = [_named(raw, value) for raw, value in token.likeliest]
    return {**_named(token.raw, token.log_probability), "top_logprobs": likeliest}


def _named(raw: bytes, log_probability: float | None) -> dict[str, Any]:
    return {"token": spelt(raw), "logprob": log_probability, "bytes": list(raw)}
