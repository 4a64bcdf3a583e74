"""What becomes of trained blocks: the fused forms, a tune of the Mixtral, and a domain that comes late."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.fusing_swarm import train_late
from benchmarks.routes import DEFAULT, losses, losses_of, sub_models_of
from configs.run import RunSpec
from peer.train.data import Corpus
from peer.train.fuse import Parts, build_mixtral, build_sub_model
from peer.train.partition import COMMON
from peer.train.routed import RoutedModel, SubModelInfo
from peer.train.router import Router
from peer.train.tune import Tuning, tune


@dataclass(frozen=True)
class LateDomain:
    """What a late domain changed: the worst ratio of another's loss, and its own loss without and with its branch."""

    name: str
    worst_ratio: float
    loss_before: float
    loss_after: float


def parts_of(spec: RunSpec, corpus: Corpus, blocks: Mapping[str, Tensor]) -> Parts:
    """Return what `fuse` gathers from a swarm."""
    counts = {domain.name: corpus.counts(domain) for domain in corpus.info.domains}
    return Parts(spec, blocks, counts, corpus.tokenizer_json())


def mixtral_losses(parts: Parts, corpus: Corpus, tune_tokens: int, held_out: int) -> tuple[float, float]:
    """Return the mean loss of the fused Mixtral before and after a tune, gates fitted to text in both."""
    tuning = Tuning.on(corpus, tune_tokens)
    models = {name: build_sub_model(parts, name) for name in parts.sub_models}
    mixtral = build_mixtral(parts, models, tuning)
    info = (SubModelInfo(name=COMMON, domain="all"),)
    router = Router(np.zeros((1, parts.spec.model.vocab_size), dtype=np.uint64))
    routed = RoutedModel(info, (mixtral,), router, parts.spec.end_of_text, None)
    before = losses_of(routed, corpus, held_out)[DEFAULT]
    tune(mixtral, parts.spec, [parts.domain(name) for name in parts.sub_models], tuning)
    after = losses_of(routed, corpus, held_out)[DEFAULT]
    return sum(before.values()) / len(before), sum(after.values()) / len(after)


@torch.no_grad()
def largest_difference(parts: Parts) -> float:
    """Return the largest difference of a logit between the Mixtral with a forced route and that route's sub-model."""
    models = {name: build_sub_model(parts, name) for name in parts.sub_models}
    mixtral = build_mixtral(parts, models)
    generator = torch.Generator().manual_seed(0)
    shape = (8, parts.spec.model.context_length)
    tokens = torch.randint(parts.spec.model.vocab_size, shape, generator=generator)
    largest = 0.0
    for index, model in enumerate(models.values()):

        def force(module: nn.Module, args: object, output: tuple[Tensor, Tensor, Tensor], k: int = index) -> object:
            logits, scores, chosen = output
            return logits, torch.ones_like(scores), torch.full_like(chosen, k)

        handles = [layer.mlp.gate.register_forward_hook(force) for layer in mixtral.model.layers]
        difference = (mixtral(input_ids=tokens).logits - model(input_ids=tokens).logits).abs().max()
        for handle in handles:
            handle.remove()
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
