"""Files that are whole or absent: written beside, synced, renamed. What is in them is decided elsewhere."""

import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from configs.errors import StateError


def write_file(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Replace `path` atomically: whoever reads it, now or after a crash, finds the old content or the new.

    Raises StateError if the disk is full or refuses; the old content stays.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = f"free at least {max(1, len(data) >> 20)} MiB; the last checkpoint is intact"
            raise StateError(f"the disk that holds {path.parent} is full; {needed}") from None
        raise StateError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` atomically with readable JSON."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in `path`, or None if there is none. Raises StateError if it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read ({error}); move it away, the swarm still has what it held") from None
    if not isinstance(value, dict):
        raise StateError(f"{path} is damaged; move it away, the swarm still has what it held")
    return value


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Replace `path` atomically with a safetensors file of `tensors` and `facts`."""
    write_file(path, save(dict(tensors), dict(facts)))


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors in `path`, or None if there is none. Raises StateError if it is damaged."""
    if not path.exists():
        return None
    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError) as error:
        raise StateError(f"{path} cannot be read ({error}); move it away, the swarm still has what it held") from None


def read_bytes(path: Path) -> bytearray | None:
    """Return the content of `path`, or None if there is none."""
    try:
        return bytearray(path.read_bytes())
    except FileNotFoundError:
        return None


def same(left: Tensor, right: Tensor) -> bool:
    """Return whether two float32 tensors hold the same bits."""
    return torch.equal(left.view(torch.int32), right.view(torch.int32))
