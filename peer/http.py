"""The daemon's HTTP server: its status, its metrics, and the three things that this machine may ask of it.

It runs inside the daemon's event loop and owns neither signals nor tasks. A page in a browser must not be able to
steer a daemon on the same machine, so names in the Host header are refused (DNS rebinding), and actions are taken only
as JSON (which no foreign page can send), only from this machine, and never from another site.
"""

import errno
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from configs.errors import NetworkError, ShoalError
from configs.machine import PeerConfig
from peer import metrics
from peer.status import Status

logger = logging.getLogger(__name__)

HEADERS = [
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
]
DRAIN_S = 2  # for answers that are under way when the server closes

Action = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Actions:
    """What this machine may ask of the daemon. A ShoalError becomes the refusal's reason."""

    leave: Action  # returns when the daemon has begun to leave: the server closes only after the answer
    pause: Action
    resume: Action


@asynccontextmanager
async def open_http(config: PeerConfig, get_status: Callable[[], Status], actions: Actions) -> AsyncIterator[str]:
    """Serve on `status_host`:`status_port` until the block ends; yields the URL, with the port that was found.

    Answers GET /status, /metrics, /health and POST /leave, /pause, /resume.
    Raises NetworkError: the port is taken, or the host is not this machine's. Closing waits `DRAIN_S` for answers.
    """
    listening = _bind(config.status_host, config.status_port)
    settings = uvicorn.Config(
        _guard(_application(get_status, actions), frozenset({config.status_host.lower(), *config.allowed_hosts})),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        headers=HEADERS,
        limit_concurrency=256,
        timeout_graceful_shutdown=DRAIN_S,
        proxy_headers=False,
    )
    # What `Server.serve` does, without taking the signals and without its loop that polls for an exit flag.
    settings.load()
    server = uvicorn.Server(settings)
    server.lifespan = settings.lifespan_class(settings)
    server.server_state.default_headers = settings.encoded_headers
    try:
        await server.startup(sockets=[listening])
        yield _url(config.status_host, listening.getsockname()[1])
    finally:
        if server.started:
            await server.shutdown(sockets=[listening])
        listening.close()


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
                return _refuse(403, reason)
            logger.info("asked to %s", name)
            try:
                await action()
            except ShoalError as error:
                return _refuse(409, str(error))
            return JSONResponse({"done": name})

        return act

    asked = {"leave": actions.leave, "pause": actions.pause, "resume": actions.resume}
    return Starlette(
        routes=[
            Route("/", root),
            Route("/status", status),
            Route("/metrics", scrape),
            Route("/health", health),
            *(Route(f"/{name}", handler(name, action), methods=["POST"]) for name, action in asked.items()),
        ]
    )


def _reason_against(request: Request) -> str | None:
    """Say why an action is refused, or return None."""
    client = request.client.host if request.client else ""
    if not _is_loopback(client):
        return "actions are taken only from the daemon's own machine; run the command there"
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        return "an action is sent as application/json"
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return "another site may not ask for this"
    return None


def _guard(app: ASGIApp, allowed_hosts: frozenset[str]) -> ASGIApp:
    """Answer only requests whose Host is an IP address, localhost or an allowed name."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        host = _host_name(Headers(scope=scope).get("host", ""))
        if host == "localhost" or host in allowed_hosts or _is_ip(host):
            await app(scope, receive, send)
        else:
            reason = (
                f"the host name {host[:64]!r} is not allowed here; use an IP address or add it to peer.allowed_hosts"
            )
            await _refuse(403, reason)(scope, receive, send)

    return guarded


def _refuse(code: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status_code=code)


def _host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    if not _is_ip(host):
        return False
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _bind(host: str, port: int) -> socket.socket:
    """Return a bound socket. Raises NetworkError with what to change."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise NetworkError(f"--status-host '{host}' is not an address of this machine; try 127.0.0.1") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} is taken; choose another --status-port, or 0 for any free one"
        elif error.errno == errno.EACCES:
            reason = f"port {port} needs more rights; choose a --status-port above 1023"
        else:
            reason = f"{error.strerror}; is --status-host an address of this machine?"
        raise NetworkError(f"the status page cannot listen on {host}: {reason}") from None
    return listening


def _url(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
