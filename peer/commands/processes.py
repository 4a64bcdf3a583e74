"""Daemons as child processes of this one: started, watched, killed, and never left behind. For the demo and tests."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from configs.errors import ShoalError
from configs.temporary import take_short_folder
from peer.http.local import fetch_status
from peer.http.status import Status

READY_S = 600.0  # both end a hang: on one busy core a start takes a minute
STOP_S = 300.0
POLL_S = 0.5  # between two looks at a daemon's status


class Process:
    """One daemon: its state directory outlives its processes, so it can be killed and started again."""

    def __init__(self, name: str, state_dir: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.state_dir = state_dir
        self.url = ""
        self.address = ""  # on loopback, with the peer id
        self.peer_id = ""
        self._command = [sys.executable, "-m", "peer", *command, "--state-dir", str(state_dir)]
        self._environment = {**os.environ, **environment}
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._temporary: str | None = None  # the process's TMPDIR: one that is killed leaves folders there
        self._is_wanted = False  # it was started, and neither killed nor told to leave

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._child is not None and self._child.returncode is None

    @property
    def has_ended_by_itself(self) -> bool:
        """Whether the process is gone though nobody ended it."""
        return self._is_wanted and self._child is not None and not self.is_running

    @property
    def last_line(self) -> str:
        """The last line of the log."""
        lines = self.log.strip().splitlines()
        return lines[-1].strip() if lines else "it said nothing"

    @property
    def log(self) -> str:
        """Everything that the daemon's processes wrote."""
        return (self.state_dir.parent / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    async def start(self) -> None:
        """Start the daemon and wait for its "ready". Raises ShoalError with its last line if it is not within READY_S.

        Cancelled, it leaves no process behind.
        """
        ready = asyncio.get_running_loop().create_future()
        self.url = ""  # of the process before
        self._child = None
        # Not in the state directory: the path of a socket may have only 104 characters.
        take_short_folder()
        self._temporary = self._temporary or tempfile.mkdtemp(prefix="shoal-")
        with (self.state_dir.parent / f"{self.name}.log").open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment | {"TMPDIR": self._temporary},
                start_new_session=True,
            )
        self._is_wanted = True
        self._reader = asyncio.create_task(self._read(ready))
        try:
            async with asyncio.timeout(READY_S):
                await ready
        except TimeoutError:
            await self.kill()
            raise ShoalError(f"{self.name} was not ready after {READY_S:g} s: {self.last_line}") from None
        except asyncio.CancelledError:
            await self.kill()
            raise

    async def status(self) -> Status:
        """Ask the daemon how it is. Raises ShoalError if it does not answer."""
        return await asyncio.to_thread(fetch_status, self.url)

    async def done(self) -> None:
        """Wait until the run has absorbed all its tokens."""
        while (await self.status()).phase != "done":  # noqa: ASYNC110  # of another process
            await asyncio.sleep(POLL_S)

    async def kill(self) -> None:
        """End the process at once, as a power cut would, with all its children."""
        self._is_wanted = False
        if self._child is not None and self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            with contextlib.suppress(OSError, ValueError):  # p2pd is out of the group's reach
                os.kill(int((self.state_dir / "identity.key.p2pd").read_text()), signal.SIGKILL)
        await self._ended()

    async def leave(self) -> int:
        """Ask the daemon to leave and wait until it has; returns its exit code. Kills it if it does not."""
        self._is_wanted = False
        if self._child is not None and self.is_running:
            self._child.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await self._child.wait()
            except TimeoutError:
                await self.kill()
        return await self._ended()

    async def _ended(self) -> int:
        code = 0
        if self._child is not None:
            code = await self._child.wait()
            if self._reader is not None:
                await self._reader
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        return code

    async def _read(self, ready: asyncio.Future[None]) -> None:
        assert self._child is not None and self._child.stdout is not None
        async for line in self._child.stdout:
            text = line.decode(errors="replace").strip()
            if found := re.search(r"/ip4/127\.0\.0\.1/tcp/\d+/p2p/(\w+)", text):
                self.address, self.peer_id = found[0], found[1]
            elif text.startswith("status "):
                self.url = text.removeprefix("status ")
            elif text == "ready" and not ready.done():
                ready.set_result(None)
        if not ready.done():
            ready.set_exception(ShoalError(f"{self.name} did not start: {self.last_line}"))


@asynccontextmanager
async def open_processes() -> AsyncIterator[list[Process]]:
    """Hold a list of daemons; whatever still runs in the end is killed."""
    processes: list[Process] = []
    try:
        yield processes
    finally:
        for process in processes:
            await process.kill()


def founder(folder: Path, name: str, config: str, *flags: str, **environment: str) -> Process:
    """Return a daemon that will found a run, or go on with the one in its state directory."""
    return Process(name, folder / name, ["start", "--config", config, *LOCAL, *flags], environment)


def joiner(folder: Path, name: str, address: str, *flags: str, **environment: str) -> Process:
    """Return a daemon that will join by `address` alone."""
    return Process(name, folder / name, ["join", address, *LOCAL, *flags], environment)


LOCAL = ("--host", "127.0.0.1", "--threads", "1")
