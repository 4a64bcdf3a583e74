"""How a worker's process says why it ends."""

import torch

from configs.errors import DataError, DeviceError
from peer.train.device import kind_of


def test_errors_are_sorted_by_what_helps() -> None:
    assert kind_of(DeviceError("no cuda:7")) == "device"
    assert kind_of(MemoryError()) == "memory"
    assert kind_of(torch.OutOfMemoryError("CUDA out of memory")) == "memory"
    assert kind_of(RuntimeError("DefaultCPUAllocator: can't allocate memory")) == "memory"
    assert kind_of(RuntimeError("shape mismatch")) == "other"
    assert kind_of(DataError("a token file was cut off")) == "other"
