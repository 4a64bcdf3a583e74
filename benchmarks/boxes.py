"""Boxes: child processes, each in its own place on the network, with what they said, trained and used.

A box is a Shoal daemon or a peer of the baseline. Its place is a network namespace of `links.py`, or loopback.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pacing import LOG, PERIOD
from benchmarks.patience import HANG_S, until
from benchmarks.usage import TICKS_PER_S, account, tree, tree_cpu_seconds
from configs.errors import ShoalError
from peer.chaos.links import Peer, enter_place
from peer.http.local import fetch_status
from peer.http.status import Status

MICRO = Path(__file__).parents[1] / "tests" / "swarm" / "micro.toml"  # a preset that busy machines train in seconds
SHOAL = [sys.executable, "-m", "peer"]
PROGRAM = [sys.executable, "-m", "benchmarks.paced_daemon"]


class Box:
    """One child with all its descendants; what it prints lies in `folder`, and its state in a folder of its name."""

    def __init__(
        self,
        folder: Path,
        name: str,
        place: Peer | None = None,
        period_s: float = 0.0,
        behind: Sequence[str] = (),  # a command that runs the child's, such as taskset -c 0
    ) -> None:
        self.name, self.period_s = name, period_s
        self._behind = list(behind)
        self.state_dir = folder / name
        self.host = place.address if place else "127.0.0.1"
        self._place = place
        self._folder = folder
        self._steps = folder / f"{name}.steps"
        self._steps.touch()
        self._child: subprocess.Popen[bytes] | None = None
        self._inside = ThreadPoolExecutor(1, initializer=enter_place, initargs=(place,))

    def start(self, command: list[str]) -> None:
        """Run `command`, whose steps take `period_s`; see `pacing.py`."""
        environment = {**os.environ, PERIOD: str(self.period_s), LOG: str(self._steps)}
        with (
            (self._folder / f"{self.name}.out").open("wb") as out,
            (self._folder / f"{self.name}.log").open("wb") as log,
        ):
            self._child = subprocess.Popen(
                [*self._behind, *(self._place.command(*command) if self._place else command)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def found(self, config: Path, data: Path) -> None:
        """Start a daemon that founds a run."""
        own = ["--data", str(data), "--state-dir", str(self.state_dir), "--host", self.host]
        self.start([*PROGRAM, "start", "--config", str(config), *own])

    def join(self, line: str, data: Path) -> None:
        """Start a daemon that joins by the `line` that another one printed."""
        own = ["--data", str(data), "--state-dir", str(self.state_dir), "--host", self.host, "--threads", "1"]
        self.start([*PROGRAM, *line.split()[1:], *own])

    def all_said(self, pattern: str) -> list[Any]:
        """Return what the groups of `pattern` matched in the lines on its stdout; `^` is a line's beginning."""
        said = (self._folder / f"{self.name}.out").read_text(encoding="utf-8", errors="replace")
        return re.findall(pattern, said[: said.rfind("\n") + 1], re.MULTILINE)

    @property
    def log(self) -> str:
        """Everything on its stderr."""
        return (self._folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, most_s: float = HANG_S) -> str:
        """Wait for a line of its stdout in which `pattern` is found, and return its first group."""

        def look() -> list[Any]:
            is_running, said = self._is_running(), self.all_said(pattern)
            if not said and not is_running:
                raise ShoalError(f"{self.name} ended and did not say '{pattern}'; {self._last_words()}")
            return said

        said = until(look, bool, f"{self.name} to say '{pattern}'", seen=lambda _: self._last_words(), most_s=most_s)
        return str(said[0])

    def status(self) -> Status:
        """Ask the daemon how it is, again while it is too busy to say. Raises ShoalError if it ends or never does."""
        url = self.wait_for(r"^status (\S+)")

        def look() -> Status | None:
            try:
                return self._inside.submit(fetch_status, url).result()
            except ShoalError as error:
                if not self._is_running():
                    raise ShoalError(f"{self.name} ended: {error}; {self._last_words()}") from None
                return None

        found = until(look, lambda each: each is not None, f"{self.name}'s status", seen=lambda _: self._last_words())
        assert found is not None
        return found

    def status_when(self, is_so: Callable[[Status], bool], what: str, most_s: float = HANG_S) -> Status:
        """Return the first status for which `is_so` holds. Raises ShoalError with the last one if none comes."""

        def seen(status: Status) -> str:
            return f"{status.model_dump_json()}; {self._last_words()}"

        return until(self.status, is_so, f"{self.name}: {what}", seen=seen, most_s=most_s)

    @property
    def pid(self) -> int:
        """The id of its own process."""
        assert self._child is not None
        return self._child.pid

    def _is_running(self) -> bool:
        return self._child is None or self._child.poll() is None

    def _last_words(self) -> str:
        return f"its log ends with: {self.log[-2000:]}"

    def stop(self) -> None:
        """Ask it to leave; kill it, with all that it started, if it does not."""
        if self._child is None:
            return
        self._child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(HANG_S)  # it finishes its round and hands over
        self.kill()

    def kill(self) -> None:
        """End it at once, with all that it started."""
        if self._child is not None:
            for pid in tree(self._child.pid) - {self._child.pid}:  # p2pd is a group of its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        self._inside.shutdown()

    def steps(self, since: float = 0.0, until: float = float("inf")) -> np.ndarray:
        """Return the steps that ended in that time (wall clock): when, seconds of work, processor seconds. (N, 3)."""
        text = self._steps.read_text()
        lines = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
        rows = np.array([[float(word) for word in line] for line in lines]).reshape(-1, 3)
        return rows[(rows[:, 0] > since) & (rows[:, 0] <= until)]

    def steps_per_s(self, since: float, until: float) -> float:
        """Return its speed between two points in time; a step that lies across one counts by its part."""
        ended = self.steps()[:, 0]
        done = np.interp([since, until], ended, np.arange(len(ended)))
        return float(done[1] - done[0]) / (until - since)

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time so far of its own process (the main thread; its other threads) and of the rest."""
        assert self._child is not None
        used = {"main": 0.0, "threads": 0.0, "p2pd": 0.0, "children": 0.0}
        pids = tree(self._child.pid)
        for pid in pids:
            with contextlib.suppress(OSError, IndexError):
                name, seconds, _ = account(Path(f"/proc/{pid}/stat"))
                if pid != self._child.pid:
                    used["p2pd" if name == "p2pd" else "children"] += seconds
                    continue
                main = account(Path(f"/proc/{pid}/task/{pid}/stat")).seconds
                used["main"] += main
                used["threads"] += seconds - main
        return used


def shoal(*arguments: str, behind: Sequence[str] = ()) -> str:
    """Run a command of Shoal's and return what it printed. Raises ShoalError with what it said if it fails."""
    done = subprocess.run([*behind, *SHOAL, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ShoalError(f"shoal {arguments[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


def other_cpu_seconds() -> float:
    """Return the processor time so far of everything on this machine but this process and what it has started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _, _, irq, softirq, *_ = (int(field) / TICKS_PER_S for field in fields)
    return user + nice + system + irq + softirq - tree_cpu_seconds(os.getpid())


@contextmanager
def open_boxes() -> Iterator[list[Box]]:
    """Hold a list of boxes; whatever still runs in the end is killed."""
    boxes: list[Box] = []
    try:
        yield boxes
    finally:
        for box in boxes:
            box.kill()
