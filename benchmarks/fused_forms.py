"""What becomes of trained blocks: the fused forms, a tune of the Mixtral, and a domain that comes late."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.fusing_swarm import train_late
from benchmarks.routes import DEFAULT, losses, losses_of, sub_models_of
from configs.run import RunSpec
from peer.corpus.data import Corpus
from peer.fused.mixture import build_mixture
from peer.fused.parts import Parts, build_sub_model
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.tune import Tuning, tune
from peer.train.partition import COMMON


@dataclass(frozen=True)
class LateDomain:
    """What a late domain changed: the worst ratio of another's loss, and its own loss without and with its branch."""

    name: str
    worst_ratio: float
    loss_before: float
    loss_after: float


def parts_of(spec: RunSpec, corpus: Corpus, blocks: Mapping[str, Tensor]) -> Parts:
    """Return what `fuse` gathers from a swarm."""
    return Parts(spec, blocks, corpus.all_counts(), corpus.tokenizer_json())


def mixtral_losses(parts: Parts, corpus: Corpus, tune_tokens: int, held_out: int) -> tuple[float, float]:
    """Return the mean loss of the fused Mixtral before and after a tune, gates fitted to text in both."""
    tuning = Tuning.on(corpus, tune_tokens)
    models = {name: build_sub_model(parts, name) for name in parts.sub_models}
    mixtral = build_mixture(parts, models, tuning)
    routed = RoutedModel.single(SubModelInfo(name=COMMON, domain="all"), mixtral, parts.spec.end_of_text, None)
    before = losses_of(routed, corpus, held_out)[DEFAULT]
    tune(mixtral, parts.spec, [parts.domain(name) for name in parts.sub_models], tuning)
    after = losses_of(routed, corpus, held_out)[DEFAULT]
    return fmean(before.values()), fmean(after.values())


@contextmanager
def forced(mixtral: PreTrainedModel, expert: int) -> Iterator[None]:
    """Let every gate choose `expert`, whatever its own opinion."""

    def force(module: nn.Module, inputs: object, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        logits, weights, chosen = output
        return logits, torch.full_like(weights, 1 / weights.shape[-1]), torch.full_like(chosen, expert)

    hooks = [layer.mlp.gate.register_forward_hook(force) for layer in mixtral.model.layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def largest_difference(parts: Parts) -> float:
    """Return the largest difference of a logit between the Mixtral with a forced route and that route's sub-model."""
    models = {name: build_sub_model(parts, name) for name in parts.sub_models}
    mixtral = build_mixture(parts, models)
    generator = torch.Generator().manual_seed(0)
    shape = (8, parts.spec.model.context_length)
    tokens = torch.randint(parts.spec.model.vocab_size, shape, generator=generator)
    largest = 0.0
    for index, model in enumerate(models.values()):
        with forced(mixtral, index):
            difference = (mixtral(input_ids=tokens).logits - model(input_ids=tokens).logits).abs().max()
        largest = max(largest, float(difference))
    return largest


def late_domain(
    spec: RunSpec, corpus: Corpus, wider: Corpus, blocks: Mapping[str, Tensor], held_out: int
) -> LateDomain:
    """Let the one domain that `wider` has over `corpus` join a finished swarm of branches, with its own."""
    old = [domain.name for domain in corpus.info.domains]
    names = [domain.name for domain in wider.info.domains]
    late = next(index for index, name in enumerate(names) if name not in old)
    moved = {f"branch.{names.index(name)}": blocks[f"branch.{index}"] for index, name in enumerate(old)}
    count = len(names)
    before = losses(sub_models_of(spec, moved, count), spec.model, wider, held_out, old)[DEFAULT]
    outside = losses(sub_models_of(spec, moved, count), spec.model, wider, held_out, [names[late]])[DEFAULT]
    own_tokens = (spec.total_tokens - spec.strategy.common_tokens) // count
    steps = own_tokens // spec.inner.batch_tokens
    moved[f"branch.{late}"] = train_late(spec, wider, late, blocks[COMMON], steps)
    after = losses(sub_models_of(spec, moved, count), spec.model, wider, held_out)[DEFAULT]
    worst = max(after[name] / before[name] for name in old)
    return LateDomain(names[late], worst, outside[names[late]], after[names[late]])
