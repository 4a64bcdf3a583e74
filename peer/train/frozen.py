"""A frozen model in its own dtype, on the pages of its file: adapters are trained on it without a copy.

Matrices and embeddings stay what the file has, so that daemon and worker share its pages; each is made float32 (on a
GPU with autocast, what that computes in) for a moment where it is used, in the forward and in the backward pass alike.
What is left is small, or computes in a way of its own, and is copied as float32. The values are the same as in a model
that is float32 as a whole.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from configs.machine import BasePrecision
from configs.run import ModelSpec
from peer.train.adapters import base_layout, map_base
from peer.train.model import TokenLoss

PART_VALUES = 1 << 20  # values of a matrix that are converted at a time: 4 MiB, whatever the vocabulary


def take_base(loss: TokenLoss, spec: ModelSpec, path: Path, precision: BasePrecision = "own") -> None:
    """Let a model that was built with adapters stand on the frozen one in the file at `path`. Raises DataError.

    With the `precision` nf4 the matrices that are adapted are quantized, and stand on the file no more.
    """
    model: nn.Module = loss.model
    values = base_layout(spec).tensors(map_base(path, spec))
    # peft moves a matrix that it adapts one module deeper; a tied weight has the name under which it stands first.
    names = {parameter: name.replace(".base_layer.", ".") for name, parameter in model.named_parameters()}
    held: dict[str, Tensor] = {}  # one tensor of each name, on the device
    scratch = torch.empty(PART_VALUES, device=next(model.parameters()).device)
    for place, module in list(model.named_modules()):
        name = names.get(module.weight) if type(module) in (nn.Linear, nn.Embedding) else None
        if name not in values:
            continue
        weight = held.setdefault(name, values[name].to(module.weight.device))
        parent, _, own = place.rpartition(".")
        frozen: nn.Module
        if not isinstance(module, nn.Linear):
            frozen = FrozenEmbedding(weight)
        elif precision == "nf4" and own == "base_layer":
            frozen = FourBitLinear(held.pop(name), module.bias)
        else:
            frozen = FrozenLinear(weight, module.bias, scratch)
        setattr(model.get_submodule(parent), own, frozen)
    with torch.no_grad():
        for parameter in model.parameters():
            if names[parameter] in values:
                parameter.copy_(values[names[parameter]])


class FrozenLinear(nn.Module):
    """A matrix (out, in) that is not trained, in its own dtype, and a float32 bias.

    Groups of rows are made float32 in `scratch`, which all matrices share: of fresh memory for each the heap would keep
    more than a quarter of the model (75 MB of SmolLM2's 269).
    """

    weight: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, scratch: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.bias, self._scratch = bias, scratch
        self.out_features, self.in_features = weight.shape

    def forward(self, given: Tensor) -> Tensor:
        """Return `given` (…, in) times the matrix, (…, out)."""
        product: Tensor = _Product.apply(given, self.weight, self._scratch)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias


class FourBitLinear(nn.Module):
    """A matrix (out, in) that is not trained, in four bits: NF4, its scales in eight (QLoRA, 2305.14314, section 3)."""

    weight: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        from bitsandbytes.functional import quantize_4bit  # an extra

        super().__init__()
        packed, self._state = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
        self.register_buffer("weight", packed, persistent=False)
        self.bias = bias
        self.out_features, self.in_features = weight.shape

    def forward(self, given: Tensor) -> Tensor:
        """Return `given` (…, in) times the matrix, (…, out)."""
        from bitsandbytes import matmul_4bit  # type: ignore[attr-defined]

        product: Tensor = matmul_4bit(given, self.weight.t(), quant_state=self._state, bias=self.bias)
        return product


class FrozenEmbedding(nn.Module):
    """Rows (V, H) that are not trained, in their own dtype."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the rows of the tokens, float32."""
        return functional.embedding(tokens, self.weight).float()


class _Product(torch.autograd.Function):
    """Keeps the matrix in its own dtype for the backward pass: a float32 copy of each would be the whole model."""

    @staticmethod
    def forward(context: Any, given: Tensor, weight: Tensor, scratch: Tensor) -> Tensor:
        context.save_for_backward(weight)
        context.dtype, context.scratch = given.dtype, scratch
        kind = given.device.type
        given = given.to(torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else given.dtype)
        products = [given @ _as(given.dtype, part, scratch).T for part in _parts(weight)]
        return products[0] if len(products) == 1 else torch.cat(products, dim=-1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = context.saved_tensors
        parts = _parts(weight)
        total: Tensor | None = None
        for share, part in zip(torch.split(gradient, [len(each) for each in parts], dim=-1), parts, strict=True):
            product = share @ _as(gradient.dtype, part, context.scratch)
            total = product if total is None else total.add_(product)
        assert total is not None
        return total.to(context.dtype), None, None


def _parts(weight: Tensor) -> tuple[Tensor, ...]:
    """Return a matrix (out, in) as groups of its rows; one that is as wanted already as it is."""
    if weight.dtype == torch.float32:
        return (weight,)
    return torch.split(weight, max(1, PART_VALUES // weight.shape[1]))


def _as(dtype: torch.dtype, part: Tensor, scratch: Tensor) -> Tensor:
    """Return rows in a dtype; float32 ones stand in `scratch` until the next are asked for, if they fit."""
    if part.dtype == dtype or dtype != scratch.dtype or part.numel() > scratch.numel():
        return part.to(dtype)
    return scratch[: part.numel()].view(part.shape).copy_(part)
