"""A sub-model on this rank's device: built, replicated or sharded over the ranks, copied to and from flat tensors.

One path for one device, several, and the CPU: `fully_shard` over a mesh `(replicate, shard)` whose shape alone
changes; a single rank has no mesh. Pinned to torch 2.13: the rows that a rank owns come from a private function.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from configs.run import ModelSpec
from peer.train.adapters import BASE, base_layout, map_base
from peer.train.family import layers_of
from peer.train.model import TokenLoss, build_model
from peer.train.partition import Layout

COLLECTIVE_TIMEOUT = timedelta(seconds=60)  # a rank that fails must not hang the others for longer


@dataclass(frozen=True)
class Ranks:
    """This rank's place among the ranks of the box."""

    index: int
    count: int
    device: torch.device

    def join(self, rendezvous: str) -> None:
        """Meet the other ranks at a fresh file; nothing listens on an address that others can reach."""
        if self.count > 1:
            store = FileStore(rendezvous, self.count)
            backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
            distributed.init_process_group(
                backend, store=store, rank=self.index, world_size=self.count, timeout=COLLECTIVE_TIMEOUT
            )

    def sum(self, value: float) -> float:
        """Add up a number over all ranks. Blocks until all have given theirs."""
        return self._reduce(value, distributed.ReduceOp.SUM)

    def least(self, value: float) -> float:
        """Return the smallest of the ranks' numbers. Blocks until all have given theirs."""
        return self._reduce(value, distributed.ReduceOp.MIN)

    def _reduce(self, value: float, operation: distributed.ReduceOp.RedOpType) -> float:
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(shared, operation)
        return shared.item()

    def agree(self, choice: int) -> int:
        """Return the number, or the yes or no, that rank 0 chose."""
        if self.count == 1:
            return choice
        shared = torch.tensor(int(choice))
        distributed.broadcast(shared, 0)
        return int(shared.item())

    def mesh(self, is_sharded: bool) -> DeviceMesh | None:
        """Return the mesh (replicate, shard): each rank a replica, or all ranks the shards of one; None when alone."""
        if self.count == 1:
            return None
        shape = (1, self.count) if is_sharded else (self.count, 1)
        return init_device_mesh(self.device.type, shape, mesh_dim_names=("replicate", "shard"))


def build_sharded(spec: ModelSpec, device: torch.device, mesh: DeviceMesh | None) -> TokenLoss:
    """Build a sub-model whose parameters have memory but no values yet.

    Built on the meta device and given memory layer by layer, so that no rank ever holds more than its share and
    one layer. What `to_empty` breaks is mended: the rotary frequencies, and the tie of a tied weight.
    """
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    shard = partial(fully_shard, mesh=mesh) if mesh else lambda module: module
    if spec.config is not None:
        return _built_whole(spec, device, shard)
    with torch.device("meta"):
        model: Any = build_model(spec)
    for layer in model.model.layers:
        shard(layer.to_empty(device=device))
    for module in (model.model.embed_tokens, model.model.norm, model.lm_head):
        module.to_empty(device=device)
    with device:
        model.model.rotary_emb = LlamaRotaryEmbedding(model.config)
    if spec.tie_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    loss = TokenLoss(model)
    shard(loss)
    return loss


def _built_whole(spec: ModelSpec, device: torch.device, shard: Callable[[Any], Any]) -> TokenLoss:
    """Build a model whose buffers only its family can make: each rank holds it whole for a moment."""
    with device:
        model = build_model(spec)
    for layer in layers_of(model):
        shard(layer)
    loss = TokenLoss(model)
    shard(loss)
    return loss


def fill_base(module: TokenLoss, spec: ModelSpec, path: Path) -> None:
    """Give a frozen base its values from its blob; each rank reads its own rows. Raises DataError."""
    Rows(module, base_layout(spec)).copy_in(map_base(path, spec), (BASE,))


@dataclass(frozen=True)
class Piece:
    """The rows of one parameter that this rank owns, and where they lie in the flat tensor."""

    block: str
    name: str
    values: Tensor  # a view of the parameter's own memory
    span: slice

    def of(self, flat: Tensor) -> Tensor:
        """Return these rows of `flat`, in their shape."""
        return flat[self.span].view(self.values.shape)


class Rows:
    """This rank's rows of a sub-model, copied to and from flat float32 tensors without any collective."""

    def __init__(self, module: TokenLoss, layout: Layout) -> None:
        # peft moves a matrix that it adapts one module deeper.
        parameters = {name.replace(".base_layer.", "."): value for name, value in module.model.named_parameters()}
        self.pieces = [_piece(slot.block, slot.name, parameters[slot.name], slot.offset) for slot in layout.slots]
        first = next(iter(parameters.values()))
        self.is_first_replica = not isinstance(first, DTensor) or first.device_mesh.get_local_rank("replicate") == 0

    @torch.no_grad()
    def copy_out(self, flat: Tensor) -> None:
        """Write the parameters into `flat`; of equal replicas only the first writes."""
        if self.is_first_replica:
            for piece in self.pieces:
                piece.of(flat).copy_(piece.values)

    @torch.no_grad()
    def copy_in(self, flat: Tensor, blocks: Collection[str]) -> None:
        """θ ← flat, for `blocks`."""
        for piece in self.pieces:
            if piece.block in blocks:
                piece.values.copy_(piece.of(flat))


def _piece(block: str, name: str, parameter: Tensor, offset: int) -> Piece:
    if not isinstance(parameter, DTensor):
        return Piece(block, name, parameter.detach(), slice(offset, offset + parameter.numel()))
    shape, start = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    row = parameter[0].numel() if parameter.dim() > 1 else 1
    begin = offset + start[0] * row
    values = parameter.to_local().detach()
    assert values.shape == torch.Size(shape)
    return Piece(block, name, values, slice(begin, begin + values.numel()))
