"""What processes use: CPU time and bytes at a network device, from Linux's accounts in /proc."""

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Account(NamedTuple):
    """What Linux has on a process or a thread."""

    name: str
    seconds: float  # CPU time, of a process with all its threads; to 1/100 s
    parent: int


def account(path: Path) -> Account:
    """Read the account at `path`, /proc/PID/stat or that of a thread. Raises OSError or IndexError if it is gone."""
    name, _, rest = path.read_text().partition("(")[2].rpartition(") ")
    fields = rest.split()
    return Account(name, (int(fields[11]) + int(fields[12])) / TICKS_PER_S, int(fields[1]))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process, with all its threads, has used so far; to 1/100 s."""
    return account(Path(f"/proc/{pid}/stat")).seconds


def tree(root: int) -> set[int]:
    """Return a process and everything that it started and that still runs."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parents[int(path.name)] = account(path / "stat").parent
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def tree_cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and of everything that it started and that still runs."""
    return sum(map(cpu_seconds, tree(root)))


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has held at once, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def mapped_bytes(root: int, name: str) -> int:
    """Return what the pages of files of this name take in a process and its descendants, in bytes; shared ones once."""
    total, is_of_file = 0, False
    for pid in tree(root):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
                if not line[0].isupper():  # the head of a mapping; its accounts follow
                    is_of_file = line.endswith(f"/{name}")
                elif is_of_file and line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
    return total


def anonymous_bytes(pid: int) -> int:
    """Return how much memory of its own, of no file, a process holds now."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
