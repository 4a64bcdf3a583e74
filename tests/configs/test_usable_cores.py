from pathlib import Path

import pytest

from configs import cores
from configs.cores import LEAST_CORES, cgroup_quota, usable_cores


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """Write what the kernel would tell: /proc/self/cgroup, and `files` below /sys/fs/cgroup."""
    for name, text in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),  # the group above limits
        ("0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2.0),  # a path that a container cannot see
        ("0::/\n", {}, None),  # the top of a host has no such file
        ("0::/\n", {"cpu.max": "\n"}, None),
        ("0::/\n", {"cpu.max": "many 100000\n"}, None),
        (
            "5:memory:/m\n4:cpu,cpuacct:/docker/1f\n",
            {"cpu,cpuacct/docker/1f/cpu.cfs_quota_us": "25000", "cpu,cpuacct/docker/1f/cpu.cfs_period_us": "50000"},
            0.5,
        ),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3.0),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "300000\n"}, None),
        ("4:cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "1000\n", "cpu/cpu.cfs_period_us": "1000\n"}, None),
    ],
)
def test_the_quota_of_control_groups(cgroup: str, files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    assert cgroup_quota(machine(tmp_path, cgroup, files)) == quota


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("quota_us", "expected"), [("max", 4.0), ("800000", 4.0), ("150000", 1.5), ("1000", LEAST_CORES)]
)
def test_the_smaller_of_affinity_and_quota_counts(
    quota_us: str, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "_allowed_cores", lambda: 4)
    assert usable_cores(machine(tmp_path, "0::/\n", {"cpu.max": f"{quota_us} 100000\n"})) == expected


def test_this_machine_has_a_core() -> None:
    assert usable_cores() >= LEAST_CORES
