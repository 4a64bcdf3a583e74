"""Finds and talks to the daemon of a state directory. Standard library only, so that commands answer at once.

A daemon holds a lock on its state directory for as long as it lives and writes `daemon.json` beside it: where its
HTTP server listens. The lock is what counts; a `daemon.json` that outlived its daemon is recognised by it.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from configs.errors import NetworkError, StateError, UsageError
from configs.files import discard, write_json

if TYPE_CHECKING:
    from urllib.error import HTTPError

    from pydantic import BaseModel

    from peer.http.history import Rounds
    from peer.http.status import Status

M = TypeVar("M", bound="BaseModel")

DAEMON_FILE = "daemon.json"
LOCK_FILE = "daemon.lock"
MAX_ANSWER_BYTES = 16 << 20
TIMEOUT_S = 5.0
OTHER_DAEMON = "check the address, or install one version on both"
ACTION_S = 600.0  # for a pause: the step that goes on ends first, and steps may be long


@dataclass(frozen=True)
class LocalDaemon:
    """A running daemon of this machine."""

    pid: int
    url: str  # of its HTTP server, without a trailing slash
    peer_id: str


@contextlib.contextmanager
def hold_state_dir(state_dir: Path) -> Iterator[None]:
    """Make `state_dir`, readable by its owner only, and hold its lock; afterwards nobody finds a daemon in it.

    Raises StateError: another daemon holds it, or the directory cannot be made or written.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (state_dir / LOCK_FILE).open("a")
    except OSError as error:
        raise StateError(
            f"the state directory {state_dir} cannot be used ({error.strerror}); choose another with --state-dir"
        ) from None
    with lock:
        if not _try_lock(lock, fcntl.LOCK_EX):
            raise StateError(f"{_running(state_dir)} uses {state_dir}; give this one another with --state-dir")
        discard(state_dir / DAEMON_FILE)  # of a daemon that was killed
        try:
            yield
        finally:
            discard(state_dir / DAEMON_FILE)


def announce_daemon(state_dir: Path, url: str, peer_id: str) -> None:
    """Say where the daemon of this process answers; needs `hold_state_dir`. Raises StateError if it cannot."""
    daemon = LocalDaemon(os.getpid(), url.rstrip("/"), peer_id)
    write_json(state_dir / DAEMON_FILE, asdict(daemon))


def find_daemon(state_dir: Path) -> LocalDaemon:
    """Return the daemon of `state_dir`. Raises StateError: there is none, or it has only begun to start."""
    if not holds(state_dir):
        raise StateError(f"no daemon runs in {state_dir}; begin one with `shoal start` or name its --state-dir")
    daemon = _read_daemon(state_dir)
    if daemon is None:
        raise StateError(f"the daemon of {state_dir} is still starting; ask again in a few seconds")
    return daemon


def wait_until_gone(state_dir: Path) -> None:
    """Block until no daemon holds `state_dir`; the kernel tells when the lock is free."""
    with contextlib.suppress(FileNotFoundError), (state_dir / LOCK_FILE).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)


def url_of(where: str | Path) -> str:
    """Return the address of a daemon's HTTP server, given by itself (`http://…`) or by a state directory."""
    text = str(where)
    if "://" not in text:
        return find_daemon(Path(text)).url
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"'{text}' is not an address of a daemon; it looks like http://127.0.0.1:8080")
    return f"{parts.scheme}://{parts.netloc}"


def fetch_status(where: str | Path) -> "Status":
    """Return what the daemon at a state directory or URL says of itself and of its swarm.

    Raises StateError (no daemon there), NetworkError (it does not answer, or is no Shoal daemon of this version).
    """
    url = url_of(where)
    answer = _request(f"{url}/status", timeout_s=TIMEOUT_S)
    from peer.http.status import Status  # pydantic, a quarter of a second: only once there is something to read

    return _as_model(Status, answer, url)


def fetch_rounds(where: str | Path, path: str) -> "Rounds":
    """Return the rounds that the daemon at a state directory or URL remembers, at `path`: /rounds, and what it takes.

    Raises as `fetch_status`; NetworkError with the daemon's reason where it has no such round.
    """
    url = url_of(where)
    answer = _request(f"{url}{path}", timeout_s=TIMEOUT_S)
    from peer.http.history import Rounds

    return _as_model(Rounds, answer, url)


