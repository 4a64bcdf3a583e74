"""The daemon's HTTP server: its status, its metrics, and the few things that this machine may ask of it.

How a server listens, and whom it answers at all, is `server.py`'s. Actions are taken only as JSON (which no foreign
page can send), only from this machine, and never from another site.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from configs.errors import ConfigError, ShoalError
from configs.machine import PeerConfig
from peer.http import metrics
from peer.http.server import Place, bind, is_loopback, open_server, refuse
from peer.http.status import Status

log = logging.getLogger(__name__)

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


@asynccontextmanager
async def open_http(config: PeerConfig, get_status: Callable[[], Status], actions: Actions) -> AsyncIterator[str]:
    """Serve on `status_host`:`status_port` until the block ends; yields the URL, with the port that was found.

    Answers GET /status, /metrics, /health, /limits and POST /leave, /pause, /resume, /revocations, /limits.
    Raises NetworkError: the port is taken, or the host is not this machine's. Closing waits 2 s for answers.
    """
    place = Place(
        "the status page",
        config.status_host,
        config.status_port,
        "--status-host",
        "--status-port",
        "add it to peer.allowed_hosts",
    )
    app = _application(get_status, actions)
    async with open_server(app, place, bind(place), config.allowed_hosts) as url:
        yield url


def _application(get_status: Callable[[], Status], actions: Actions) -> Starlette:
    async def status(request: Request) -> Response:
        return Response(get_status().model_dump_json(), media_type="application/json")

    async def scrape(request: Request) -> Response:
        return Response(metrics.render(get_status()), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def health(request: Request) -> Response:
        snapshot = get_status()
        return JSONResponse({"is_healthy": True, "state": snapshot.state, "tick": snapshot.tick})

    async def root(request: Request) -> Response:
        return RedirectResponse("/status")

    def handler(name: str, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def act(request: Request) -> Response:
            if (reason := _reason_against(request)) is not None:
                return refuse(403, reason)
            log.info("asked for: %s", name)
            try:
                note = await action()
            except ShoalError as error:
                return refuse(409, str(error))
            return JSONResponse({"done": name, **({"note": note} if note else {})})

        return act

    async def limits(request: Request) -> Response:
        return JSONResponse(actions.limits())

    async def limit(request: Request) -> Response:
        if (reason := _reason_against(request)) is not None:
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

    asked = {name: getattr(actions, name) for name in ("leave", "pause", "resume", "revocations")}
    return Starlette(
        routes=[
            Route("/", root),
            Route("/status", status),
            Route("/metrics", scrape),
            Route("/health", health),
            Route("/limits", limits),
            Route("/limits", limit, methods=["POST"]),
            *(Route(f"/{name}", handler(name, action), methods=["POST"]) for name, action in asked.items()),
        ]
    )


def _reason_against(request: Request) -> str | None:
    """Say why an action is refused, or return None."""
    client = request.client.host if request.client else ""
    if not is_loopback(client):
        return "actions are taken only from the daemon's own machine; run the command there"
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        return "an action is sent as application/json"
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return "another site may not ask for this"
    return None
