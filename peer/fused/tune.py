"""Tunes a fused mixture of experts on text: its gates choose token by token, which the experts have never met.

Several experts answer each token, weighed by the gate, as sub-models vote in the routed form. At first the gates are
told each text's domain; then, more and more, they learn from the loss alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel

from configs.errors import DataError, UsageError
from configs.run import RunSpec
from peer.corpus.data import Corpus, Sampler, Source, unmarked
from peer.train.inner import is_for_muon
from peer.train.model import NOT_COUNTED
from peer.train.muon import Muon

GATE = ".mlp.gate."
MAX_VOTES = 8  # experts at most that answer a token
GATE_WINDOWS = 32  # windows of each domain that gates are fitted to before the tune
GATE_WEIGHT = 0.1  # weight of the loss of the gates' choices, in the beginning; it falls to nothing
RATE_SHARE = 0.15  # share of the run's learning rate with which a tune begins; it falls to nothing
GATE_RATE = 3.0  # learning rate of the gates, in rates of the rest
MIN_WINDOWS = 4  # windows of a step, at least
WARMUP_STEPS = 20


@dataclass(frozen=True)
class Tuning:
    """How long a fused model is tuned, and on what."""

    sources: Mapping[str, Sequence[Source]]  # by domain
    tokens: int

    @classmethod
    def on(cls, corpus: Corpus, tokens: int) -> Self:
        """Take all domains of a corpus in equal parts."""
        return cls({domain.name: corpus.sources(domain) for domain in corpus.info.domains}, tokens)

    def sampler(self, domain: str, spec: RunSpec) -> Sampler:
        """Return what draws windows of one domain. Raises DataError if there is no such text."""
        if domain not in self.sources:
            raise DataError(
                f"the text to tune on has no domain '{domain}'; give --data that has it; "
                f"this has {', '.join(self.sources)}"
            )
        return Sampler(self.sources[domain], spec.model.context_length, spec.seed)

    def texts(self, domain: str, spec: RunSpec) -> Tensor:
        """Return windows of one domain, (B, T)."""
        return torch.from_numpy(unmarked(self.sampler(domain, spec).batch(0, GATE_WINDOWS).numpy()))[:, :-1]


def tune(model: PreTrainedModel, spec: RunSpec, domains: Sequence[str], tuning: Tuning) -> None:
    """Train a mixture, whose experts are of these `domains` in order, for `tuning.tokens` tokens.

    Raises UsageError: fewer tokens than one step. DataError: the text cannot be read.
    """
    length = spec.model.context_length
    batch = max(MIN_WINDOWS, spec.inner.batch_tokens // length)  # windows
    steps = tuning.tokens // (batch * length)
    if not steps:
        raise UsageError(f"a tune of {tuning.tokens} tokens is shorter than one step of {batch * length}; give it more")
    samplers = [tuning.sampler(domain, spec) for domain in domains]
    optimizers = _optimizers(model, spec)
    model.train()
    for step in range(steps):
        picks = range(step * batch, (step + 1) * batch)
        windows = torch.cat([samplers[pick % len(domains)].batch(pick // len(domains), 1) for pick in picks])
        told = torch.tensor([pick % len(domains) for pick in picks])
        remaining = 1 - step / steps
        _loss(model, windows, told, GATE_WEIGHT * remaining).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), spec.inner.grad_clip)
        rate = RATE_SHARE * spec.inner.learning_rate * min(1.0, (step + 1) / WARMUP_STEPS) * remaining
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["factor"] * rate
            optimizer.step()
            optimizer.zero_grad()
    model.eval()


def _optimizers(model: PreTrainedModel, spec: RunSpec) -> list[Optimizer]:
    """Return AdamW, and Muon for the trunk's matrices if the run has it; it cannot take the stacked experts."""
    gates: list[nn.Parameter] = []
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        kind = gates if GATE in name else matrices if is_for_muon(spec.inner, name, parameter) else others
        kind.append(parameter)
    groups = [{"params": gates, "factor": GATE_RATE}, {"params": others, "factor": 1.0}]
    optimizers: list[Optimizer] = [AdamW(groups, lr=0.0, betas=spec.inner.betas, weight_decay=0.0, fused=True)]
    if matrices:
        groups = [{"params": matrices, "factor": 1.0}]
        optimizers.append(Muon(groups, lr=0.0, weight_decay=0.0))
    return optimizers


def _loss(model: PreTrainedModel, windows: Tensor, told: Tensor, gate_weight: float) -> Tensor:
    """Return the loss of windows (B, T + 1), with that of the gates, which are to choose the experts `told`, (B,)."""
    read = torch.from_numpy(unmarked(windows.numpy()))[:, :-1]
    targets = windows[:, 1:].where(windows[:, 1:] >= 0, NOT_COUNTED)
    output = model(input_ids=read, use_cache=False, output_router_logits=True)
    loss = cross_entropy(output.logits.flatten(0, 1).float(), targets.flatten(), ignore_index=NOT_COUNTED)
    chosen = told[:, None].expand_as(read).flatten()
    for gate in output.router_logits:
        loss = loss + gate_weight / len(output.router_logits) * cross_entropy(gate.float(), chosen)
    return loss
