"""Tunes a fused Mixtral on text: its gates choose token by token, which the experts have never met.

A router that takes one expert gives it the weight 1, so the gates themselves get no gradient: they stay what
`fuse.fit_gates` made of them, and everything else learns to live with their choices.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.optim import AdamW
from transformers import MixtralForCausalLM

from configs.errors import DataError, UsageError
from configs.run import RunSpec
from peer.train.data import Corpus, Sampler, Source

GATE_WINDOWS = 32  # of each domain, that gates are fitted to
RATE_SHARE = 0.3  # of the run's learning rate, with which a tune begins; it falls to nothing
GATE = ".mlp.gate."

Progress = Callable[[int, int], None]  # (tokens done, tokens in all)


@dataclass(frozen=True)
class Tuning:
    """How long a fused model is tuned, and on what."""

    sources: Mapping[str, Sequence[Source]]  # by domain
    tokens: int

    @classmethod
    def on(cls, corpus: Corpus, tokens: int) -> Self:
        """Take all domains of a corpus in equal parts."""
        vocab_size, sources = corpus.info.vocab_size, {}
        for domain in corpus.info.domains:
            is_task = domain.task is not None
            sources[domain.name] = [
                Source(str(corpus.blob(shard.content_id)), vocab_size, shard.tokens / domain.tokens, is_task)
                for shard in domain.shards
            ]
        return cls(sources, tokens)

    def texts(self, domain: str, spec: RunSpec) -> Tensor:
        """Return windows of one domain, (B, T). Raises DataError if there is none."""
        if domain not in self.sources:
            raise DataError(f"the text to tune on has no domain '{domain}'; it has {', '.join(self.sources)}")
        windows = Sampler(self.sources[domain], spec.model.context_length, spec.seed).batch(0, GATE_WINDOWS)
        return windows.where(windows >= 0, ~windows)[:, :-1]


def tune(model: MixtralForCausalLM, spec: RunSpec, tuning: Tuning, progress: Progress | None = None) -> None:
    """Train everything but the gates for `tuning.tokens` tokens, in inner steps of the run's batch.

    Raises UsageError: fewer tokens than one step. DataError: the text cannot be read.
    """
    length, batch_tokens = spec.model.context_length, spec.inner.batch_tokens
    steps = tuning.tokens // batch_tokens
    if not steps:
        raise UsageError(f"a tune of {tuning.tokens} tokens is shorter than one step of {batch_tokens}; give it more")
    sampler = Sampler([each for sources in tuning.sources.values() for each in sources], length, spec.seed)
    learning = [parameter for name, parameter in model.named_parameters() if GATE not in name]
    optimizer = AdamW(learning, lr=0.0, betas=spec.inner.betas, weight_decay=0.0, fused=True)
    model.train()
    for step in range(steps):
        windows = sampler.batch(step, batch_tokens // length)
        labels = windows[:, 1:].where(windows[:, 1:] >= 0, -100)
        read = windows[:, :-1].where(windows[:, :-1] >= 0, ~windows[:, :-1])
        logits = model(input_ids=read, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learning, spec.inner.grad_clip)
        for group in optimizer.param_groups:
            group["lr"] = RATE_SHARE * spec.inner.learning_rate * (1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
        if progress is not None:
            progress((step + 1) * batch_tokens, steps * batch_tokens)
    model.eval()
