"""LoRA adapters on a frozen pretrained model: built in, begun, and merged into it (LoRA, 2106.09685).

The *base* is a blob: the model's parameters in its own dtype, one after the other, which every peer has as a file. It
is mapped into memory, never read as a whole. How an adapter lies in its flat block is `partition.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from configs.errors import DataError
from configs.run import AdapterSpec, ModelSpec
from peer.train.partition import Layout, adapted_modules, adapter_shapes, parameter_shapes

M = TypeVar("M", bound=nn.Module)

BASE = "base"  # the name of what is frozen, where a block's name would stand


def base_layout(spec: ModelSpec) -> Layout:
    """Return where each parameter of the frozen model lies in its blob."""
    return Layout.of({BASE: parameter_shapes(spec)})


def base_bytes(spec: ModelSpec) -> int:
    """Return the size of the blob."""
    return base_dtype(spec).itemsize * base_layout(spec).size


def base_dtype(spec: ModelSpec) -> torch.dtype:
    """Return in what the blob's values are."""
    dtype: torch.dtype = getattr(torch, "float32" if spec.adapter is None else spec.adapter.base_dtype)
    return dtype


def map_base(path: Path, spec: ModelSpec) -> Tensor:
    """Return the blob at `path` as one flat tensor, (N,), in its own dtype, whose pages are read when they are needed.

    Raises DataError: it is not there, or cut short.
    """
    if not path.is_file() or path.stat().st_size != base_bytes(spec):
        raise DataError(f"{path}, the frozen model, is missing or cut short; delete it and start again to fetch it")
    return torch.from_file(str(path), shared=False, size=base_layout(spec).size, dtype=base_dtype(spec))


def build_in(model: M, adapter: AdapterSpec, modules: Sequence[str], *, is_turned: bool = False) -> M:
    """Put peft's LoRA modules into `modules` of `model` and freeze all else; return it.

    `is_turned`: matrices are stored as (in, out).
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=adapter.rank, lora_alpha=adapter.alpha, target_modules=list(modules), fan_in_fan_out=is_turned
    )
    inject_adapter_in_model(config, model)
    return model


def is_turned(spec: ModelSpec) -> bool:
    """Say whether the model's matrices are stored as (in, out), as GPT-2's are."""
    if spec.config is None:
        return False
    from peer.train.family import matrices

    return any(matrices(spec.config).values())


def first_factors(spec: ModelSpec, seed: int) -> dict[str, Tensor]:
    """Draw the A of each adapted matrix as peft does; each B is zero, so that training begins with the base itself."""
    generator = torch.Generator().manual_seed(seed)
    factors: dict[str, Tensor] = {}
    for name, shape in adapter_shapes(spec):
        factors[name] = torch.zeros(shape)
        if ".lora_A." in name:
            bound = shape[1] ** -0.5
            factors[name].uniform_(-bound, bound, generator=generator)
    return factors


def merge(spec: ModelSpec, base: Tensor, factors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the named parameters of a plain model that computes what the base with its adapter computes."""
    assert spec.adapter is not None
    named = base_layout(spec).tensors(base)
    for module, _ in adapted_modules(spec):
        down, up = (factors[f"{module}.lora_{factor}.default.weight"] for factor in "AB")
        change = spec.adapter.scale * (up @ down)
        matrix = named[f"{module}.weight"]
        named[f"{module}.weight"] = matrix.float() + (change.T if is_turned(spec) else change)
    return named
