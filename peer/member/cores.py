"""What other programs take of the processor's cores. What runs niced gives way, and counts for nobody."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import psutil


@dataclass(frozen=True)
class Taken:
    """What was taken of some cores since the machine began, in seconds: all time, what was busy, this peer's part."""

    all_s: float
    busy_s: float
    own_s: Mapping[int, float] = field(default_factory=dict)  # process → its seconds


class OtherPrograms:
    """Their share of the cores, from one look to the next."""

    def __init__(self) -> None:
        self._before: tuple[Collection[int] | None, Taken] | None = None

    def forget(self) -> None:
        """Let the next look be the first."""
        self._before = None

    def look(self, cores: Collection[int] | None = None) -> float | None:
        """Return the share of some cores, or of all, that others have taken since the last look at these; else None."""
        now = taken(cores)
        before, self._before = self._before, (cores, now)
        return None if before is None or before[0] != cores else share_between(before[1], now)


def share_between(before: Taken, now: Taken) -> float | None:
    """Return which share of the cores others have taken between two looks; None if no time has passed."""
    if now.all_s <= before.all_s:
        return None
    own_s = sum(spent - before.own_s.get(pid, spent) for pid, spent in now.own_s.items())
    return min(1.0, max(0.0, now.busy_s - before.busy_s - own_s) / (now.all_s - before.all_s))


def taken(cores: Collection[int] | None) -> Taken:
    """Look at some cores, or all."""
    own: dict[int, float] = {}
    for process in own_processes():
        try:
            spent, is_niced = process.cpu_times(), process.nice() > 0
        except psutil.Error:  # it ended
            continue
        own[process.pid] = spent.system + (0.0 if is_niced else spent.user)
    if cores is None:
        looked = [psutil.cpu_times()]
    else:
        looked = [times for core, times in enumerate(psutil.cpu_times(percpu=True)) if core in cores]
    all_s = busy_s = 0.0
    for times in looked:
        busy_s += times.user + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)
        all_s += sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return Taken(all_s, busy_s, own)


def own_processes() -> list[psutil.Process]:
    """Return this process and all below it."""
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def allowed_cores() -> Collection[int] | None:
    """Return the cores that this process may use now; None where the system does not say."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
