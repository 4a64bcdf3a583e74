"""OpenAI's completions as data: requests that are checked, answers, errors. Nothing is served or generated here.

What a request may say is what can be done. An option that asks for something else is refused by its name, never
passed over; one that only repeats the API's default is taken.
"""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from configs.errors import ShoalError
from configs.run import Frozen

MAX_TOKENS = 4096  # of an answer
MAX_STOPS, MAX_STOP_CHARS = 4, 256

# Options of the API that cannot be done here → the value at which they ask for nothing.
NEUTRAL: dict[str, Any] = {
    "n": 1,
    "best_of": 1,
    "top_p": 1,
    "echo": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": None,
    "suffix": None,
}

FinishReason = Literal["stop", "length"]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class Refusal(ShoalError):
    """A request that is not answered: the HTTP status, and which parameter is to blame."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class StreamOptions(Frozen):
    """What else a stream tells."""

    include_usage: bool = False  # the last event has the numbers of tokens


class CompletionRequest(Frozen):
    """What POST /v1/completions is asked; `top_k` and `no_repeat_ngram` are Shoal's own."""

    model_config = ConfigDict(strict=True)

    model: str | None = None
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] = 16
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0  # draw from so many tokens; 0: from all
    no_repeat_ngram: Annotated[int, Field(ge=0, le=64)] = 0  # tokens in a row that no answer has twice; 0: any may
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None  # None: another answer each time
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = None  # not used

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def stops(self) -> Sequence[str]:
        """Texts before which the answer ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or ()


def parse(body: bytes) -> CompletionRequest:
    """Read a request. Raises Refusal: one line that names the option."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise Refusal(400, "the body is not a JSON object")
    for name, neutral in NEUTRAL.items():
        value = fields.pop(name, None)
        if value is not None and value != neutral:
            only = f" but with {json.dumps(neutral)}" if isinstance(neutral, int) else ""
            raise Refusal(400, f"'{name}' is not supported{only}; leave it out", name)
    given = {name: value for name, value in fields.items() if value is not None}  # null is «not given»
    try:
        return CompletionRequest.model_validate(given)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> Refusal:
    problem = error.errors(include_url=False, include_input=False)[0]
    if not problem["loc"]:  # a name that is no text
        return Refusal(400, f"the body has an option that is none: {problem['msg']}")
    name = str(problem["loc"][0])[:64]
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        known = ", ".join(CompletionRequest.model_fields)
        return Refusal(400, f"there is no option '{name}'; there are {known}", name)
    if problem["type"] == "missing":
        return Refusal(400, "there is no prompt; give the text to go on from", name)
    if name == "prompt":
        return Refusal(400, "'prompt' must be a text, or a list with one text", name)
    if name == "stop":
        return Refusal(400, f"'stop' must be a text or up to {MAX_STOPS}, of 1 to {MAX_STOP_CHARS} characters", name)
    return Refusal(400, f"'{name}': {problem['msg']}", name)


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens."""

    prompt: int
    completion: int

    def as_dict(self) -> dict[str, int]:
        """Return it as the API says it."""
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


@dataclass(frozen=True)
class Completion:
    """One answer, as a whole or event by event: all of its parts have the same id."""

    model: str
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, finish_reason: FinishReason, usage: Usage) -> dict[str, Any]:
        """Return the body of an answer."""
        return {**self.piece(text, finish_reason), "usage": usage.as_dict()}

    def piece(self, text: str, finish_reason: FinishReason | None = None) -> dict[str, Any]:
        """Return a part of a stream; the last has the reason why the answer ends."""
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
        return self._with([choice])

    def usage(self, usage: Usage) -> dict[str, Any]:
        """Return the part of a stream that tells the numbers of tokens."""
        return {**self._with([]), "usage": usage.as_dict()}

    def _with(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        told = {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}
        return {**told, "choices": choices}


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return an error as the API says it."""
    kind = {404: "not_found_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


class Stops:
    """Finds where an answer ends: before the first of some texts, however it is cut into pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.is_found = False
        self.rest = ""  # what may be the beginning of a stop, or the end of the answer
        self._stops = stops

    def feed(self, piece: str) -> str:
        """Return what is surely a part of the answer, now that `piece` has come."""
        text = self.rest + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.is_found, self.rest = True, ""
            return text[: min(found)]
        heads = (length for stop in self._stops for length in range(1, len(stop)) if text.endswith(stop[:length]))
        sure = len(text) - max(heads, default=0)
        self.rest = text[sure:]
        return text[:sure]
