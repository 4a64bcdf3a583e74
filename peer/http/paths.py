"""Everything that a daemon answers over HTTP, as one table: the routes are made from it, and `/paths` gives it out."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.routing import Route


class Documented(BaseModel):
    """One path."""

    method: Literal["GET", "POST"]
    path: str
    gives: str  # or, of a POST, does
    model: str = ""  # the pydantic model of the answer; empty: what `gives` says


class Paths(BaseModel):
    """The table."""

    paths: list[Documented]


PATHS = (
    Documented(method="GET", path="/", gives="the page, to a browser; to anything else, where the status is"),
    Documented(method="GET", path="/status", gives="everything that `shoal status` shows", model="Status"),
    Documented(method="GET", path="/view", gives="what the page and the terminal draw of it", model="View"),
    Documented(
        method="GET",
        path="/stream",
        gives="server-sent events: `view` when that has changed, at most each second, and `beat` every few seconds",
        model="View",
    ),
    Documented(
        method="GET",
        path="/curves",
        gives="losses, learning rate and gradient norm over tokens and time",
        model="Curves",
    ),
    Documented(
        method="GET",
        path="/rounds",
        gives="what happened in the last rounds, newest first; ?block=NAME&before=TICK&limit=1 to 500",
        model="Rounds",
    ),
    Documented(method="GET", path="/rounds/{tick}", gives="the rounds that began at one tick", model="Rounds"),
    Documented(
        method="GET", path="/answers", gives="the fixed prompts, and how their answers changed", model="AnswersHistory"
    ),
    Documented(
        method="GET", path="/share", gives="what this machine gives and takes; null: not known yet", model="Share"
    ),
    Documented(method="GET", path="/metrics", gives="the status as Prometheus metrics, as text"),
    Documented(method="GET", path="/live", gives="that the daemon answers; a restart is the remedy where it does not"),
    Documented(
        method="GET", path="/health", gives="whether the peer does what it is there for; 503 if not", model="Health"
    ),
    Documented(method="GET", path="/limits", gives="the limits: each with value, unit, default and meaning"),
    Documented(method="GET", path="/paths", gives="this table", model="Paths"),
    Documented(
        method="POST",
        path="/ask",
        gives='asks the swarm; {"prompt", "max_tokens", "temperature"} in, a line of JSON for each piece out, then '
        '{"end"} or {"error"}',
        model="Piece",
    ),
    Documented(method="POST", path="/limits", gives="changes the limits that a JSON object names; answers as GET"),
    Documented(method="POST", path="/pause", gives="stops training; the peer goes on serving"),
    Documented(method="POST", path="/resume", gives="trains again"),
    Documented(method="POST", path="/leave", gives="hands over, saves, and ends the daemon"),
    Documented(method="POST", path="/revocations", gives="reads the list of revoked invitations again"),
)

Handler = Callable[[Request], Awaitable[Any]]  # → something to call with scope, receive and send: a response


def routes_of(handlers: Mapping[tuple[str, str], Handler]) -> list[Route]:
    """Return a route for each row of `PATHS`, from its method and path → what answers it."""
    undocumented = handlers.keys() - {(row.method, row.path) for row in PATHS}
    assert not undocumented, f"paths without a row: {undocumented}"
    return [Route(row.path, handlers[row.method, row.path], methods=[row.method]) for row in PATHS]
