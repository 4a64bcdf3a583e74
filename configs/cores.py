"""How many processor cores this process may use: what the scheduler allows it, and what a container's quota leaves."""

import os
from collections.abc import Iterator
from pathlib import Path

LEAST_CORES = 0.1  # a smaller quota is not believed: nothing that Shoal does would work within it


def usable_cores(root: Path = Path("/")) -> float:
    """Return the cores that this process may keep busy: at least LEAST_CORES, and not always a whole number.

    `root` is where `proc` and `sys` are looked for.
    """
    quota = cgroup_quota(root)
    cores = float(_allowed_cores())
    return cores if quota is None else max(LEAST_CORES, min(cores, quota))


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """Return the cores that the control groups of this process grant it together; None: as many as there are.

    A group can have no more than those above it, so the smallest quota counts. In a container the path that the
    kernel tells may be the host's; then only the top of the hierarchy can be read, which there is the container's own.
    """
    quotas = [quota for group in _groups(root) for quota in (_quota_v2(group), _quota_v1(group)) if quota is not None]
    return min(quotas, default=None)


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups(root: Path) -> Iterator[Path]:
    """Yield the folders of the control groups that limit this process, each from its own group up to the top."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:  # such as "0::/user.slice" (v2) or "4:cpu,cpuacct:/docker/1f" (v1)
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts = ["sys/fs/cgroup"]
        elif "cpu" in controllers.split(","):
            mounts = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        else:
            continue
        group = Path(path.lstrip("/"))
        for mount in mounts:
            for part in (group, *group.parents):
                yield root / mount / part


def _quota_v2(group: Path) -> float | None:
    """Read `cpu.max`: the microseconds that may be used in each period, or "max", and the period."""
    words = _words(group / "cpu.max")
    return _share(*words) if len(words) == 2 else None


def _quota_v1(group: Path) -> float | None:
    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")
    return _share(quota[0], period[0]) if quota and period else None


def _share(quota: str, period: str) -> float | None:
    """Return quota / period; None where there is no limit, which v1 writes as -1 and v2 as max."""
    try:
        used_us, period_us = int(quota), int(period)
    except ValueError:
        return None
    return used_us / period_us if used_us > 0 and period_us > 0 else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split()
    except OSError:
        return []
