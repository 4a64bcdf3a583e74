"""The `p2pd` process: libp2p's host, started, found ready by its own signal, and never left behind."""

import asyncio
import errno
import ipaddress
import os
import select
import signal
import socket
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from hivemind.p2p import P2P, P2PDaemonError, P2PHandlerError, PeerID, p2p_daemon

from configs.errors import NetworkError, StateError, UsageError
from configs.files import discard, disk_errors
from dht.streams import raise_limit

START_S = 120.0  # p2pd says itself when it is ready; this only ends a start that will never come to an end
ORPHAN_S = 10  # after which p2pd ends by itself when its daemon was killed
CLOSE_S = 5.0
SETTLE_S = 1.0  # a p2pd that dies closes its connections first

# What p2pd is told of this peer: others can dial it (then it relays for them), they cannot (then it asks its relays at
# once), or it shall find out, which takes it minutes.
Reachability = Literal["public", "private", "unknown"]
FORCED: dict[Reachability, dict[str, int]] = {
    "public": {"forceReachabilityPublic": 1},
    # Without discovery the relays that it is given are all there are; with it, it waits for four candidates or 3 min.
    "private": {"forceReachabilityPrivate": 1, "relayDiscovery": 0},
    "unknown": {},
}
# For the sake of its relay (dht/relays.py). A stream is no slower: 355 against 290 MB/s, both its ends on two cores.
PROCESSORS = {"GOMAXPROCS": "1"}

# All that a call through p2pd may fail with; anything else is a mistake of ours. TimeoutError is an OSError.
FAILURES = (P2PDaemonError, P2PHandlerError, OSError, EOFError)


def _out_of_reach() -> ModuleType:
    """Return an `asyncio` whose subprocesses are sessions of their own, for the module in which hivemind starts p2pd.

    A Ctrl-C in a terminal, and a stop of a batch system, reach the whole process group. There p2pd would go first, and
    the daemon could hand nothing over any more.
    """
    own = ModuleType("asyncio")
    vars(own).update(vars(asyncio))

    def start(*command: str, env: dict[str, str], **options: Any) -> Coroutine[Any, Any, Any]:
        environment = PROCESSORS | env
        return asyncio.create_subprocess_exec(*command, env=environment, start_new_session=True, **options)

    vars(own)["subprocess"] = SimpleNamespace(**{**vars(asyncio.subprocess), "create_subprocess_exec": start})
    return own


p2p_daemon.asyncio = _out_of_reach()
P2P.FORCE_REACHABILITY_MAPPING = FORCED  # Hivemind passes on what stands here, and knows no other way for these options


class _WaitingCalls(dict[Any, asyncio.Future[Any]]):
    """Calls that wait for their answer, by id; one that was given up is not among them.

    Hivemind's reader of p2pd's answers looks here first. It ends for good when it finds a call whose time-out came in
    the same turn of the event loop as its answer, and this peer would neither hear nor be heard any more.
    """

    def __contains__(self, call_id: object) -> bool:
        call = self.get(call_id)
        return call is not None and not call.done()


class _RunningCalls(dict[Any, asyncio.Task[None]]):
    """Calls that are being answered, by id; Hivemind forgets those that were given up only here, never by itself."""

    def __setitem__(self, call_id: object, task: asyncio.Task[None]) -> None:
        super().__setitem__(call_id, task)
        task.add_done_callback(lambda done: self.pop(call_id, None))


