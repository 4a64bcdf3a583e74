"""What both of OpenAI's interfaces ask alike, as data that is checked. Nothing is served or generated here.

What a request may say is what can be done. An option that asks for something else is refused by its name, never
passed over; one that only repeats the API's default is taken.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from configs.errors import ShoalError
from configs.run import Frozen
from peer.fused.sampling import Penalty, Sampling

MAX_TOKENS = 4096  # of an answer
MAX_STOPS, MAX_STOP_CHARS = 16, 256
MAX_CHOICES = 64  # answers to one request
MAX_LIKELIEST = 20  # tokens that are told at each place
MAX_BIASES = 300

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
    include_obfuscation: bool = False  # not used: nothing is hidden here


class Asked(Frozen):
    """How an answer is drawn and sent; `top_k` and `no_repeat_ngram` are Shoal's own."""

    model_config = ConfigDict(strict=True)

    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0  # draw from so many tokens; 0: from all
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    logit_bias: Annotated[
        dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]],
        Field(max_length=MAX_BIASES, default_factory=dict),
    ]
    no_repeat_ngram: Annotated[int, Field(ge=0, le=64)] = 0  # tokens in a row that no answer has twice; 0: any may
    seed: Annotated[int | None, Field(ge=0, lt=2**63)] = None  # None: another answer each time
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str | None = None  # not used

    @property
    def stops(self) -> Sequence[str]:
        """Texts before which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or ()

    def sampling(self, max_tokens: int, seed: int, vocab_size: int) -> Sampling:
        """Return how an answer is drawn. Raises Refusal: a bias for a token that there is not."""
        bias = {int(token): value for token, value in self.logit_bias.items()}
        if strange := [token for token in bias if token >= vocab_size]:
            raise Refusal(400, f"'logit_bias': there is no token {strange[0]}; there are {vocab_size}", "logit_bias")
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=seed % 2**63,
            no_repeat_ngram=self.no_repeat_ngram,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=bias,
        )


@dataclass(frozen=True)
class Token:
    """A token of an answer, as it is told with its logarithm; None where nothing was thought of it."""

    raw: bytes
    log_probability: float | None
    likeliest: tuple[tuple[bytes, float], ...]

    @property
    def chars(self) -> int:
        """How many characters it adds to the text; those in parts are not counted."""
        return len(self.raw.decode(errors="ignore"))


def spelt(raw: bytes) -> str:
    """Return a token's bytes as the API spells them: a part of a character by its numbers."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


@dataclass(frozen=True)
class Choice:
    """One answer to a request, or a piece of it."""

    index: int
    text: str
    finish_reason: FinishReason | None = None
    tokens: tuple[Token, ...] | None = None  # None: logarithms were not asked for
    offset: int = 0  # of the first of the tokens, in characters of the whole text


@dataclass(frozen=True)
class Usage:
    """Numbers of tokens."""

    prompt: int
    completion: int

    def as_dict(self) -> dict[str, int]:
        """Return it as the API says it."""
        total = self.prompt + self.completion
        return {"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": total}


A = TypeVar("A", bound=Asked)


def parse(body: bytes, kind: type[A], neutral: Mapping[str, Sequence[Any]], wording: Mapping[str, str]) -> A:
    """Read a request of a kind. Raises Refusal: one line that names the option.

    `neutral` are options of the API that cannot be done here, with the values at which they ask for nothing; `wording`
    says what an option must be where pydantic's words would not help.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise Refusal(400, "the body is not a JSON object")
    for name, values in neutral.items():
        value = fields.pop(name, None)
        if value is not None and value not in values:
            only = f" but with {json.dumps(values[0])}" if values and isinstance(values[0], int | str) else ""
            raise Refusal(400, f"'{name}' is not supported{only}; leave it out", name)
    given = {name: value for name, value in fields.items() if value is not None}  # null is «not given»
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise _refusal(error, kind, wording) from None


def _refusal(error: ValidationError, kind: type[Asked], wording: Mapping[str, str]) -> Refusal:
    problem = error.errors(include_url=False, include_input=False)[0]
    if not problem["loc"]:  # a name that is no text
        return Refusal(400, f"the body has an option that is none: {problem['msg']}")
    name = str(problem["loc"][0])[:64]
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        return Refusal(400, f"there is no option '{name}'; there are {', '.join(kind.model_fields)}", name)
    if problem["type"] == "missing" and len(problem["loc"]) == 1:
        return Refusal(400, f"there is no '{name}' in the request", name)
    if name in wording:
        return Refusal(400, f"'{name}' {wording[name]}", name)
    if name == "stop":
        return Refusal(400, f"'stop' must be a text or up to {MAX_STOPS}, of 1 to {MAX_STOP_CHARS} characters", name)
    return Refusal(400, f"'{name}': {problem['msg']}", name)


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return an error as the API says it."""
    kind = {404: "not_found_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}
