"""Tensors in files: safetensors, written piece by piece, read into memory of their own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configs.errors import StateError
from configs.files import write_file

KINDS = {torch.float32: "F32", torch.uint8: "U8", torch.int64: "I64"}  # as safetensors calls them


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    """Replace `path` atomically with a safetensors file of `tensors` (of a type in `KINDS`) and `facts`.

    Written piece by piece: safetensors' own `save` copies everything twice.
    """
    laid: dict[str, Any] = {}
    pieces, at = [], 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):  # so that all are aligned
        piece = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
        laid[name] = {
            "dtype": KINDS[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, at + len(piece)],
        }
        pieces.append(piece)
        at += len(piece)
    header = tensors_header(laid, facts)
    write_file(path, len(header).to_bytes(8, "little"), header, *pieces)


def tensors_header(laid: Mapping[str, Any], facts: Mapping[str, str]) -> bytes:
    """Return the header of a safetensors file: where each tensor is laid, and facts; without its length before it."""
    header = json.dumps({"__metadata__": dict(facts), **laid}, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """Return the tensors and facts in `path`, or None if there is none. Raises StateError if it is damaged.

    The tensors have memory of their own: those of safetensors are the file's, and a large file is written over.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise StateError(f"{path} cannot be read ({error}); move it away, the swarm still has what it held") from None


def read_facts(path: Path) -> dict[str, str]:
    """Return the facts in `path` alone; none if there is no such file, or a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def same(left: Tensor, right: Tensor) -> bool:
    """Return whether two float32 tensors hold the same bits."""
    return torch.equal(left.view(torch.int32), right.view(torch.int32))