async def start_p2pd(
    identity_path: Path,
    *,
    host: str,
    port: int,
    announce: list[str],
    relays: list[str],
    reachability: Reachability = "unknown",
) -> P2P:
    """Start p2pd for an identity and return hivemind's client of it; end it with `stop_p2pd`.

    Addresses in `announce` have no peer id, those in `relays` have one. Cancellation leaves no process behind.

    Raises NetworkError (the port is taken, it does not start), UsageError (a host that is no IP address) or StateError.
    """
    raise_limit()
    _end_orphan(_pid_file(identity_path), identity_path)
    port = check_port(host, port)
    hosts = ["0.0.0.0", "::"] if host == "::" else [host]  # libp2p takes :: for IPv6 alone
    starting = asyncio.ensure_future(
        P2P.create(
            identity_path=str(identity_path),
            host_maddrs=[f"/{'ip6' if ':' in each else 'ip4'}/{each}/tcp/{port}" for each in hosts],
            announce_maddrs=announce or None,
            use_auto_relay=bool(relays),  # without relays of ours, p2pd would ask those of the public IPFS network
            trusted_relays=relays or None,
            force_reachability=reachability,
            idle_timeout=ORPHAN_S,
            startup_timeout=START_S,
        )
    )
    try:
        p2p = await asyncio.shield(starting)
    except asyncio.CancelledError:
        with suppress(P2PDaemonError):
            await stop_p2pd(await starting, identity_path)
        raise
    except P2PDaemonError as error:
        raise NetworkError(f"libp2p does not start: {error}") from error
    control = p2p._client.control
    control._pending_calls, control._handler_tasks = _WaitingCalls(), _RunningCalls()
    for task in (control._read_task, control._write_task):  # that they broke off is said by `p2pd_broken`, in one line
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        with disk_errors(_pid_file(identity_path)):
            _pid_file(identity_path).write_text(str(p2p._child.pid))
    except StateError:
        await stop_p2pd(p2p, identity_path)
        raise
    return p2p


async def p2pd_broken(p2p: P2P) -> str:
    """Wait until p2pd ends by itself, or one of the two tasks that talk with it does; return which, in words."""
    control = p2p._client.control
    ended = asyncio.ensure_future(p2p._child.wait())
    try:
        await asyncio.wait({ended, control._read_task, control._write_task}, return_when=asyncio.FIRST_COMPLETED)
        with suppress(TimeoutError):
            return f"libp2p's process p2pd ended (exit code {await asyncio.wait_for(asyncio.shield(ended), SETTLE_S)})"
        return "the connection with libp2p's process p2pd broke off"
    finally:
        ended.cancel()


async def stop_p2pd(p2p: P2P, identity_path: Path) -> None:
    """End p2pd, by force when it does not obey within `CLOSE_S`."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await p2p.shutdown()
    except TimeoutError:
        p2p._child.kill()
        await p2p._child.wait()
    for socket_file in sockets_of(p2p):  # whoever was killed has left its own
        discard(socket_file)
    discard(_pid_file(identity_path))


async def hang_up(p2p: P2P, peer_id: PeerID) -> None:
    """Close all connections to a peer, if there are any."""
    with suppress(*FAILURES):
        async with asyncio.timeout(CLOSE_S):
            await p2p._client.disconnect(peer_id)


def sockets_of(p2p: P2P) -> list[Path]:
    """Return the files of the sockets between this process and p2pd."""
    addresses = p2p._daemon_listen_maddr, p2p._client_listen_maddr
    return [Path(str(address).removeprefix("/unix")) for address in addresses]


def _pid_file(identity_path: Path) -> Path:
    return identity_path.with_name(f"{identity_path.name}.p2pd")


def check_port(host: str, port: int) -> int:
    """Return the port that can be listened on: `port`, or for 0 a free one where both families shall have the same.

    Says what is wrong before p2pd does, which would share a port that is taken. Raises NetworkError, UsageError.
    """
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
    except ValueError:
        raise UsageError(f"the host '{host}' is no IP address; give 0.0.0.0 or one of this machine's") from None
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise NetworkError(f"port {port} is taken; end the program that uses it, or choose another") from None
            raise NetworkError(
                f"cannot listen on {host} port {port}: {error.strerror}; "
                "choose another --port, or --host of this machine"
            ) from None
        return int(probe.getsockname()[1]) if host == "::" else port


def _end_orphan(pid_file: Path, identity_path: Path) -> None:
    """End the p2pd that a killed daemon of this identity left behind: it holds the port and answers in our name."""
    try:
        pid = int(pid_file.read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):  # it is gone, or this system has no /proc and ORPHAN_S must do
        return
    if f"-id={identity_path}".encode() in arguments and arguments[0].endswith(b"p2pd"):
        with suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [], CLOSE_S)  # until its port is free
            finally:
                os.close(process)
