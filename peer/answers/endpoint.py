"""Answers one request to OpenAI's interfaces with a model: as a whole, or event by event."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from random import SystemRandom
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from configs.errors import ShoalError
from peer.answers.asked import Choice, Refusal, Usage, error_body
from peer.answers.chat import ChatCompletion, ChatRequest, ChatTemplate, Turn
from peer.answers.completions import Completion, CompletionRequest
from peer.answers.reading import Reading
from peer.answers.writer import Answer, BusyError, ClosedError, Writer
from peer.fused.batch import Batch
from peer.fused.generate import Generation, task_prompt
from peer.fused.routed import RoutedModel

log = logging.getLogger(__name__)

MAX_PROMPT_TOKENS = 1 << 16
MAX_WAITING = 256  # answers beside those that are being written
SEND_S = 30.0  # for a client to take a piece of its answer

Question = CompletionRequest | ChatRequest


@dataclass(frozen=True)
class Ask:
    """One answer that a request asks for: the `index` of its choice, and what begins it, in a thread."""

    index: int
    prompt: int  # which of the request's prompts it answers
    begin: Callable[[], Generation]


class Endpoint:
    """Answers requests with a model that has a tokenizer, some answers side by side."""

    def __init__(
        self, model: RoutedModel, name: str, is_task: bool = False, template: ChatTemplate | None = None
    ) -> None:
        self.name = name
        self._model, self._is_task, self._template = model, is_task, template
        self._batch = Batch(model)
        self._writer = Writer(MAX_WAITING, self._batch.most)
        self._is_closed = False
        self._has_failed = False  # the last answer that was begun

    def close(self) -> None:
        """Cut what is being answered; every client hears of it."""
        self._is_closed = True
        self._writer.close()

    def health(self) -> dict[str, Any]:
        """Say whether a request would be answered now, or why it would not; and how many are before it."""
        status = "ok"
        if self._is_closed:
            status = "ending"
        elif self._writer.is_busy:
            status = "busy"
        elif self._has_failed:
            status = "the model failed; see the server's log"
        return {"status": status, "model": self.name, "asked": self._writer.asked}

    async def answer(self, asked: Question, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whatever happens."""
        reply = ChatCompletion(self.name) if isinstance(asked, ChatRequest) else Completion(self.name)
        try:
            if asked.stream:
                await self._stream(asked, reply, send)
                return
            response: Response = JSONResponse(await self._whole(asked, reply))
        except TimeoutError:
            return  # the client takes nothing; the server closes its connection
        except Exception as error:
            response = refuse(*self._told(error, asked))
        await response(scope, receive, send)

    def _told(self, error: Exception, asked: Question) -> tuple[int, str, str | None]:
        """Return the status, the line and the parameter of what went wrong."""
        if isinstance(error, Refusal):
            return error.status, str(error), error.param
        if isinstance(error, BusyError):
            return 429, str(error), None
        if isinstance(error, ClosedError):
            return 503, str(error), None
        if isinstance(error, ShoalError):
            return 400, str(error), _prompt_of(asked)
        log.error("a prompt could not be answered", exc_info=error)
        self._has_failed = True
        return 500, "the model failed; see the server's log", None

    def _asks(self, asked: Question) -> list[Ask]:
        """Return the answers that a request asks for."""
        seed = SystemRandom().getrandbits(62) if asked.seed is None else asked.seed
        if isinstance(asked, ChatRequest):
            return [Ask(at, 0, partial(self._begin, asked, asked.messages, seed + at)) for at in range(asked.n)]
        found: list[Ask] = []
        for number, prompt in enumerate(asked.prompts):
            for _ in range(asked.written):
                at = len(found)
                found.append(Ask(at, number, partial(self._begin, asked, prompt, seed + at)))
        return found

    def _begin(self, asked: Question, prompt: str | list[int] | list[Turn], seed: int) -> Generation:
        """Read the prompt; runs in a thread. Raises DataError: empty; Refusal: too long."""
        sampling = asked.sampling(_limit(asked), seed, self._model.vocab_size)
        alternatives = asked.alternatives
        if isinstance(asked, CompletionRequest) and asked.written > asked.n:
            alternatives = alternatives or 0  # they are compared
        tokens, begins = self._prompt(prompt)
        generation = Generation(self._model, tokens, sampling, begins, alternatives, self._batch)
        if generation.prompt_tokens > MAX_PROMPT_TOKENS:
            raise Refusal(
                400,
                f"the prompt has {generation.prompt_tokens} tokens, and at most {MAX_PROMPT_TOKENS} are read; "
                "shorten it",
                _prompt_of(asked),
            )
        return generation

    def _prompt(self, prompt: str | list[int] | list[Turn]) -> tuple[str | list[int], bool]:
        """Return a prompt as the model reads it, and whether it begins a text, as a text does and tokens do not."""
        if isinstance(prompt, str):
            return task_prompt(self._model, prompt) if self._is_task else prompt, True
        if isinstance(prompt[0], int):
            tokens = [token for token in prompt if isinstance(token, int)]
            if (largest := max(tokens)) >= self._model.vocab_size:
                raise Refusal(400, f"there is no token {largest}; there are {self._model.vocab_size}", "prompt")
            return tokens, False
        turns = [turn for turn in prompt if isinstance(turn, Turn)]
        if self._is_task:
            if [turn.role for turn in turns] != ["user"]:
                raise Refusal(
                    400, "this model was trained on a task: send one message of the user, its input", "messages"
                )
            return task_prompt(self._model, turns[0].text), True
        if self._template is None:
            raise Refusal(400, "this model has no chat template: ask POST /v1/completions", "messages")
        return self._template.tokens(turns), False

    async def _whole(self, asked: Question, reply: Completion | ChatCompletion) -> Any:
        """Write all answers of a request; return the body that has them."""
        usages: dict[int, Usage] = {}
        turns = asyncio.Semaphore(self._batch.most)  # so that no request makes the queue full by itself

        async def write(ask: Ask) -> tuple[Ask, Choice, float]:
            async with turns, self._write(ask) as answer:
                reading = _reading(asked, answer, ask)
                choice = await reading.whole()
                usages[ask.index] = reading.usage
                return ask, choice, reading.mean_log_probability

        try:
            async with asyncio.TaskGroup() as tasks:
                writing = [tasks.create_task(write(ask)) for ask in self._asks(asked)]
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        written = [task.result() for task in writing]
        if isinstance(asked, CompletionRequest) and asked.written > asked.n:
            written = _best(written, asked.n)
        choices = [replace(choice, index=at) for at, (_, choice, _) in enumerate(written)]
        return reply.whole(choices, _usage(asked, usages))

    async def _stream(self, asked: Question, reply: Completion | ChatCompletion, send: Send) -> None:
        """Send the answers as server-sent events. What fails after the first of them is told in an event."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        usages: dict[int, Usage] = {}
        is_open = False
        try:
            for ask in self._asks(asked):
                async with self._write(ask) as answer:
                    if not is_open:
                        await _send(send, {"type": "http.response.start", "status": 200, "headers": headers})
                        is_open = True
                    if (opening := reply.opening(ask.index)) is not None:
                        await _send(send, _event(opening))
                    reading = _reading(asked, answer, ask)
                    async for choice in reading:
                        if choice.text or choice.tokens or choice.finish_reason:
                            await _send(send, _event(reply.piece(choice)))
                    usages[ask.index] = reading.usage
            if asked.stream_options.include_usage:
                await _send(send, _event(reply.usage(_usage(asked, usages))))
        except TimeoutError:
            raise
        except Exception as error:
            if not is_open:
                raise
            await _send(send, _event(error_body(*self._told(error, asked))))
        await _send(send, {"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})

    @asynccontextmanager
    async def _write(self, ask: Ask) -> AsyncIterator[Answer]:
        async with self._writer.write(ask.begin) as answer:
            yield answer
        self._has_failed = False


def _prompt_of(asked: Question) -> str:
    return "messages" if isinstance(asked, ChatRequest) else "prompt"


def _limit(asked: Question) -> int:
    return asked.limit if isinstance(asked, ChatRequest) else asked.max_tokens


def _reading(asked: Question, answer: Answer, ask: Ask) -> Reading:
    is_echo = isinstance(asked, CompletionRequest) and asked.echo
    return Reading(answer, ask.index, asked.stops, is_echo=is_echo, has_tokens=asked.alternatives is not None)


def _best(written: Sequence[tuple[Ask, Choice, float]], count: int) -> list[tuple[Ask, Choice, float]]:
    """Return the likeliest answers to each prompt."""
    kept = []
    for prompt in dict.fromkeys(ask.prompt for ask, _, _ in written):
        of_it = [each for each in written if each[0].prompt == prompt]
        kept += sorted(of_it, key=lambda each: -each[2])[:count]
    return kept


def _usage(asked: Question, usages: Mapping[int, Usage]) -> Usage:
    """Add up what the answers took; a prompt is read again for each, and counts once."""
    written = asked.n if isinstance(asked, ChatRequest) else asked.written
    prompts = sum(usage.prompt for index, usage in usages.items() if index % written == 0)
    return Usage(prompts, sum(usage.completion for usage in usages.values()))


async def _send(send: Send, message: dict[str, Any]) -> None:
    """Send, but do not let a client that reads nothing hold up the others: raises TimeoutError."""
    async with asyncio.timeout(SEND_S):
        await send(message)


def _event(data: dict[str, Any]) -> dict[str, Any]:
    body = f"data: {json.dumps(data)}\n\n".encode()
    return {"type": "http.response.body", "body": body, "more_body": True}


def refuse(status: int, message: str, param: str | None = None) -> Response:
    """Return a refusal in the API's form."""
    return JSONResponse(error_body(status, message, param), status_code=status)
