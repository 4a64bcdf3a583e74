"""A network of slow, long and lossy links on one machine: a network namespace for each peer, joined by a switch.

    with open_links([Link(up_mbit=20, down_mbit=20, delay_ms=50)] * 4) as links:
        subprocess.Popen(links.peers[0].command("python", "-m", "…"))

The kernel at hand may have no `netem`, so rate, delay and loss are those of a relay in user space (`relay.c`, compiled
here), which is the switch as well. One shell owns namespaces and relay, and removes both, with every process that
still runs in there, when its input ends: at the end of the `with`, or when whoever opened it was killed.

Needs root, `ip` and a C compiler; takes no address and no device of the machine's own network.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.patience import HANG_S
from configs.errors import ShoalError, UsageError

PREFIX = "shoal-links"
SOURCE = Path(__file__).with_name("relay.c")
DEVICE = "eth0"  # of each peer; its address is in 10.0.0.0/8, which exists in the namespaces only

# $1: ip, $2: the namespaces, the rest: the relay's command line. It heeds no signal, only the end of its input, and
# so outlives whoever sends one to the whole process group.
OWNER = """
trap '' INT HUP TERM
ip=$1 names=$2; shift 2
for name in $names; do "$ip" netns add "$name" || break; done
"$@"
for name in $names; do
    pids=$("$ip" netns pids "$name" 2>/dev/null) && test -n "$pids" && kill -9 $pids 2>/dev/null
    "$ip" netns delete "$name" 2>/dev/null
done
"""

_numbers = itertools.count()


@dataclass(frozen=True)
class Link:
    """How a peer is connected. Delay and loss are of what it sends; a round trip has the delays of both ends."""

    up_mbit: float | None = None  # megabits a second, with Ethernet headers; None: no limit
    down_mbit: float | None = None
    delay_ms: float = 0.0
    loss: float = 0.0  # share of the frames


@dataclass(frozen=True)
class Peer:
    """A namespace, and its address in the network."""

    namespace: str
    address: str

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs `command` in there."""
        return [_ip(), "netns", "exec", self.namespace, *command]

    def kill_all(self) -> None:
        """Kill whatever runs in there, by its process id."""
        for pid in _run(_ip(), "netns", "pids", self.namespace).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def wire_bytes(self) -> tuple[int, int]:
        """Return what its device has received and sent so far, with Ethernet headers."""
        shown = _run(_ip(), "-n", self.namespace, "-s", "-j", "link", "show", DEVICE)
        counts = json.loads(shown)[0]["stats64"]
        return counts["rx"]["bytes"], counts["tx"]["bytes"]


class Links:
    """The network while it is up; made by `open_links`."""

    def __init__(self, peers: list[Peer], owner: "subprocess.Popen[str]") -> None:
        self.peers = peers
        self._owner = owner

    def counts(self) -> list[dict[str, int]]:
        """Return what the relay has done for each peer: frames and bytes, lost (by the link), dropped (queue full)."""
        assert self._owner.stdin is not None and self._owner.stdout is not None
        self._owner.stdin.write("\n")
        self._owner.stdin.flush()
        counted: list[dict[str, int]] = json.loads(self._owner.stdout.readline())
        return counted

    def relay_pid(self) -> int:
        """Return the relay's process id, for the account of its CPU time."""
        return int(Path(f"/proc/{self._owner.pid}/task/{self._owner.pid}/children").read_text().split()[0])


@contextmanager
def open_links(links: Sequence[Link], seed: int = 0) -> Iterator[Links]:
    """Join a peer for each of `links`, in their order. `seed` decides which frames are lost.

    Blocks for a fraction of a second at both ends; in the end whatever still runs in the namespaces is killed.
    Raises UsageError where this cannot be done, in one line.
    """
    if problem := forbidden() or lacking():
        raise UsageError(problem)
    remove_stale()
    number = next(_numbers)
    peers = [
        Peer(f"{PREFIX}-{os.getpid()}-{number}-{index}", f"10.0.{index // 250}.{index % 250 + 1}")
        for index in range(len(links))
    ]
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        relay = _compile(Path(folder))
        owner = _start(peers, [str(relay), str(seed), *_arguments(peers, links)])
    try:
        _set_up(peers)
        yield Links(peers, owner)
    finally:
        _end(owner)


