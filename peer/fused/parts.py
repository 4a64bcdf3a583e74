"""What a swarm's blocks are before they are one model: gathered, and built into sub-models, in float32."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from configs.corpus import TaskFormat
from configs.errors import DataError
from configs.run import OriginSpec, RunSpec
from peer.train.adapters import merge
from peer.train.model import build_model
from peer.train.partition import COMMON, Strategy


@dataclass(frozen=True)
class Parts:
    """What is gathered from a swarm before it is fused."""

    spec: RunSpec
    blocks: Mapping[str, Tensor]  # flat float32, in the layout of peer/train/partition.py
    counts: Mapping[str, np.ndarray]  # domain → unigram counts (V,), in the order of the domains
    tokenizer_json: bytes
    task: TaskFormat | None = None  # of the domains that are tasks
    base: Tensor | None = None  # the frozen model, flat float32, if the blocks are adapters
    ages: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # block → peer → tokens that it has put in
    files: Mapping[str, bytes] = field(default_factory=dict)  # small ones of a pretrained model (peer/train/origin.py)

    @property
    def strategy(self) -> Strategy:
        """The strategy of the run over these domains."""
        return Strategy.of(self.spec.strategy, len(self.counts))

    @property
    def sub_models(self) -> tuple[str, ...]:
        """The sub-models that exist: before they part there is only `model`."""
        parted = {block for name in self.strategy.sub_models for block in self.strategy.blocks(name)}
        return self.strategy.sub_models if parted & self.blocks.keys() else (COMMON,)

    def domain(self, sub_model: str) -> str:
        """Return the name of the domain that `sub_model` was trained on."""
        index = self.strategy.domain(sub_model)
        return "all" if index is None else list(self.counts)[index]

    def domain_counts(self, sub_model: str) -> np.ndarray:
        """Return the unigram counts (V,) of what `sub_model` was trained on."""
        tables = [count.astype(np.uint64) for count in self.counts.values()]
        index = self.strategy.domain(sub_model)
        return np.asarray(np.sum(tables, axis=0, dtype=np.uint64) if index is None else tables[index])


def build_sub_model(parts: Parts, name: str) -> PreTrainedModel:
    """Return one sub-model in float32. Raises DataError: a block is missing or has a wrong size."""
    return build_one(parts.spec, parts.strategy, parts.blocks, name, parts.base)


def build_one(
    run: RunSpec, strategy: Strategy, found: Mapping[str, Tensor], name: str, base: Tensor | None = None
) -> PreTrainedModel:
    """Return the sub-model `name` of a run in float32, from its flat blocks; adapters go into the `base`.

    Raises DataError as `named_parameters`.
    """
    spec, named = run.model, named_parameters(run, strategy, found, name)
    if spec.adapter is not None:
        if base is None:
            raise DataError("the model that the adapters were trained on is missing: fuse from a peer of the run")
        named = merge(spec, base, named)
    model = build_model(spec.model_copy(update={"adapter": None}))
    model.config.use_cache = True
    set_as_its_origin(model, run)
    return filled(model, named)


def named_parameters(run: RunSpec, strategy: Strategy, found: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return what is trained of the sub-model `name`, by the names of its parameters.

    Raises DataError: a block is missing and cannot be derived, or has a wrong size.
    """
    spec = run.model
    layout = strategy.layout(name, spec)
    blocks: dict[str, Tensor] = {}
    for block in layout.blocks:
        if block in found:
            blocks[block] = found[block]
        elif COMMON in found:
            blocks[block] = strategy.derive(block, found[COMMON], spec)
        else:
            raise DataError(f"block '{block}' is missing: fuse from a peer that holds or keeps it")
        if blocks[block].numel() != layout.block_size(block):
            raise DataError(
                f"block '{block}' has {blocks[block].numel()} values instead of {layout.block_size(block)}: "
                "it belongs to another run; fuse from peers of one run"
            )
    return strategy.assemble(name, blocks, spec)


@torch.no_grad()
def filled(model: Any, named: Mapping[str, Tensor]) -> Any:
    """Copy the values into a model's parameters; a tied weight has one name."""
    for name, parameter in model.named_parameters():
        parameter.copy_(named[name])
    return model.eval()


def set_as_its_origin(model: PreTrainedModel, run: RunSpec) -> None:
    """Set what a pretrained model says of its tokens and its context.

    Of a model that began here a text ends with the end-of-text token, and the next one begins after it.
    """
    own = OriginSpec(context_length=run.model.context_length, begin=run.end_of_text)
    origin = run.origin or own
    ends = origin.ends or (run.end_of_text,)
    model.config.max_position_embeddings = origin.context_length
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.pad_token_id = origin.begin, origin.pad
        config.eos_token_id = ends[0] if len(ends) == 1 else list(ends)
