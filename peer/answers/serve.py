"""An OpenAI-compatible server for a fused model: `shoal serve`.

What requests and answers look like is in `completions.py` and `chat.py`; how one is answered in `endpoint.py`. A
request is taken only as JSON, which no foreign page in a browser can send without asking, and that is never granted. A
client that leaves ends its generation.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from configs.errors import DataError
from peer.answers.asked import Refusal
from peer.answers.chat import ChatRequest, ChatTemplate
from peer.answers.completions import CompletionRequest
from peer.answers.endpoint import Endpoint, Question, refuse
from peer.ending import handling_signals
from peer.fused.routed import RoutedModel
from peer.http.server import Place, bind, is_loopback, open_server

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
BODY_S = 30.0  # for a client to send its request


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
        template = ChatTemplate.read(path, model.tokenizer)
        name = path.resolve().name or "model"

        async def live() -> None:
            endpoint = Endpoint(model, name, model.task is not None if is_task is None else is_task, template)
            async with open_server(application(endpoint), place, listening, refuse=refuse) as url:
                print(f"serving {name} at {url}/v1; Ctrl-C ends it", flush=True)
                if not is_loopback(host) and host != "localhost":
                    log.warning("there is no password: whoever can reach %s may ask", host)
                await _told_to_end()
                endpoint.close()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(live())


def application(endpoint: Endpoint) -> Starlette:
    """Answer GET /v1/models, /v1/models/NAME and /health, POST /v1/completions and /v1/chat/completions."""
    name = endpoint.name
    card = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "shoal"}

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    async def one(request: Request) -> Response:
        _check_name(request.path_params["name"], name)
        return JSONResponse(card)

    async def health(request: Request) -> Response:
        told = endpoint.health()
        return JSONResponse(told, status_code=200 if told["status"] == "ok" else 503)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refuse(error.status, str(error), error.param)

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            posts = "POST /v1/completions and /v1/chat/completions"
            return refuse(404, f"there is nothing here; there are GET /v1/models and /health, {posts}")
        return refuse(error.status_code, error.detail)

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", one),
            Route("/v1/completions", Interface(endpoint, CompletionRequest.parse), methods=["POST"]),
            Route("/v1/chat/completions", Interface(endpoint, ChatRequest.parse), methods=["POST"]),
            Route("/health", health),
        ],
        exception_handlers={Refusal: refused, HTTPException: failed},
    )


@dataclass(frozen=True)
class Interface:
    """One of OpenAI's interfaces, as an ASGI application."""

    endpoint: Endpoint
    parse: Callable[[bytes], Question]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises Refusal before anything was sent."""
        request = Request(scope, receive)
        if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "a request is sent as application/json")
        try:
            asked = self.parse(await _body(request))
        except ClientDisconnect:
            return
        if asked.model is not None:
            _check_name(asked.model, self.endpoint.name)
        await _while_connected(receive, self.endpoint.answer(asked, scope, receive, send))


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


def _check_name(asked: str, name: str) -> None:
    if asked != name:
        raise Refusal(404, f"there is no model '{asked[:64]}' here; there is '{name}'", "model")


async def _told_to_end() -> None:
    """Wait for SIGINT or SIGTERM; a second one ends the process as usual."""
    ending = asyncio.Event()
    with handling_signals(lambda number: ending.set()):
        await ending.wait()
