"""The daemon's HTTP server: the page, its figures as JSON, metrics, and the few things that this machine may ask of it.

How a server listens, and whom it answers at all, is `server.py`'s; every path stands in `paths.py`. Actions are taken
only as JSON (which no foreign page can send), only from this machine or with the daemon's token, and never from another
site. Looking never changes anything.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from configs.errors import ConfigError, ShoalError
from configs.machine import PeerConfig
from peer.http import metrics
from peer.http.health import Pulse, health_of
from peer.http.history import AnswersHistory, Curves, Rounds, Share
from peer.http.page_files import INDEX, PageFile, index, load_page
from peer.http.paths import PATHS, Handler, Paths, routes_of
from peer.http.playground import Ask, Playground
from peer.http.server import Place, bind, is_loopback, open_server, refuse
from peer.http.status import Status
from peer.http.stream import Stream
from peer.http.view import view

log = logging.getLogger(__name__)

DEFAULT_ROUNDS, MAX_ROUNDS = 100, 500  # in one answer
MAX_TICK = 1 << 62

Action = Callable[[], Awaitable[str | None]]  # what it returns is a line for whoever asked
MAX_BODY_BYTES = 4096  # of what limits shall be


@dataclass(frozen=True)
class Actions:
    """What this machine may ask of the daemon. A ShoalError becomes the refusal's reason."""

    leave: Action  # returns when the daemon has begun to leave: the server closes only after the answer
    pause: Action
    resume: Action
    revocations: Action  # read the list in the state directory again, and pass it on
    limits: Callable[[], dict[str, dict[str, Any]]]  # each with its value, its unit, its default and what it means
    limit: Callable[[bytes], Awaitable[None]]  # change those that a JSON object names


@dataclass(frozen=True)
class Shown:
    """What may be looked at. Each is called when somebody asks, and changes nothing.

    `rounds` is given a block (None: all), the tick before which they began (None: now) and how many at most.
    """

    status: Callable[[], Status]
    pulse: Callable[[], Awaitable[Pulse]]
    curves: Callable[[], Curves] = Curves
    rounds: Callable[[str | None, int | None, int], Rounds] = lambda block, before, limit: Rounds(rounds=[])
    answers: Callable[[], AnswersHistory] = AnswersHistory
    share: Callable[[], Awaitable[Share | None]] = lambda: asyncio.sleep(0)  # None: it is not known yet
    ask: Ask | None = None  # None: this peer asks nobody


@asynccontextmanager
async def open_http(config: PeerConfig, shown: Shown, actions: Actions) -> AsyncIterator[str]:
    """Serve on `status_host`:`status_port` until the block ends; yields the URL, with the port that was found.

    Answers what `paths.PATHS` lists. Raises NetworkError: the port is taken, or the host is not this machine's.
    Closing ends open streams at once, and waits 2 s for other answers.
    """
    place = Place(
        "the status page",
        config.status_host,
        config.status_port,
        "--status-host",
        "--status-port",
        "add it to peer.allowed_hosts",
    )
    stream = Stream(shown.status)
    app = _application(shown, actions, stream, config.status_token)
    async with open_server(app, place, bind(place), config.allowed_hosts) as url:
        try:
            yield url
        finally:
            stream.close()


