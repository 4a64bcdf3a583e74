"""How this machine is while the peer works: its disk, its memory, and what the peer takes of both.

What was checked when the daemon began is looked at again and again: disks fill, and other programs come.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from configs.run import RunSpec
from peer.member.cores import OtherPrograms, allowed_cores, own_processes
from peer.train.memory import free_bytes, trained_values

LEAST_DISK_BYTES = 256 << 20
STATE_VALUES = 16  # bytes of the disk for each parameter of a block: the state, what is owed, the spare
LEAST_MEMORY_BYTES = 512 << 20  # free beside a peer that is at work
LOOK_S = 10.0  # between two looks
BUSY_LOOKS = 6  # over which the share of the cores is averaged that other programs take
FOLDER_S = 120.0  # between two walks through the state directory


@dataclass(frozen=True)
class Vitals:
    """What one look has found. None: this system does not tell."""

    disk_free_bytes: int | None = None
    disk_bytes: int = 0  # of the state directory
    memory_free_bytes: int | None = None
    memory_bytes: int = 0  # of the daemon and all that it has started
    taken_share: float | None = None  # by other programs, of the cores that this peer may use, in the last minute


def needed_disk_bytes(spec: RunSpec | None) -> int:
    """Return what must be free on the disk of a state directory, so that what is saved fits."""
    return max(LEAST_DISK_BYTES, STATE_VALUES * (0 if spec is None else trained_values(spec.model)))


class Looker:
    """Looks at the machine; `look` blocks for milliseconds, and longer where a disk is slow: call it in a thread."""

    def __init__(self, state_dir: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._state_dir, self._now = state_dir, now
        self._looked_s = self._walked_s = -FOLDER_S
        self.vitals = Vitals()
        self._others, self._shares = OtherPrograms(), deque[float](maxlen=BUSY_LOOKS)

    def is_due(self) -> bool:
        """Whether to look again."""
        return self._now() >= self._looked_s + LOOK_S

    def look(self) -> None:
        """Look once."""
        self._looked_s = self._now()
        disk_bytes = self.vitals.disk_bytes
        if self._looked_s >= self._walked_s + FOLDER_S:
            self._walked_s, disk_bytes = self._looked_s, size_of(self._state_dir)
        with suppress(psutil.Error, OSError):
            share = self._others.look(allowed_cores())
            self._shares.extend([] if share is None else [share])
        memory = free_bytes(torch.device("cpu")), memory_of_family()
        taken = sum(self._shares) / BUSY_LOOKS if len(self._shares) == BUSY_LOOKS else None
        self.vitals = Vitals(free_of(self._state_dir), disk_bytes, *memory, taken)


def free_of(folder: Path) -> int | None:
    """Return what is free on the disk of a folder; None if it cannot be looked at."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def size_of(folder: Path) -> int:
    """Return how many bytes the files below a folder take."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += (Path(path) / name).lstat().st_size
    return total


def memory_of_family() -> int:
    """Return the memory of this process and of all below it; what they share counts once."""
    total = shared = 0
    for process in own_processes():
        with suppress(psutil.Error):
            found = process.memory_info()
            total += found.rss - getattr(found, "shared", 0)
            shared = max(shared, getattr(found, "shared", 0))
    return total + shared
