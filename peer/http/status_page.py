"""The daemon's HTTP server: its status, its metrics, and the few things that this machine may ask of it.

How a server listens, and whom it answers at all, is `server.py`'s. Actions are taken only as JSON (which no foreign
page can send), only from this machine or with the daemon's token, and never from another site.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hmac import compare_digest

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from configs.errors import ShoalError
from configs.machine import PeerConfig
from peer.http import metrics
from peer.http.health import Vitals, health_of
from peer.http.server import Place, bind, is_loopback, open_server, refuse
from peer.http.status import Status

log = logging.getLogger(__name__)

Action = Callable[[], Awaitable[None]]
GetVitals = Callable[[], Awaitable[Vitals]]


@dataclass(frozen=True)
class Actions:
    """What this machine may ask of the daemon. A ShoalError becomes the refusal's reason."""

    leave: Action  # returns when the daemon has begun to leave: the server closes only after the answer
    pause: Action
    resume: Action
    revocations: Action  # read the list in the state directory again, and pass it on


@asynccontextmanager
async def open_http(
    config: PeerConfig, get_status: Callable[[], Status], actions: Actions, get_vitals: GetVitals
) -> AsyncIterator[str]:
    """Serve on `status_host`:`status_port` until the block ends; yields the URL, with the port that was found.

    Answers GET /status, /metrics, /live, /health and POST /leave, /pause, /resume, /revocations.
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
    app = _application(get_status, actions, get_vitals, config.status_token)
    async with open_server(app, place, bind(place), config.allowed_hosts) as url:
        yield url


def _application(get_status: Callable[[], Status], actions: Actions, get_vitals: GetVitals, token: str) -> Starlette:
    async def status(request: Request) -> Response:
        return Response(get_status().model_dump_json(), media_type="application/json")

    async def scrape(request: Request) -> Response:
        return Response(metrics.render(get_status()), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def live(request: Request) -> Response:
        return JSONResponse({"is_live": True})

    async def health(request: Request) -> Response:
        found = health_of(get_status(), await get_vitals())
        return JSONResponse(found.model_dump(), status_code=200 if found.is_healthy else 503)

    async def root(request: Request) -> Response:
        return RedirectResponse("/status")

    def handler(name: str, action: Action) -> Callable[[Request], Awaitable[Response]]:
        async def act(request: Request) -> Response:
            if (reason := _reason_against(request, token)) is not None:
                return refuse(403, reason)
            log.info("asked for: %s", name)
            try:
                await action()
            except ShoalError as error:
                return refuse(409, str(error))
            return JSONResponse({"done": name})

        return act

    asked = {name: getattr(actions, name) for name in ("leave", "pause", "resume", "revocations")}
    return Starlette(
        routes=[
            Route("/", root),
            Route("/status", status),
            Route("/metrics", scrape),
            Route("/live", live),
            Route("/health", health),
            *(Route(f"/{name}", handler(name, action), methods=["POST"]) for name, action in asked.items()),
        ]
    )


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
