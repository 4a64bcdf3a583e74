"""What processes use: CPU time and bytes at a network device, from Linux's accounts in /proc."""

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process, with all its threads, has used so far; to 1/100 s."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def tree_cpu_seconds(root: int) -> float:
    """Return the CPU time of a process and of everything that it started and that still runs."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int(_stat(int(path.name))[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    tree, added = {root}, {root}
    while added := {pid for pid, parent in parents.items() if parent in added} - tree:
        tree |= added
    return sum(map(cpu_seconds, tree))


def peak_mib(pid: int) -> float:
    """Return the most memory that a process has held at once, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
