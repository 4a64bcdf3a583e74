"""What the daemon needs to launch a rank. The rank's own code and imports are `worker.py`'s."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Self

from configs.errors import DeviceError
from configs.machine import BasePrecision, PeerConfig, Precision
from configs.run import ModelSpec, RunPlan

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
    precision: Precision
    micro_batch: int
    memory_gb: float | None = None  # the most that the rank may take; None: what is free
    base: Path | None = None  # the blob of the frozen model, if adapters are trained
    base_precision: BasePrecision = "own"

    @classmethod
    def first(
        cls,
        config: PeerConfig,
        plan: RunPlan,
        *,
        seed: int = 0,
        rendezvous: str = "",
        micro_batch: int = 0,
        base: Path | None = None,
    ) -> Self:
        """Return what the first of a peer's ranks is told, by the settings of its machine."""
        return cls(
            plan=plan,
            devices=devices_of(config),
            rank=0,
            rendezvous=rendezvous,
            seed=seed,
            threads=config.threads,
            precision=config.precision,
            micro_batch=micro_batch,
            memory_gb=config.memory_gb,
            base=base,
            base_precision=config.base_precision,
        )


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


def check_base_precision(config: PeerConfig, spec: ModelSpec) -> None:
    """Raise DeviceError if a frozen model is wanted in four bits where that cannot be."""
    if config.base_precision == "own":
        return
    setting = f"base_precision = {config.base_precision} (in the environment: SHOAL_PEER__BASE_PRECISION)"
    if spec.adapter is None:
        raise DeviceError(f"{setting} is of the frozen model under adapters, and this run has none; leave it out")
    if find_spec("bitsandbytes") is None:
        raise DeviceError(f"{setting} needs the package bitsandbytes; say `pip install bitsandbytes`")
    if len(devices := devices_of(config)) > 1:
        raise DeviceError(
            f"{setting} is for one device, and this peer has {len(devices)}; name one with SHOAL_PEER__DEVICES, as "
            f"""'["{devices[0]}"]'"""
        )


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
