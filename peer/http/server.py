"""What the HTTP servers of this machine have in common: a bound socket, a guard, and a life inside the event loop.

A server owns neither signals nor tasks. A page in a browser must not be able to reach one on the same machine, so names
in the Host header are refused (DNS rebinding) unless they are allowed, and so is what another site's page sends. Who
only holds connections open makes room for who asks. What is served stands elsewhere.
"""

import asyncio
import errno
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from configs.errors import NetworkError

HEADERS = [  # of every answer that does not say otherwise
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]
DRAIN_S = 2  # for answers that are under way when the server closes
MAX_CONNECTIONS = 256
HOST = re.compile(r"(\[(?P<ip>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+))(:\d{1,5})?")
SAFE = ("GET", "HEAD")  # methods that change nothing

Refuse = Callable[[int, str], Response]  # (status code, reason) → an answer in the server's own form


@dataclass(frozen=True)
class Place:
    """Where a server shall listen, and by which options a person says so."""

    name: str  # such as "the status page"
    host: str
    port: int  # 0: any free one
    host_option: str
    port_option: str
    allow_remedy: str  # what to do about a name in the Host header that is not allowed


def refuse(code: int, reason: str) -> Response:
    """Return a refusal with its reason as JSON."""
    return JSONResponse({"error": reason}, status_code=code)


@asynccontextmanager
async def open_server(
    app: ASGIApp, place: Place, listening: socket.socket, allowed_hosts: Collection[str] = (), refuse: Refuse = refuse
) -> AsyncIterator[str]:
    """Serve `app` on a socket made by `bind` until the block ends; yields the URL, with the port that was found.

    Takes over the socket. Closing waits `DRAIN_S` for answers that are under way, and then cancels them.
    """
    settings = uvicorn.Config(
        _guard(app, place, frozenset({place.host.lower(), *allowed_hosts}), refuse),
        http=Door,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=MAX_CONNECTIONS,
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
        yield _url(place.host, listening.getsockname()[1])
    finally:
        if server.started:
            await server.shutdown(sockets=[listening])
        listening.close()


def bind(place: Place) -> socket.socket:
    """Return a socket that listens at `place`. Raises NetworkError with what to change."""
    host, port = place.host, place.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise NetworkError(f"{place.host_option} '{host}' is not an address of this machine; try 127.0.0.1") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            reason = f"port {port} is taken; choose another {place.port_option}, or 0 for any free one"
        elif error.errno == errno.EACCES:
            reason = f"port {port} needs more rights; choose a {place.port_option} above 1023"
        else:
            reason = f"{error.strerror}; give {place.host_option} an address of this machine"
        raise NetworkError(f"{place.name} cannot listen on {host}: {reason}") from None
    return listening


def is_loopback(host: str) -> bool:
    """Return whether `host` is an IP address by which a machine reaches itself."""
    if not _is_ip(host):
        return False
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Door(H11Protocol):
    """One connection. When there are as many as may be, the oldest on which nothing is being answered is closed."""

    began_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, and make room for it."""
        super().connection_made(transport)
        self.began_s = self.loop.time()
        others = (each for each in self.connections if isinstance(each, Door) and each is not self)
        idle = [each for each in others if each.cycle is None or each.cycle.response_complete]
        if len(self.connections) >= MAX_CONNECTIONS and idle:
            oldest = min(idle, key=lambda each: each.began_s)
            self.connections.discard(oldest)
            oldest.transport.abort()


def _guard(app: ASGIApp, place: Place, allowed_hosts: frozenset[str], refuse: Refuse) -> ASGIApp:
    """Answer only requests whose Host is an IP address, localhost or an allowed name, and that no other site sends."""

    async def guarded(scope: Scope, receive: Receive, bare_send: Send) -> None:
        send = _with_headers(bare_send)
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        name = _host_name(host)
        if name != "localhost" and name not in allowed_hosts and not _is_ip(name):
            reason = f"the host name {name[:64]!r} is not allowed here; use an IP address or {place.allow_remedy}"
            await refuse(403, reason)(scope, receive, send)
        elif origin is not None and scope["method"] not in SAFE and origin.partition("://")[2].lower() != host.lower():
            await refuse(403, "another site may not ask for this")(scope, receive, send)
        else:
            await app(scope, receive, send)

    return guarded


def _with_headers(send: Send) -> Send:
    """Add `HEADERS` to an answer; two policies would hold both, so one that the answer brings stands alone."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(name.lower(), value) for name, value in message.get("headers", [])]
            given = {name for name, _ in own}
            message["headers"] = [*own, *(header for header in HEADERS if header[0] not in given)]
        await send(message)

    return sent


def _host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets; the whole of one that is not well formed."""
    found = HOST.fullmatch(host.lower())
    return (found["ip"] or found["name"]) if found else host


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _url(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens on `host`."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"