def _application(shown: Shown, actions: Actions, stream: Stream, token: str) -> Starlette:
    files = load_page()
    playground = None if shown.ask is None else Playground(shown.ask)

    async def root(request: Request) -> Response:
        return index(files) if "text/html" in request.headers.get("accept", "") else RedirectResponse("/status")

    async def scrape(request: Request) -> Response:
        return Response(metrics.render(shown.status()), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def live(request: Request) -> Response:
        return JSONResponse({"is_live": True})

    async def health(request: Request) -> Response:
        found = health_of(shown.status(), await shown.pulse())
        return JSONResponse(found.model_dump(), status_code=200 if found.is_healthy else 503)

    async def stream_of(request: Request) -> ASGIApp:
        return stream.answer

    async def share(request: Request) -> Response:
        found = await shown.share()
        return JSONResponse(None) if found is None else _json(found)

    async def ask(request: Request) -> Response:
        if (reason := _reason_against(request, token)) is not None:
            return refuse(403, reason)
        if playground is None:
            return refuse(409, "this peer asks nobody; ask from a terminal: shoal ask ADDR PROMPT")
        return await playground.answer(request)

    async def limits(request: Request) -> Response:
        return JSONResponse(actions.limits())

    async def limit(request: Request) -> Response:
        if (reason := _reason_against(request, token)) is not None:
            return refuse(403, reason)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                return refuse(413, f"limits are an object of at most {MAX_BODY_BYTES} bytes")
        try:
            await actions.limit(body)
        except ConfigError as error:
            return refuse(422, str(error))
        except ShoalError as error:
            return refuse(409, str(error))
        return JSONResponse(actions.limits())

    handlers: dict[tuple[str, str], Handler] = {
        ("GET", "/"): root,
        ("GET", "/status"): _giving(shown.status),
        ("GET", "/view"): _giving(lambda: view(shown.status(), time.time())),
        ("GET", "/stream"): stream_of,
        ("GET", "/curves"): _giving(shown.curves),
        ("GET", "/rounds"): _rounds(shown),
        ("GET", "/rounds/{tick}"): _rounds_at(shown),
        ("GET", "/answers"): _giving(shown.answers),
        ("GET", "/share"): share,
        ("GET", "/metrics"): scrape,
        ("GET", "/live"): live,
        ("GET", "/health"): health,
        ("GET", "/paths"): _giving(lambda: Paths(paths=list(PATHS))),
        ("GET", "/limits"): limits,
        ("POST", "/limits"): limit,
        ("POST", "/ask"): ask,
    }
    for name in ("leave", "pause", "resume", "revocations"):
        handlers["POST", f"/{name}"] = _acting(name, getattr(actions, name), token)
    page = [Route(f"/{name}", _sending(file)) for name, file in files.items() if name != INDEX]
    return Starlette(routes=[*routes_of(handlers), *page])


def _giving(get: Callable[[], BaseModel]) -> Handler:
    async def give(request: Request) -> Response:
        return _json(get())

    return give


def _sending(file: PageFile) -> Handler:
    async def send(request: Request) -> Response:
        return file.response()

    return send


def _rounds(shown: Shown) -> Handler:
    async def rounds(request: Request) -> Response:
        asked = request.query_params
        before = _whole(asked.get("before"), MAX_TICK)
        limit = _whole(asked.get("limit", str(DEFAULT_ROUNDS)), MAX_ROUNDS)
        if limit is None or ("before" in asked and before is None):
            return refuse(400, f"ask for /rounds?block=NAME&before=TICK&limit=N, with N from 1 to {MAX_ROUNDS}")
        return _json(shown.rounds(asked.get("block"), before, limit))

    return rounds


def _rounds_at(shown: Shown) -> Handler:
    async def rounds_at(request: Request) -> Response:
        tick = _whole(request.path_params["tick"], MAX_TICK)
        if tick is None:
            return refuse(400, "a tick is a whole number, as in /rounds/812")
        found = shown.rounds(request.query_params.get("block"), tick + 1, MAX_ROUNDS).rounds
        here = [each for each in found if each.tick == tick]
        if not here:
            return refuse(404, f"no round that began at tick {tick} is remembered; /rounds lists those that are")
        return _json(Rounds(rounds=here))

    return rounds_at


def _acting(name: str, action: Action, token: str) -> Handler:
    async def act(request: Request) -> Response:
        if (reason := _reason_against(request, token)) is not None:
            return refuse(403, reason)
        log.info("asked for: %s", name)
        try:
            note = await action()
        except ShoalError as error:
            return refuse(409, str(error))
        return JSONResponse({"done": name, **({"note": note} if note else {})})

    return act


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _whole(text: str | None, most: int) -> int | None:
    """Return a whole number from 1 to `most`; None for anything else."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 19:
        return None
    return number if 1 <= (number := int(text)) <= most else None


def _reason_against(request: Request, token: str) -> str | None:
    """Say why an action is refused, or return None."""
    client = request.client.host if request.client else ""
    if not is_loopback(client) and not _has_token(request, token):
        return (
            "actions are taken only from the daemon's own machine, or with its token (peer.status_token); run the "
            "command there"
        )
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        return "an action is sent as application/json"
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return "another site may not ask for this"
    return None


def _has_token(request: Request, token: str) -> bool:
    """Return whether the request brings the daemon's token, if there is one."""
    scheme, _, said = request.headers.get("authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and compare_digest(said.encode(), token.encode())