def _as_model(kind: type[M], answer: bytes, url: str) -> M:
    from pydantic import ValidationError

    try:
        return kind.model_validate_json(answer)
    except ValidationError:
        raise NetworkError(f"what answers at {url} is not a Shoal daemon of this version; {OTHER_DAEMON}") from None


def post_action(where: str | Path, action: str) -> str:
    """Ask the daemon at a state directory or URL to `leave`, `pause` or `resume`; return, when it does, what it notes.

    Raises as `fetch_status`.
    """
    answer = _read(_request(f"{url_of(where)}/{action}", timeout_s=ACTION_S, body=b"{}"), where)
    return str(answer.get("note", ""))


def fetch_limits(where: str | Path) -> dict[str, Any]:
    """Return the limits of the daemon at a state directory or URL. Raises as `fetch_status`."""
    return _read(_request(f"{url_of(where)}/limits", timeout_s=TIMEOUT_S), where)


def change_limits(where: str | Path, change: Mapping[str, Any]) -> dict[str, Any]:
    """Change limits of a running daemon, None takes one away; return all of them. Raises as `fetch_status`."""
    return _read(_request(f"{url_of(where)}/limits", timeout_s=ACTION_S, body=json.dumps(change).encode()), where)


def _read(answer: bytes, where: str | Path) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NetworkError(f"what answers for {where} is not a Shoal daemon of this version; {OTHER_DAEMON}")
    return found


def _request(url: str, timeout_s: float, body: bytes | None = None) -> bytes:
    import urllib.error  # 40 ms that `--help` does not need
    import urllib.request

    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"} if body else {})
    # No proxy: it would look for our loopback address on its own machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    place = urlsplit(url).netloc
    try:
        with opener.open(request, timeout=timeout_s) as response:
            answer: bytes = response.read(MAX_ANSWER_BYTES)
            return answer
    except urllib.error.HTTPError as error:
        raise NetworkError(_refusal(error, place)) from None
    except TimeoutError:
        raise NetworkError(
            f"the daemon at {place} did not answer within {timeout_s:g} s; "
            "it may be overloaded: try again, or see its log"
        ) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise NetworkError(f"{place} did not answer within {timeout_s:g} s; check the address") from None
        if isinstance(error.reason, ConnectionRefusedError):
            raise NetworkError(f"no daemon answers at {place}; check the address, or start it again") from None
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise NetworkError(f"cannot reach {place}: {reason}; check the address") from None
    except (OSError, ValueError) as error:  # cut off in mid-answer, or not HTTP at all
        raise NetworkError(
            f"the connection to {place} broke ({type(error).__name__}); "
            "the daemon may be gone: see its log, and start it again"
        ) from None


def _refusal(error: "HTTPError", place: str) -> str:
    """Return the reason that the daemon gave, if that is what answered."""
    try:
        reason = json.loads(error.read(1 << 16))["error"]
    except (OSError, ValueError, LookupError, TypeError):
        return f"{place} answered {error.code} {error.reason}; it may not be a Shoal daemon: check the address"
    return f"the daemon at {place} refuses: {reason}"


def _try_lock(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def holds(state_dir: Path) -> bool:
    """Return whether a daemon holds `state_dir`. Raises StateError if that cannot be read."""
    try:
        with (state_dir / LOCK_FILE).open() as lock:
            return not _try_lock(lock, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateError(f"the state directory {state_dir} cannot be read: {error.strerror}; see who owns it") from None


def _read_daemon(state_dir: Path) -> LocalDaemon | None:
    try:
        facts = json.loads((state_dir / DAEMON_FILE).read_bytes())
        return LocalDaemon(int(facts["pid"]), str(facts["url"]), str(facts["peer_id"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _running(state_dir: Path) -> str:
    daemon = _read_daemon(state_dir)
    return "another daemon" if daemon is None else f"a daemon (process {daemon.pid}, {daemon.url})"
