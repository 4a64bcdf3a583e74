"""Daemons of a swarm that faults are done to: real processes, each in its own place, with all that they said.

A place may be a network namespace (`links.py`), a disk of its own, and a clock that can be set. Everything is seen from
outside: log lines as they come, `status`, and what lies in the state directory.
"""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import ShoalError
from configs.temporary import take_short_folder
from peer.chaos.links import Peer, enter_place
from peer.chaos.machine import MARK, Disk, command_of, name_of, parent_of, tree
from peer.http.local import fetch_status
from peer.http.status import Status

STEPPING = ("training", "paused", "serving")  # the states of a peer whose worker is there
LOOK_S = 0.3  # between two looks at one that begins
CALL_S = 10.0  # for a connection
END_S = 90.0  # for a daemon that was told to leave
ROUND = re.compile(
    r" peer\.member\.rounds: (\S+) round (\d+): (.*); version (\d+), age (\d+), digest (\w+), loss (\S+), (-?[\d.]+) s"
)


@dataclass(frozen=True)
class RoundLine:
    """What a daemon's log said of a round, and when the line came."""

    at: float  # wall-clock seconds
    block: str
    round: int
    outcome: str
    version: int
    age: int
    digest: str

    @property
    def is_step(self) -> bool:
        """Whether the block took its step, with others or alone."""
        return "sealed" in self.outcome or self.outcome.endswith("alone")


@dataclass(frozen=True)
class Sample:
    """What a status said."""

    at: float
    tick: int
    state: str
    rounds: int
    tokens: int
    holders: int
    warnings: tuple[str, ...]


@dataclass
class Life:
    """One process of a daemon, from its start to its end."""

    began: float
    ready: float | None = None
    ended: float | None = None
    code: int | None = None
    rounds: list[RoundLine] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    complaint: str = ""  # the one line of a daemon that gives up
    tracebacks: list[float] = field(default_factory=list)  # when each was written


