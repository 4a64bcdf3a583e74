"""Looks at the machine for its owner's sake: its battery, its GPUs, its other programs. What follows is `wishes.py`'s.

Only what a limit asks for is looked at. What cannot be seen here is said, never guessed.
"""

import logging
import os
from collections.abc import Collection, Sequence
from typing import Any

import psutil

from configs.limits import RULES, Limits
from peer.member.cores import OtherPrograms, own_processes
from peer.member.wishes import Machine
from peer.train.neighbours import NAME

log = logging.getLogger(__name__)

NO_NVML = "not checked: pip install 'shoal[gpu]' (nvidia-ml-py)"
BUSY_SHARE = 10  # per cent of a GPU, from which on a program that only draws on it counts as using it


class Owner:
    """Sees how the owner uses the machine beside this peer, which trains on `devices`. Blocks: for a thread."""

    def __init__(self, devices: Sequence[str]) -> None:
        self._gpus = [int(name.partition(":")[2] or 0) for name in devices if name.startswith("cuda")]
        self._others = OtherPrograms()
        self._seen_upto: dict[int, int] = {}  # GPU → its newest sample of what draws, by NVML's own clock

    def look(self, limits: Limits) -> Machine:
        """Return what there is to see now. Others' part of the cores is that since the last look, none at the first."""
        try:
            return self._look(limits)
        except (
            OSError,
            ValueError,
            RuntimeError,
            psutil.Error,
        ) as error:  # of a system that tells odd things of itself
            log.debug("the machine cannot be looked at", exc_info=error)
            return Machine(unseen={rule: f"not checked: {error}" for rule in RULES if rule != "hours"})

    def _look(self, limits: Limits) -> Machine:
        unseen: dict[str, str] = {}
        is_on_battery, gpu_users, cpu_share = None, None, None
        if limits.pause_on_battery:
            battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
            is_on_battery = None if battery is None else battery.power_plugged is False
            if battery is None:
                unseen["pause_on_battery"] = "no battery is found here"
        if limits.pause_on_gpu_use:
            gpu_users = self._look_at_gpus(unseen)
        if limits.pause_above_cpu is not None:
            cpu_share = self._others.look()
        else:
            self._others.forget()
        return Machine(is_on_battery, gpu_users, cpu_share, unseen)

    def _look_at_gpus(self, unseen: dict[str, str]) -> tuple[str, ...] | None:
        """Return the programs of others on this peer's GPUs, or why they cannot be seen."""
        key = "pause_on_gpu_use"
        if not self._gpus:
            unseen[key] = "this peer trains on no NVIDIA GPU"
            return None
        try:
            import pynvml
        except ImportError:
            unseen[key] = NO_NVML
            return None
        try:
            pynvml.nvmlInit()
            try:
                return self._users(pynvml, {process.pid for process in own_processes()})
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            unseen[key] = f"not checked: NVIDIA's driver says: {error}"
            return None

    def _users(self, nvml: Any, own: Collection[int]) -> tuple[str, ...]:
        found: dict[int, str] = {}
        for gpu in self._gpus:
            handle = _handle(nvml, gpu)
            pids = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
            pids |= self._drawing(nvml, handle, gpu)
            for pid in pids - set(own):
                try:
                    name = psutil.Process(pid).name()
                except psutil.Error:  # it ended, or a container hides it: it may be this peer's own
                    continue
                if name != NAME:  # other peers of Shoal share a GPU as they always did
                    found[pid] = f"{name} (process {pid})"
        return tuple(found[pid] for pid in sorted(found))

    def _drawing(self, nvml: Any, handle: Any, gpu: int) -> set[int]:
        """Return the programs that draw, and do so much: a desktop is on the GPU all day."""
        drawing = {process.pid for process in nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)}
        if not drawing:
            return set()
        try:
            samples = nvml.nvmlDeviceGetProcessUtilization(handle, self._seen_upto.get(gpu, 0))
        except nvml.NVMLError:  # no sample since the last look, or this GPU keeps none
            return set()
        self._seen_upto[gpu] = max((sample.timeStamp for sample in samples), default=self._seen_upto.get(gpu, 0))
        return drawing & {sample.pid for sample in samples if sample.smUtil >= BUSY_SHARE}


def _handle(nvml: Any, index: int) -> Any:
    """Return NVML's handle of one of the GPUs that this process may see, which CUDA counts anew."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    name = visible[index] if index < len(visible) else str(index)
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)