@contextmanager
def open_namespaces(count: int) -> Iterator[list[str]]:
    """Hold `count` namespaces without any link; in the end they are removed as those of `open_links` are.

    Raises UsageError where this cannot be done, in one line.
    """
    if problem := forbidden():
        raise UsageError(problem)
    remove_stale()
    number = next(_numbers)
    peers = [Peer(f"{PREFIX}-{os.getpid()}-{number}-{index}", "") for index in range(count)]
    owner = _start(peers, ["sh", "-c", "echo ready; cat"])
    try:
        yield [peer.namespace for peer in peers]
    finally:
        _end(owner)


def forbidden() -> str | None:
    """Return why this machine permits no network namespaces, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root; run it as root"
    if not Path("/dev/net/tun").exists():
        return "network namespaces need /dev/net/tun, which is not here; give the container that device"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"network namespaces are not permitted here ({done.stderr.strip()})" if done.returncode else None


def lacking() -> str | None:
    """Return which tool is missing, and how to get it, or None."""
    missing = [package for tool, package in (("cc", "gcc and libc6-dev"), ("ip", "iproute2")) if not _find(tool)]
    return f"please install {' and '.join(missing)} (make tools does it on Debian)" if missing else None


def remove_stale() -> None:
    """Remove the namespaces of openers that are gone, should one and its shell have been killed together."""
    for namespace in _names():
        opener = namespace.removeprefix(f"{PREFIX}-").partition("-")[0]
        if not Path(f"/proc/{opener}").exists():
            script = OWNER.replace('"$ip" netns add "$name" || break', ":")
            subprocess.run(["sh", "-c", script, "sh", _ip(), namespace, "true"], check=False, timeout=HANG_S)


def _names() -> list[str]:
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.glob(f"{PREFIX}-*")) if folder.is_dir() else []


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _ip() -> str:
    return _find("ip") or "ip"


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=HANG_S)
    if done.returncode:
        raise ShoalError(f"{' '.join(command)[:200]} failed: {done.stderr.strip()}")
    return done.stdout


def _compile(folder: Path) -> Path:
    relay = folder / "relay"
    _run(_find("cc") or "cc", "-O2", "-Wall", "-Wextra", "-o", str(relay), str(SOURCE))
    return relay


def _arguments(peers: Sequence[Peer], links: Sequence[Link]) -> list[str]:
    words: list[Any] = []
    for peer, link in zip(peers, links, strict=True):
        rates = [f"{1e6 * (mbit or 0.0):.0f}" for mbit in (link.up_mbit, link.down_mbit)]
        words += [peer.namespace, *rates, f"{1e3 * link.delay_ms:.0f}", f"{1e6 * link.loss:.3f}"]
    return words


def _start(peers: Sequence[Peer], relay: Sequence[str]) -> "subprocess.Popen[str]":
    names = " ".join(peer.namespace for peer in peers)
    owner = subprocess.Popen(
        ["sh", "-c", OWNER, "sh", _ip(), names, *relay],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None and owner.stderr is not None
    if owner.stdout.readline().strip() != "ready":
        why = owner.stderr.read().strip()
        _end(owner)
        raise ShoalError(f"the links did not come up: {why}")
    return owner


def _set_up(peers: Sequence[Peer]) -> None:
    """Give each device its addresses. Neighbours are told, not asked for: on a wide network nobody broadcasts."""
    hardware = [f"02:00:00:00:{(index + 1) >> 8:02x}:{(index + 1) & 255:02x}" for index in range(len(peers))]
    for peer, own in zip(peers, hardware, strict=True):
        lines = [
            "link set lo up",
            f"link set {DEVICE} address {own} mtu 1500 txqueuelen 1000 addrgenmode none",
            f"addr add {peer.address}/16 dev {DEVICE}",
            f"link set {DEVICE} up",
        ]
        for other, address in zip(peers, hardware, strict=True):
            if other is not peer:
                lines.append(f"neigh replace {other.address} lladdr {address} dev {DEVICE} nud permanent")
        _run(_ip(), "-n", peer.namespace, "-batch", "-", text="\n".join(lines) + "\n")


def _end(owner: "subprocess.Popen[str]") -> None:
    assert owner.stdin is not None and owner.stdout is not None and owner.stderr is not None
    with suppress(BrokenPipeError):
        owner.stdin.close()
    try:
        owner.wait(HANG_S)
    finally:
        owner.stdout.close()
        owner.stderr.close()
