"""Which parameter belongs to which block: names and shapes, laid out as flat float32 tensors.

Those of a plain Llama are known in closed form, so that the daemon does not pay for importing Transformers; a test
compares them with Transformers' own model. Those of other families are asked of it (`family.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from configs.errors import UsageError
from configs.run import ModelSpec, StrategySpec

COMMON = "model"  # the single block that everybody trains before sub-models part
TRUNK = "trunk"
REPLICA = "replica"  # the sub-model of replicas in parts, and its first block; the others are `replica.1`, …
Shapes = list[tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Slot:
    """Where one parameter lies in the flat tensor of its sub-model; `offset` counts values."""

    block: str
    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)

    @property
    def span(self) -> slice:
        """The values of the flat tensor that are this parameter's."""
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """The order of a sub-model's parameters in one flat tensor: block by block, then as the model names them."""

    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, blocks: Mapping[str, Iterable[tuple[str, tuple[int, ...]]]]) -> "Layout":
        """Lay out blocks, each given with the names and shapes of its parameters."""
        slots: list[Slot] = []
        offset = 0
        for block, shapes in blocks.items():
            for name, shape in shapes:
                slots.append(Slot(block, name, shape, offset))
                offset += slots[-1].size
        return cls(tuple(slots))

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """The blocks in their order."""
        return tuple(dict.fromkeys(slot.block for slot in self.slots))

    @cached_property
    def size(self) -> int:
        """Number of values in the flat tensor."""
        return sum(slot.size for slot in self.slots)

    def span(self, block: str) -> slice:
        """Return the values of the flat tensor that are `block`'s; they lie side by side."""
        own = [slot for slot in self.slots if slot.block == block]
        return slice(own[0].offset, own[-1].offset + own[-1].size)

    def block_size(self, block: str) -> int:
        """Return the number of values of `block`."""
        span = self.span(block)
        return int(span.stop - span.start)

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the named parameters as views, in their shapes, of the flat tensor of the whole sub-model."""
        return {slot.name: flat[slot.span].view(slot.shape) for slot in self.slots}


def parameter_shapes(spec: ModelSpec) -> Shapes:
    """List names and shapes of a model's parameters in the order of `named_parameters()`; a tied weight once."""
    if spec.module is not None:
        return [("module", (spec.module.values,))]
    if spec.config is not None:
        from peer.train.family import shapes as shapes_of  # with Transformers, which takes seconds

        return list(shapes_of(spec.config))
    hidden, mlp = spec.hidden_size, spec.mlp_size
    keys = spec.num_kv_heads * (hidden // spec.num_heads)
    shapes: Shapes = [("model.embed_tokens.weight", (spec.vocab_size, hidden))]
    for layer in range(spec.num_layers):
        prefix = f"model.layers.{layer}."
        shapes += [
            (prefix + "self_attn.q_proj.weight", (hidden, hidden)),
            (prefix + "self_attn.k_proj.weight", (keys, hidden)),
            (prefix + "self_attn.v_proj.weight", (keys, hidden)),
            (prefix + "self_attn.o_proj.weight", (hidden, hidden)),
            (prefix + "mlp.gate_proj.weight", (mlp, hidden)),
            (prefix + "mlp.up_proj.weight", (mlp, hidden)),
            (prefix + "mlp.down_proj.weight", (hidden, mlp)),
            (prefix + "input_layernorm.weight", (hidden,)),
            (prefix + "post_attention_layernorm.weight", (hidden,)),
        ]
    shapes.append(("model.norm.weight", (hidden,)))
    if not spec.tie_embeddings:
        shapes.append(("lm_head.weight", (spec.vocab_size, hidden)))
    return shapes


def adapter_shapes(spec: ModelSpec) -> Shapes:
    """List names and shapes of a Llama's LoRA factors, as peft orders and names them: A (rank, in), B (out, rank)."""
    assert spec.adapter is not None
    rank = spec.adapter.rank
    shapes: Shapes = []
    for module, (out, into) in adapted_modules(spec):
        shapes += [(f"{module}.lora_A.default.weight", (rank, into)), (f"{module}.lora_B.default.weight", (out, rank))]
    return shapes


def adapted_modules(spec: ModelSpec) -> list[tuple[str, tuple[int, ...]]]:
    """List the matrices that an adapter changes, as (out, in): all of the layers, neither embeddings nor head."""
    if spec.config is not None:
        from peer.train.family import matrices

        sizes, is_turned = dict(parameter_shapes(spec)), matrices(spec.config)
        found = [(name, sizes[f"{name}.weight"]) for name in is_turned]
        return [(name, (shape[1], shape[0]) if is_turned[name] else shape) for name, shape in found]
    return [
        (name.removesuffix(".weight"), shape)
        for name, shape in parameter_shapes(spec)
        if name.startswith("model.layers.") and len(shape) == 2
    ]


def trained_shapes(spec: ModelSpec) -> Shapes:
    """List what is trained of a sub-model: its adapter, or all of it."""
    return parameter_shapes(spec) if spec.adapter is None else adapter_shapes(spec)


@dataclass(frozen=True)
class Strategy:
    """Which blocks make up which sub-model, and which parameters belong to which block.

    Every sub-model has a block of its own name, by which its age and its holders are known.
    """

    kind: str
    num_domains: int
    parts: int = 1  # of replicas

    @classmethod
    def of(cls, spec: StrategySpec, num_domains: int) -> "Strategy":
        """Return the strategy of a run over so many domains."""
        return cls(spec.kind, num_domains, spec.parts)

    @property
    def sub_models(self) -> tuple[str, ...]:
        """The sub-models after parting; before it there is only `model`."""
        if self.kind == "replicas":
            return (COMMON,) if self.parts == 1 else (REPLICA,)
        name = {"experts": "expert", "branches": "branch", "adapters": "adapter"}[self.kind]
        return tuple(f"{name}.{domain}" for domain in range(self.num_domains))

    def blocks(self, sub_model: str) -> tuple[str, ...]:
        """Return the blocks that make up `sub_model`. Raises UsageError for a name that this strategy has not."""
        if sub_model == COMMON:
            return (COMMON,)
        if sub_model not in self.sub_models:
            raise UsageError(f"no sub-model '{sub_model}'; name one of {', '.join((COMMON, *self.sub_models))}")
        if sub_model == REPLICA:
            return (REPLICA, *(f"{REPLICA}.{part}" for part in range(1, self.parts)))
        return (TRUNK, sub_model) if self.kind == "experts" else (sub_model,)

    def domain(self, sub_model: str) -> int | None:
        """Return the index of the domain that `sub_model` trains on; None is all of them."""
        return None if self.kind == "replicas" or sub_model == COMMON else int(sub_model.rsplit(".", 1)[1])

    def domains(self, block: str) -> set[int | None]:
        """Return the indices of the domains whose offers a block may get; None is that of who trains on all of them."""
        return {self.domain(name) for name in (COMMON, *self.sub_models) if block in self.blocks(name)}

    def layout(self, sub_model: str, model: ModelSpec) -> Layout:
        """Return where each parameter of `sub_model` that is trained lies."""
        shapes = trained_shapes(model)
        return Layout.of({block: self._shapes_of(block, shapes) for block in self.blocks(sub_model)})

    def derive(self, block: str, common: Tensor, model: ModelSpec) -> Tensor:
        """Return the flat state with which `block` begins, taken from the flat state of `model` at parting."""
        shapes = trained_shapes(model)
        source = Layout.of({COMMON: shapes}).tensors(common)
        return torch.cat([source[name].reshape(-1) for name, _ in self._shapes_of(block, shapes)])

    def assemble(self, sub_model: str, blocks: Mapping[str, Tensor], model: ModelSpec) -> dict[str, Tensor]:
        """Return what is trained of `sub_model`, named and in its shapes, from its flat blocks (others are ignored)."""
        layout = self.layout(sub_model, model)
        return layout.tensors(torch.cat([blocks[block].reshape(-1) for block in layout.blocks]))

    def _shapes_of(self, block: str, shapes: Shapes) -> Shapes:
        """Keep the parameters that are `block`'s: an expert has all MLPs, the trunk the rest, others everything."""
        if block == TRUNK:
            return [(name, shape) for name, shape in shapes if ".mlp." not in name]
        if block.startswith("expert."):
            return [(name, shape) for name, shape in shapes if ".mlp." in name]
        if (part := part_of(block)) is not None:
            return even_parts(shapes, self.parts)[part]
        return shapes


def part_of(block: str) -> int | None:
    """Return which part of a replica `block` is; None if it is none."""
    if block == REPLICA:
        return 0
    return int(block.removeprefix(f"{REPLICA}.")) if block.startswith(f"{REPLICA}.") else None


def even_parts(shapes: Shapes, count: int) -> list[Shapes]:
    """Cut the list of parameters into `count` parts of about as many values, none empty and no parameter divided."""
    parts: list[Shapes] = []
    at, left = 0, sum(prod(shape) for _, shape in shapes)
    for others in range(count - 1, -1, -1):
        goal, size, begin = left / (others + 1), 0, at
        while len(shapes) - at > others and (at == begin or not others or size + prod(shapes[at][1]) / 2 <= goal):
            size += prod(shapes[at][1])
            at += 1
        parts.append(shapes[begin:at])
        left -= size
    return parts
