"""What the daemon needs to launch a rank. The rank's own code and imports are `worker.py`'s."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from configs.errors import DeviceError
from configs.machine import PeerConfig
from configs.run import RunPlan

if TYPE_CHECKING:
    from torch import Tensor

MODULES = [  # what a rank needs for its first step
    "peer.train.lifeline",
    "peer.train.worker",
    "transformers.models.llama.modeling_llama",
]


@dataclass(frozen=True)
class Setup:
    """What a rank is told when it starts."""

    plan: RunPlan
    devices: tuple[str, ...]  # of all ranks
    rank: int
    rendezvous: str  # a fresh file, where the ranks meet
    seed: int  # of the order of the data; every peer has its own
    threads: int
    precision: Literal["auto", "float32", "bfloat16"]
    micro_batch: int
    base: Path | None = None  # the blob of the frozen model, if adapters are trained


def devices_of(config: PeerConfig) -> tuple[str, ...]:
    """Return the devices that a peer trains on: those it was told, or every GPU, or the CPU."""
    import torch

    return config.devices or tuple(f"cuda:{index}" for index in range(torch.cuda.device_count())) or ("cpu",)


def check_devices(devices: Sequence[str]) -> None:
    """Raise DeviceError for a GPU that this machine has not; touches none, so that no memory of them is taken."""
    import torch

    for name in devices:
        try:
            device = torch.device(name)
        except RuntimeError:
            raise missing_device(name) from None
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise missing_device(name)


def missing_device(name: str) -> DeviceError:
    """Return the error for a device that is not here."""
    import torch

    return DeviceError(
        f"no device '{name}' here; this machine has {torch.cuda.device_count()} GPUs: name one of them, as cuda:0, "
        "or cpu"
    )


def shared(size: int) -> Tensor:
    """Return a flat float32 tensor of zeros that processes can share; every page of it is touched.

    Raises DeviceError where shared memory is too small: containers have 64 MB of it unless told otherwise.
    """
    import torch

    if sys.platform == "linux":  # hivemind asks for named files instead: more processes, and left behind by a kill
        torch.multiprocessing.set_sharing_strategy("file_descriptor")  # type: ignore[no-untyped-call]
    flat = torch.empty(size)
    try:
        flat.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise DeviceError(
            f"there is no room for {4 * size / 1e6:,.1f} MB of memory to share with the workers; enlarge /dev/shm "
            f"(for a container: --shm-size), each peer of this run needs {8 * size / 1e6:,.1f} MB of it"
        ) from None
    return flat.zero_()
