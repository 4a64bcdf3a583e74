"""A rank's device: opened when its process starts, and what the errors are that come from it."""

import os
import resource
import sys
from typing import Literal

import torch

from configs.errors import DeviceError
from configs.limits import GB
from peer.train.launch import Setup, missing_device
from peer.train.neighbours import fair_threads


def open_device(setup: Setup) -> torch.device:
    """Set this process up for its device. Raises DeviceError when there is no such device."""
    torch.set_num_threads(setup.threads or fair_threads())
    torch.manual_seed(setup.plan.seed)
    # Ranks talk over loopback only.
    loopback = "lo" if sys.platform == "linux" else "lo0"
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    name = setup.devices[setup.rank]
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise missing_device(name) from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    if setup.memory_gb is not None:
        _limit(device, int(setup.memory_gb * GB))
    return device


def _limit(device: torch.device, most_bytes: int) -> None:
    """Let this process take no more memory: what asks for more fails, as if there were none, and nothing else does.

    Of the machine's memory only what is private counts; shared buffers and mapped files are the daemon's. (macOS
    keeps no such limit: there only the micro-batch is chosen by it.)
    """
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most_bytes / total), device)
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))


def kind_of(error: Exception) -> Literal["memory", "device", "other"]:
    """Sort an error by what helps: `memory` (a smaller micro-batch), `device` (nothing here), `other` (a restart)."""
    if isinstance(error, DeviceError):
        return "device"
    text = str(error).lower()
    is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )
    return "memory" if is_memory else "other"
