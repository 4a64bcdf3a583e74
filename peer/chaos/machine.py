"""What a daemon has of a machine to itself: a disk, a clock; and the processes that are its own."""

import contextlib
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from configs.errors import ShoalError

MARK = "SHOAL_CHAOS"  # in the environment of everything that a play starts; its value is the play's folder
END_S = 10.0  # for what holds a disk
SEAL_TRIES = 200  # until nobody has a file open in the moment in which it is sealed
PORTS = range(20_000, 30_000)  # on loopback: below those that systems give to connections
CLOCK_SOURCE = Path(__file__).with_name("clock.c")


class Disk:
    """A small disk, there as long as a process of ours is: it vanishes with whoever opened it, even a killed one."""

    def __init__(self, folder: Path, mib: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        script = f"mount -t tmpfs -o size={mib}m shoal-chaos '{folder}' && echo ready && cat"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._holder.stdout is not None and self._holder.stderr is not None
        if self._holder.stdout.readline().strip() != "ready":
            raise ShoalError(f"a disk of its own is not permitted here ({self._holder.stderr.read().strip()})")

    @property
    def inside(self) -> Path:
        """Where this process sees it."""
        return Path(f"/proc/{self._holder.pid}/root{self.folder}")

    @property
    def entry(self) -> str:
        """What `nsenter` needs to be told."""
        return f"--mount=/proc/{self._holder.pid}/ns/mnt"

    def fill(self) -> None:
        """Leave no room."""
        with contextlib.suppress(OSError), (self.inside / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 12))

    def free(self) -> None:
        """Give the room back."""
        (self.inside / "filler").unlink(missing_ok=True)

    def seal(self, *, is_sealed: bool) -> None:
        """Let nothing be written, or again.

        A file that is open for writing keeps a mount from becoming read-only, so another one is laid over it; and anew,
        if somebody was quick enough to open a file in that one.
        """
        place = str(self.folder)
        if not is_sealed:
            self._run("umount", place)
            return
        for tries_left in reversed(range(SEAL_TRIES)):
            self._run("mount", "--bind", place, place)
            try:
                self._run("mount", "-o", "remount,bind,ro", place)
                return
            except subprocess.CalledProcessError:
                self._run("umount", "--lazy", place)
                if not tries_left:
                    raise

    def _run(self, *command: str) -> None:
        subprocess.run(["nsenter", self.entry, *command], check=True, capture_output=True)

    def close(self) -> None:
        """Let it vanish."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(END_S)
        for pipe in (self._holder.stdout, self._holder.stderr):
            assert pipe is not None
            pipe.close()


def free_port() -> int:
    """Return a port that nobody listens at, and that no connection is given by itself while its peer is away."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ShoalError(f"no port from {PORTS[0]} to {PORTS[-1]} is free")


def left_behind(folder: Path) -> list[int]:
    """Return the processes that a play in `folder` has started and that still run."""
    wanted = f"{MARK}={folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
    return sorted(found)


def tree(root: int) -> set[int]:
    """Return a process and everything that it started and that still runs."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        children.setdefault(parent_of(int(path.name)), []).append(int(path.name))

    def below(pid: int) -> Iterator[int]:
        yield pid
        for child in children.get(pid, []):
            yield from below(child)

    return set(below(root))


def build_clock(folder: Path) -> Path:
    """Compile the clock that can be set; return the library. Raises ShoalError without a compiler."""
    library = folder / "clock.so"
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(CLOCK_SOURCE), "-ldl"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ShoalError(f"a clock that can be set needs a C compiler (make tools): {error}") from None
    return library


def _stat(pid: int) -> tuple[str, list[str]]:
    try:
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(") ")
    except OSError:
        return "", ["", "-1"]
    return name, rest.split()


def name_of(pid: int) -> str:
    """Return the name of a process's program; nothing if it is gone."""
    return _stat(pid)[0]


def parent_of(pid: int) -> int:
    """Return the process that has started a process; -1 if it is gone."""
    return int(_stat(pid)[1][1])


def command_of(pid: int) -> str:
    """Return the command line of a process; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
