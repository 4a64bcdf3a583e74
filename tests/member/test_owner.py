"""What is seen of a machine for its owner's sake: cores and battery for real, GPUs by what their driver says."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from configs.limits import Limits
from peer.member.owner import BUSY_SHARE, NO_NVML, Owner
from peer.member.wishes import Machine

BATTERY, GPU, CPU = Limits(pause_on_battery=True), Limits(pause_on_gpu_use=True), Limits(pause_above_cpu=0.5)


def test_only_what_a_limit_asks_for_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", None)
    monkeypatch.setattr(psutil, "cpu_times", None)
    assert Owner(("cuda:0",)).look(Limits(hours="22:00-07:00")) == Machine()


@pytest.mark.parametrize(("mains", "is_on_battery"), [("1", False), ("0", True)])
def test_the_battery_as_the_kernel_tells_of_it(
    mains: str, is_on_battery: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("the files are Linux's")
    for supply, facts in {
        "BAT0": {"type": "Battery", "energy_now": "50", "energy_full": "100", "power_now": "5", "status": "Unknown"},
        "AC0": {"type": "Mains", "online": mains},
    }.items():
        (tmp_path / supply).mkdir()
        for name, value in facts.items():
            (tmp_path / supply / name).write_text(value + "\n")
    monkeypatch.setattr("psutil._pslinux.POWER_SUPPLY_PATH", str(tmp_path))
    assert Owner(("cpu",)).look(BATTERY).is_on_battery is is_on_battery


def test_without_a_battery_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None)
    machine = Owner(("cpu",)).look(BATTERY)
    assert machine.is_on_battery is None and machine.unseen == {"pause_on_battery": "no battery is found here"}


def test_a_system_that_tells_odd_things_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd() -> None:
        raise ValueError("capacity is 'n/a'")

    monkeypatch.setattr(psutil, "sensors_battery", odd)
    assert Owner(("cpu",)).look(BATTERY).unseen["pause_on_battery"] == "not checked: capacity is 'n/a'"


def cpu_times(user: float, idle: float, nice: float = 0.0) -> Any:
    return psutil._pslinux.scputimes(user, nice, 0.0, idle, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_own_work_and_what_gives_way_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten seconds of all cores 4 are used, of which 1 is this process's own; 5 more are niced."""
    own = SimpleNamespace(pid=1, nice=lambda: 0, spent=0.0)
    own.cpu_times = lambda: SimpleNamespace(user=own.spent, system=0.0)
    niced = SimpleNamespace(pid=2, nice=lambda: 5, cpu_times=lambda: SimpleNamespace(user=own.spent * 9, system=0.0))
    monkeypatch.setattr("peer.member.cores.own_processes", lambda: [own, niced])
    owner = Owner(("cpu",))
    monkeypatch.setattr(psutil, "cpu_times", lambda: cpu_times(100.0, 1000.0))
    assert owner.look(CPU).cpu_share is None, "nothing can be said at the first look"
    own.spent = 1.0
    monkeypatch.setattr(psutil, "cpu_times", lambda: cpu_times(104.0, 1001.0, nice=5.0))
    assert owner.look(CPU).cpu_share == pytest.approx(0.3)


def test_another_program_is_seen_on_the_cores_for_real() -> None:
    owner, busy = Owner(("cpu",)), [sys.executable, "-c", "while True: pass"]
    # A session of its own, adopted by nobody of ours: its parent has ended.
    started = subprocess.run(
        ["sh", "-c", '"$@" > /dev/null 2>&1 & echo $!', "sh", *busy], capture_output=True, text=True, check=True
    )
    pid = int(started.stdout)
    try:
        owner.look(CPU)
        before = sum(psutil.Process(pid).cpu_times()[:2])
        while sum(psutil.Process(pid).cpu_times()[:2]) - before < 1.0:
            time.sleep(0.05)
        share = owner.look(CPU).cpu_share
    finally:
        os.kill(pid, 9)
    assert share is not None and share > 0.0


def nvml(compute: list[int], drawing: list[int], samples: dict[int, int]) -> ModuleType:
    """Stands for NVIDIA's library, with its names."""
    module: Any = ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.asked = []
    module.nvmlInit = module.nvmlShutdown = lambda: None
    module.nvmlDeviceGetHandleByIndex = module.nvmlDeviceGetHandleByUUID = module.asked.append
    module.nvmlDeviceGetComputeRunningProcesses = lambda handle: [SimpleNamespace(pid=pid) for pid in compute]
    module.nvmlDeviceGetGraphicsRunningProcesses = lambda handle: [SimpleNamespace(pid=pid) for pid in drawing]
    module.nvmlDeviceGetProcessUtilization = lambda handle, since: [
        SimpleNamespace(pid=pid, smUtil=share, timeStamp=7) for pid, share in samples.items()
    ]
    return module


def look_at_gpu(module: ModuleType | None, monkeypatch: pytest.MonkeyPatch, *devices: str) -> Machine:
    monkeypatch.setitem(sys.modules, "pynvml", module)  # None: as if it were not installed
    return Owner(devices or ("cuda:0",)).look(GPU)


PARENT, GONE = os.getppid(), 2**22 - 1


def test_who_uses_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{psutil.Process(PARENT).name()} (process {PARENT})"
    assert look_at_gpu(nvml([PARENT, os.getpid(), GONE], [], {}), monkeypatch).gpu_users == (name,)
    assert look_at_gpu(nvml([os.getpid(), GONE], [], {}), monkeypatch).gpu_users == ()


def test_a_desktop_is_on_the_gpu_all_day_and_uses_it_when_it_draws_much(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet, busy = {PARENT: BUSY_SHARE - 1}, {PARENT: BUSY_SHARE}
    assert look_at_gpu(nvml([], [PARENT], quiet), monkeypatch).gpu_users == ()
    assert len(look_at_gpu(nvml([], [PARENT], busy), monkeypatch).gpu_users or ()) == 1


def test_gpus_are_those_that_this_process_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = nvml([], [], {})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
    look_at_gpu(module, monkeypatch, "cuda:0", "cuda:1")
    assert module.asked == [3, "GPU-abc"]


def test_what_cannot_be_seen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_at_gpu(None, monkeypatch).unseen == {"pause_on_gpu_use": NO_NVML}
    assert look_at_gpu(None, monkeypatch, "cpu").unseen == {"pause_on_gpu_use": "this peer trains on no NVIDIA GPU"}
    broken: Any = nvml([], [], {})

    def init() -> None:
        raise broken.NVMLError("Driver Not Loaded")

    broken.nvmlInit = init
    machine = look_at_gpu(broken, monkeypatch)
    assert machine.gpu_users is None
    assert machine.unseen["pause_on_gpu_use"] == "not checked: NVIDIA's driver says: Driver Not Loaded"


def test_where_there_is_no_driver_the_real_library_says_so() -> None:
    pynvml = pytest.importorskip("pynvml")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        machine = Owner(("cuda:0",)).look(GPU)
        assert machine.gpu_users is None and "not checked" in machine.unseen["pause_on_gpu_use"]
    else:
        pynvml.nvmlShutdown()
        assert Owner(("cuda:0",)).look(GPU).gpu_users is not None
