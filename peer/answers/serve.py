"""An OpenAI-compatible endpoint for a fused model: `shoal serve`.

Prompts are answered one after the other, in a thread (`writer.py`); what requests and answers look like is in
`completions.py`. A request is taken only as JSON, which no foreign page in a browser can send without asking, and that
is never granted. A client that leaves ends its generation.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from random import SystemRandom
from typing import Any

import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from configs.errors import DataError, ShoalError
from peer.answers.completions import (
    Completion,
    CompletionRequest,
    FinishReason,
    Refusal,
    Stops,
    Usage,
    error_body,
    parse,
)
from peer.answers.writer import Answer, BusyError, ClosedError, Writer
from peer.ending import handling_signals
from peer.fused.generate import Generation, Sampling, task_prompt
from peer.fused.routed import RoutedModel
from peer.http.server import Place, bind, is_loopback, open_server

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
MAX_PROMPT_TOKENS = 1 << 16
MAX_WAITING = 16  # requests beside the one that is being answered
BODY_S = 30.0  # for a client to send its request
SEND_S = 30.0  # for a client to take a piece of its answer


def run(path: Path, host: str, port: int, device: str, is_task: bool | None) -> None:
    """Serve the model in the directory `path` until Ctrl-C or SIGTERM.

    `is_task`: ask it as it was trained; None: if it was trained on a task. Raises NetworkError, DataError.
    """
    place = Place("the endpoint", host, port, "--host", "--port", "name it as --host")
    with bind(place) as listening:  # a taken port is said before the model is read
        model = RoutedModel.load(path, device)
        if model.tokenizer is None:
            raise DataError(f"{path} has no tokenizer.json, so text cannot be read; fuse again")
        if is_task and model.task is None:
            raise DataError("the model was not trained on a task (it has no task.json); leave out --task")
        name = path.resolve().name or "model"

        async def live() -> None:
            completions = Completions(model, name, model.task is not None if is_task is None else is_task)
            async with open_server(application(completions), place, listening, refuse=refuse) as url:
                print(f"serving {name} at {url}/v1; Ctrl-C ends it", flush=True)
                if not is_loopback(host) and host != "localhost":
                    log.warning("there is no password: whoever can reach %s may ask", host)
                await _told_to_end()
                completions.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(live())


def application(completions: "Completions") -> Starlette:
    """Answer GET /v1/models, GET /v1/models/NAME and POST /v1/completions."""
    name = completions.name
    card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "shoal"}

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    async def one(request: Request) -> Response:
        _check_name(request.path_params["name"], name)
        return JSONResponse(card)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refuse(error.status, str(error), error.param)

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return refuse(404, "there is nothing here; there are GET /v1/models and POST /v1/completions (no chat)")
        return refuse(error.status_code, error.detail)

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one),
            Route("/v1/completions", completions, methods=["POST"]),
        ],
        exception_handlers={Refusal: refused, HTTPException: failed},
    )


class Completions:
    """POST /v1/completions, as an ASGI application, for a model that has a tokenizer."""

    def __init__(self, model: RoutedModel, name: str, is_task: bool) -> None:
        self.name = name
        self._model, self._is_task = model, is_task
        self._writer = Writer(MAX_WAITING)

    def close(self) -> None:
        """Cut what is being answered; every client hears of it."""
        self._writer.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises Refusal before anything was sent."""
        request = Request(scope, receive)
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "a request is sent as application/json")
        try:
            asked = parse(await _body(request))
        except ClientDisconnect:
            return
        if asked.model is not None:
            _check_name(asked.model, self.name)
        await _while_connected(receive, self._answer(asked, scope, receive, send))

    async def _answer(self, asked: CompletionRequest, scope: Scope, receive: Receive, send: Send) -> None:
        completion = Completion(self.name)
        try:
            async with self._writer.write(lambda: self._begin(asked)) as answer:
                reading = Reading(answer, asked)
                if asked.stream:
                    await self._stream(asked, completion, reading, send)
                else:
                    text = "".join([piece async for piece in reading])
            if asked.stream:
                await _send(send, {"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
                return
            response: Response = JSONResponse(completion.whole(text, reading.finish_reason, reading.usage))
        except TimeoutError:
            return  # the client takes nothing; the server closes its connection
        except BusyError as error:
            response = refuse(429, str(error))
        except ClosedError as error:
            response = refuse(503, str(error))
        except Refusal as error:
            response = refuse(error.status, str(error), error.param)
        except ShoalError as error:
            response = refuse(400, str(error), "prompt")
        except Exception:
            log.exception("a prompt could not be answered")
            response = refuse(500, "the model failed; see the server's log")
        await response(scope, receive, send)

    def _begin(self, asked: CompletionRequest) -> Generation:
        """Read the prompt; runs in a thread. Raises DataError: empty; Refusal: too long."""
        seed = SystemRandom().getrandbits(63) if asked.seed is None else asked.seed
        sampling = Sampling(
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            top_k=asked.top_k,
            seed=seed,
            no_repeat_ngram=asked.no_repeat_ngram,
        )
        prompt = task_prompt(self._model, asked.text) if self._is_task else asked.text
        generation = Generation(self._model, prompt, sampling)
        if generation.prompt_tokens > MAX_PROMPT_TOKENS:
            raise Refusal(
                400,
                f"the prompt has {generation.prompt_tokens} tokens, and at most {MAX_PROMPT_TOKENS} are read; "
                "shorten it",
                "prompt",
            )
        return generation

    async def _stream(self, asked: CompletionRequest, completion: Completion, reading: "Reading", send: Send) -> None:
        """Send an answer as server-sent events, but for the last. What fails from here on is told in an event."""
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await _send(send, {"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async for piece in reading:
                if piece:
                    await _send(send, _event(completion.piece(piece)))
            await _send(send, _event(completion.piece("", reading.finish_reason)))
            if asked.stream_options.include_usage:
                await _send(send, _event(completion.usage(reading.usage)))
        except TimeoutError:
            raise
        except ClosedError as error:
            await _send(send, _event(error_body(503, str(error))))
        except Exception:
            log.exception("a prompt could not be answered")
            await _send(send, _event(error_body(500, "the model failed; see the server's log")))


class Reading:
    """The text of an answer up to its end or a stop; afterwards, why it ended and what it took."""

    def __init__(self, answer: Answer, asked: CompletionRequest) -> None:
        self._answer, self._stops = answer, Stops(asked.stops)
        self._taken = 0  # pieces, one for each token

    async def __aiter__(self) -> AsyncIterator[str]:
        async for piece in self._answer:
            self._taken += 1
            yield self._stops.feed(piece)
            if self._stops.is_found:
                return
        yield self._stops.rest

    @property
    def finish_reason(self) -> FinishReason:
        """Whether it came to an end of its own, or had as many tokens as were allowed."""
        return "stop" if self._stops.is_found or self._answer.generation.has_ended else "length"

    @property
    def usage(self) -> Usage:
        """The numbers of tokens; the thread may be a few ahead of a stop."""
        generation = self._answer.generation
        return Usage(generation.prompt_tokens, min(self._taken, generation.answer_tokens))


async def _body(request: Request) -> bytes:
    """Return the body of a request. Raises Refusal: too large, or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                if len(body) <= MAX_BODY_BYTES:  # the rest is read all the same: few clients hear while they speak
                    body += chunk
    except TimeoutError:
        raise Refusal(408, f"the request did not arrive within {BODY_S:.0f} s") from None
    if len(body) > MAX_BODY_BYTES:
        raise Refusal(413, f"the request has more than {MAX_BODY_BYTES} bytes; shorten the prompt", "prompt")
    return bytes(body)


async def _while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, or as much of it as the client stays for."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        working.cancel()

    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work)
        watching = tasks.create_task(watch())
        working.add_done_callback(lambda _: watching.cancel())


async def _send(send: Send, message: dict[str, Any]) -> None:
    """Send, but do not let a client that reads nothing hold up the others: raises TimeoutError."""
    async with asyncio.timeout(SEND_S):
        await send(message)


def _event(data: dict[str, Any]) -> dict[str, Any]:
    body = f"data: {json.dumps(data)}\n\n".encode()
    return {"type": "http.response.body", "body": body, "more_body": True}


def _check_name(asked: str, name: str) -> None:
    if asked != name:
        raise Refusal(404, f"there is no model '{asked[:64]}' here; there is '{name}'", "model")


def refuse(status: int, message: str, param: str | None = None) -> Response:
    """Return a refusal in the API's form."""
    return JSONResponse(error_body(status, message, param), status_code=status)


async def _told_to_end() -> None:
    """Wait for SIGINT or SIGTERM; a second one ends the process as usual."""
    ending = asyncio.Event()
    with handling_signals(lambda number: ending.set()):
        await ending.wait()