class Daemon:
    """One peer of the swarm: its state directory outlives its processes."""

    def __init__(self, name: str, folder: Path, place: Peer | None, port: int, disk: Disk | None = None) -> None:
        self.name, self.place, self.disk, self.port = name, place, disk, port
        self.folder = folder
        self.state_dir = folder / name / "state"
        take_short_folder()
        self.temporary = Path(tempfile.gettempdir()) / f"shoal-{os.getpid()}-{name}"  # short, for a socket's path
        self.program = [sys.executable, "-m", "peer"]
        self.environment: dict[str, str] = {}
        self.lives: list[Life] = []
        self.peer_id = self.address = self.url = ""
        self.sockets: set[Path] = set()  # of its p2pd, seen while it ran
        self.pids: set[int] = set()  # of all its processes, seen while they ran
        self.is_asleep = False
        self._clock: Path | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._begun = asyncio.Event()  # it is ready, or it has ended
        self._inside = ThreadPoolExecutor(1, initializer=enter_place, initargs=(place,))
        self.state_dir.parent.mkdir(parents=True, exist_ok=True)

    @property
    def files(self) -> Path:
        """Where this process sees the state directory."""
        return self.disk.inside / "state" if self.disk else self.state_dir

    @property
    def host(self) -> str:
        """What the daemon listens on: everything, so that an address may change, or loopback."""
        return "0.0.0.0" if self.place else "127.0.0.1"

    @property
    def life(self) -> Life:
        """The present or last one."""
        return self.lives[-1]

    @property
    def is_running(self) -> bool:
        """Whether the daemon's own process lives."""
        return self._child is not None and self._child.returncode is None

    @property
    def pid(self) -> int:
        """The id of the daemon's own process."""
        assert self._child is not None
        return self._child.pid

    @property
    def is_ready(self) -> bool:
        """Whether it lives and has said "ready"."""
        return self.is_running and self.life.ready is not None

    @property
    def log(self) -> str:
        """Everything that its processes wrote to stderr."""
        return (self.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    def own_clock(self, library: Path) -> None:
        """From the next start on, let its clock be one that `set_clock` sets."""
        self._clock = self.state_dir.parent / "clock"
        self.set_clock(0.0)
        self.environment |= {"LD_PRELOAD": str(library), "SHOAL_CHAOS_CLOCK": str(self._clock)}

    def set_clock(self, ahead_s: float) -> None:
        """Set its clock ahead of this machine's by so many seconds."""
        assert self._clock is not None
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            file.write(struct.pack("d", ahead_s))

    async def start(self, command: list[str], program: list[str] | None = None) -> None:
        """Start a process of it; it is not ready yet. `program` runs the command instead of its own."""
        entries = [f"--net=/run/netns/{self.place.namespace}"] if self.place else []
        entries += [self.disk.entry] if self.disk else []
        behind = ["nsenter", *entries] if entries else []
        options = ["--state-dir", str(self.state_dir), "--host", self.host, "--port", str(self.port), "--threads", "1"]
        self.temporary.mkdir(exist_ok=True)
        self._begun = asyncio.Event()
        self.url, self.is_asleep = "", False
        self.lives.append(Life(time.time()))
        self._child = await asyncio.create_subprocess_exec(
            *behind, *(program or self.program), *command, *options,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self.environment, "TMPDIR": str(self.temporary), MARK: str(self.folder)},
            start_new_session=True,
        )  # fmt: skip
        self._readers = [asyncio.create_task(self._read()), asyncio.create_task(self._read_log())]

    async def begun(self, most_s: float) -> bool:
        """Wait until it is ready or has ended; return whether it is ready. Raises ShoalError when it is neither."""
        try:
            async with asyncio.timeout(most_s):
                await self._begun.wait()
        except TimeoutError:
            raise ShoalError(f"{self.name} neither began nor ended in {most_s:g} s: {self.log[-2000:]}") from None
        return self.life.ready is not None

    async def is_training(self, most_s: float) -> bool:
        """Wait until its worker has taken a step; return whether it has, and not ended instead."""
        life, deadline = self.life, time.monotonic() + most_s
        while self.is_running and time.monotonic() < deadline:
            if any(sample.state in STEPPING for sample in life.samples):
                return True
            await self.sample()
            await asyncio.sleep(LOOK_S)
        return False

    async def status(self) -> Status | None:
        """Ask it how it is; None if it does not say."""
        if not self.is_ready or self.is_asleep:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._inside, fetch_status, self.url)
        except ShoalError:
            return None

    async def connect(self, host: str, port: int) -> socket.socket:
        """Return a connection that is made from where it is. Raises OSError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._inside, socket.create_connection, (host, port), CALL_S)

    async def sample(self) -> None:
        """Take down a status, and where its p2pd has its sockets."""
        life, status = self.lives[-1] if self.lives else None, await self.status()
        if life is None or status is None or life is not self.life:
            return
        block = next(iter(status.blocks), None)
        own, holders = status.peers[0], len(block.holders) if block else 0
        said = Sample(
            time.time(), status.tick, status.state, own.rounds, own.tokens, holders, tuple(status.warnings)
        )  # fmt: skip
        life.samples.append(said)
        self.pids |= self.tree()
        for pid in self.p2pd():
            words = command_of(pid).split()
            listens = [word.partition("=")[2] for word in words if word.startswith("-listen=/unix/")]
            found = [each.removeprefix("/unix") for each in listens]
            self.sockets.update(Path(each) for each in (*found, *(e.replace("p2pd-", "p2pclient-") for e in found)))

    def left(self) -> list[str]:
        """Return the sockets, shared memory and temporary files of its processes that are still there.

        What a killed process has left is removed when the peer starts again; of one that stays away it is not counted.
        """
        if not self.lives or self.life.code == -signal.SIGKILL:
            return []
        shared = [p for p in Path("/dev/shm").glob("*") if self.pids & {int(n) for n in re.findall(r"\d+", p.name)}]
        shared = [p for p in shared if is_since(p, self.lives[0].began)]  # process ids are used again
        own = [path for path in self.temporary.iterdir() if not path.name.startswith("torchinductor")]  # torch's cache
        return [str(path) for path in (*sorted(self.sockets), *shared, *own) if path.exists()]

    def tree(self) -> set[int]:
        """Return its processes, itself first among them."""
        return tree(self._child.pid) if self._child is not None and self.is_running else set()

    def p2pd(self) -> list[int]:
        """Return its libp2p process."""
        return [pid for pid in self.tree() if name_of(pid) == "p2pd"]

    def workers(self) -> list[int]:
        """Return the processes that train: the children of the fork server."""
        pids = self.tree()
        servers = {pid for pid in pids if "multiprocessing.forkserver" in command_of(pid)}
        return [pid for pid in pids if parent_of(pid) in servers]

    def signal(self, kind: signal.Signals, pids: set[int] | list[int] | None = None) -> None:
        """Send a signal to some of its processes; without any, to its own."""
        if pids is None:
            pids = {self._child.pid} if self._child is not None and self.is_running else set()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, kind)

    async def ended(self, most_s: float = END_S) -> bool:
        """Wait for the end of its own process; return whether it came."""
        if self._child is None:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                await self._child.wait()
                await asyncio.gather(*self._readers)
                return True
        return False

    async def close(self) -> None:
        """End whatever still runs, for good."""
        if self.is_running:
            self.signal(signal.SIGKILL, self.tree())
        await self.ended()
        for reader in self._readers:  # a process that it left behind still holds its streams
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._inside.shutdown()
        if self.disk is not None:
            self.disk.close()
        shutil.rmtree(self.temporary, ignore_errors=True)

    async def _read(self) -> None:
        assert self._child is not None and self._child.stdout is not None
        life = self.life
        async for line in self._child.stdout:
            text = line.decode(errors="replace").strip()
            if text.startswith("listening on ") and not (self.place and "127.0.0.1" in text):
                self.address = text.removeprefix("listening on ")
            elif text.startswith("peer "):
                self.peer_id = text.removeprefix("peer ")
            elif text.startswith("status "):
                self.url = text.removeprefix("status ")
            elif text == "ready":
                life.ready = time.time()
                self._begun.set()
        life.code = await self._child.wait()
        life.ended = time.time()
        self._begun.set()

    async def _read_log(self) -> None:
        assert self._child is not None and self._child.stderr is not None
        life = self.life
        with (self.folder / f"{self.name}.log").open("ab", buffering=0) as log:
            async for line in self._child.stderr:
                log.write(line)
                text = line.decode(errors="replace").rstrip()
                if found := ROUND.search(text):
                    block, number, outcome, version, age, digest = found.groups()[:6]
                    life.rounds.append(
                        RoundLine(time.time(), block, int(number), outcome, int(version), int(age), digest)
                    )
                elif text.startswith("shoal: "):
                    life.complaint = text.removeprefix("shoal: ")
                elif text.startswith("Traceback"):
                    life.tracebacks.append(time.time())


def is_since(path: Path, moment: float) -> bool:
    """Say whether a file is there and was changed after a moment (wall-clock seconds)."""
    try:
        return path.stat().st_ctime >= moment
    except OSError:
        return False
