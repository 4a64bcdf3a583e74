"""Training loops in processes of their own, which are started, heard and never left behind."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.patience import HANG_S

TRAINER = Path(__file__).parent / "trainer.py"
ROOT = TRAINER.parent.parent.parent


class Loop:
    """One process of `trainer.py`, and what it says."""

    def __init__(self, log: Path, temporary: str, *arguments: object) -> None:
        self._log = log
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, TRAINER, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": temporary},
            )
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.digests: dict[int, str] = {}  # version → digest
        self.shared: set[int] = set()  # versions that a round of both has led to
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def next(self) -> dict[str, Any]:
        """Return what it says next; fails with its log when it has ended."""
        said = self._said.get(timeout=HANG_S)
        assert said is not None, f"it has ended:\n{self.log[-3000:]}"
        if "version" in said:
            self.digests[said["version"]] = said["digest"]
            if "sealed 2 of 2" in said.get("outcome", ""):
                self.shared.add(said["version"])
        return said

    def stop(self) -> dict[str, Any]:
        """Let it close, and return the last that it says."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        while "closed" not in (said := self.next()):
            pass
        assert self.process.wait(HANG_S) == 0
        return said

    def kill(self) -> None:
        """End it as a power cut would; its libp2p process ends by itself, some seconds later."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(HANG_S)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(json.loads(line))
        self._said.put(None)


@contextmanager
def open_loop(log: Path, *arguments: object) -> Iterator[Loop]:
    """Hold a loop, which is killed in the end if it has not stopped, with all that it leaves behind."""
    with TemporaryDirectory(prefix="shoal-") as temporary:  # the path of a socket may have only 104 characters
        loop = Loop(log, temporary, *arguments)
        try:
            yield loop
        finally:
            if loop.process.poll() is None:
                loop.kill()
