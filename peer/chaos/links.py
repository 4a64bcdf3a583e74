"""A network of slow, long and lossy links on one machine: a network namespace for each peer, joined by a switch.

    with open_links([Link(up_mbit=20, down_mbit=20, delay_ms=50)] * 4) as links:
        subprocess.Popen(links.peers[0].command("python", "-m", "…"))

The kernel at hand may have no `netem`, so rate, delay and loss are those of a relay in user space (`relay.c`, compiled
here), which is the switch as well. One shell owns namespaces and relay, and removes both, with every process that
still runs in there, when its input ends: at the end of the `with`, or when whoever opened it was killed.

Needs root, `ip` and a C compiler; takes no address and no device of the machine's own network.
"""

import ctypes
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from configs.errors import ShoalError, UsageError

CLONE_NEWNET = 0x40000000
HANG_S = 60.0  # for a tool that answers at once
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
    """How a peer is connected. Delay, jitter and loss are of what it sends; a round trip has those of both ends."""

    up_mbit: float | None = None  # megabits a second, with Ethernet headers; None: no limit
    down_mbit: float | None = None
    delay_ms: float = 0.0
    loss: float = 0.0  # share of the frames
    jitter_ms: float = 0.0  # up to which the delay of each frame grows; none overtakes another

    def words(self) -> list[str]:
        """Return it as the relay takes it."""
        rates = [f"{1e6 * (mbit or 0.0):.0f}" for mbit in (self.up_mbit, self.down_mbit)]
        return [*rates, f"{1e3 * self.delay_ms:.0f}", f"{1e3 * self.jitter_ms:.0f}", f"{1e6 * self.loss:.3f}"]


# Links by name, as people have them; each is here for what it does to a round.
NAMED = {
    # None of the faults below should be the link's: rounds are bound by the machines.
    "lan": Link(),
    # The usual peer at home: fast enough for anything, but packets bunch when a neighbour's network talks.
    "good wifi": Link(up_mbit=80, down_mbit=150, delay_ms=3, jitter_ms=8, loss=0.001),
    # Its way up is a fifth of its way down: who sends an offer to all members fills it first.
    "dsl": Link(up_mbit=10, down_mbit=50, delay_ms=15, jitter_ms=3),
    # Delays that change by more than a short cut has left, and losses that are no sign of a full line.
    "4g": Link(up_mbit=15, down_mbit=40, delay_ms=35, jitter_ms=60, loss=0.01),
    # A round trip longer than a handshake's usual patience: each step of a round that waits for an answer shows.
    "satellite": Link(up_mbit=4, down_mbit=40, delay_ms=300, jitter_ms=30, loss=0.005),
    # Nobody could work so: the peer may fall out of the groups, but must hold up nobody and come back by itself.
    "absurd": Link(up_mbit=0.3, down_mbit=0.5, delay_ms=800, jitter_ms=700, loss=0.15),
}


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

    def __init__(self, peers: list[Peer], links: Sequence[Link], owner: "subprocess.Popen[str]") -> None:
        self.peers = peers
        self._links = list(links)
        self._sides = [0] * len(peers)
        self._owner = owner

    def change(self, index: int, link: Link) -> None:
        """Let a peer's link be another one from now on; what is under way on it arrives as it would have."""
        self._links[index] = link
        self._set(index)

    def part(self, sides: Sequence[int]) -> None:
        """Let frames pass only between peers with the same number in `sides`, one for each peer."""
        for index, side in enumerate(sides):
            if self._sides[index] != side:
                self._sides[index] = side
                self._set(index)

    def move(self, index: int) -> None:
        """Give a peer another address, as a change of uplink does: its connections are dead, and nobody is told."""
        old = self.peers[index]
        number = int(old.address.split(".")[1]) + 1  # the network has 256 times as many addresses as peers
        new = replace(old, address=f"10.{number}." + old.address.split(".", 2)[2])
        lines = [f"addr del {old.address}/8 dev {DEVICE}", f"addr add {new.address}/8 dev {DEVICE}"]
        _run(_ip(), "-n", old.namespace, "-batch", "-", text="\n".join(lines) + "\n")
        self.peers[index] = new
        for other in self.peers:
            if other is not new:
                neighbour = ["neigh", "replace", new.address, "lladdr", _hardware(index), "dev", DEVICE]
                _run(_ip(), "-n", other.namespace, *neighbour, "nud", "permanent")

    def _set(self, index: int) -> None:
        words = [str(index), str(self._sides[index]), *self._links[index].words()]
        if self._say(" ".join(words)) != "set":
            raise ShoalError("the relay of the links has ended; run the schedule again")

    def _say(self, line: str) -> str:
        assert self._owner.stdin is not None and self._owner.stdout is not None
        self._owner.stdin.write(f"{line}\n")
        self._owner.stdin.flush()
        return self._owner.stdout.readline().strip()

    def counts(self) -> list[dict[str, int]]:
        """Return what the relay has done for each peer: frames and bytes, lost (by the link), dropped (queue full)."""
        counted: list[dict[str, int]] = json.loads(self._say(""))
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
        yield Links(peers, links, owner)
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
    words: list[str] = []
    for peer, link in zip(peers, links, strict=True):
        words += [peer.namespace, *link.words()]
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
    hardware = [_hardware(index) for index in range(len(peers))]
    for peer, own in zip(peers, hardware, strict=True):
        lines = [
            "link set lo up",
            f"link set {DEVICE} address {own} mtu 1500 txqueuelen 1000 addrgenmode none",
            f"addr add {peer.address}/8 dev {DEVICE}",
            f"link set {DEVICE} up",
        ]
        for other, address in zip(peers, hardware, strict=True):
            if other is not peer:
                lines.append(f"neigh replace {other.address} lladdr {address} dev {DEVICE} nud permanent")
        _run(_ip(), "-n", peer.namespace, "-batch", "-", text="\n".join(lines) + "\n")


def _hardware(index: int) -> str:
    return f"02:00:00:00:{(index + 1) >> 8:02x}:{(index + 1) & 255:02x}"


def _end(owner: "subprocess.Popen[str]") -> None:
    assert owner.stdin is not None and owner.stdout is not None and owner.stderr is not None
    with suppress(BrokenPipeError):
        owner.stdin.close()
    try:
        owner.wait(HANG_S)
    finally:
        owner.stdout.close()
        owner.stderr.close()


def enter_place(place: Peer | None) -> None:
    """Take the calling thread into a namespace, for good: the sockets that it makes belong there."""
    if place is None:
        return
    with Path(f"/run/netns/{place.namespace}").open() as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {place.namespace}")
