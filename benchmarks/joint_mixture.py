"""The fused architecture trained as one model in one place: what a swarm of experts could be at best.

One trunk, an expert for each domain, and every window goes to its domain's expert, which is told. All gradients come
together in every step, with the product's optimizer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.fusing_swarm import sources_of
from benchmarks.trainee import CPU, STREAMS
from configs.run import RunSpec
from peer.block.store import initial_state
from peer.corpus.data import Corpus, Sampler
from peer.train.inner import Inner, Schedule
from peer.train.model import TokenLoss
from peer.train.partition import COMMON, Layout, Strategy
from peer.train.sharded import Ranks, Rows, build_sharded


class JointLoss(nn.Module):
    """Llamas that share all but their MLPs; returns the summed loss of windows that belong to `domains`."""

    def __init__(self, experts: Sequence[TokenLoss]) -> None:
        super().__init__()
        self._experts = list(experts)
        for expert in experts[1:]:
            for name, module in expert.model.named_modules():
                for own in [key for key in module._parameters if ".mlp." not in f"{name}.{key}"]:
                    module._parameters[own] = experts[0].model.get_submodule(name)._parameters[own]
        self.model = nn.ModuleList(expert.model for expert in experts)
        self.domains: list[int] = []  # of the windows to come

    def forward(self, windows: Tensor) -> Tensor:
        total = torch.zeros(())
        for domain in sorted(set(self.domains)):
            rows = [row for row, of in enumerate(self.domains) if of == domain]
            total = total + self._experts[domain](windows[rows])
        return total


def train_joint(spec: RunSpec, corpus: Corpus, *, steps: int) -> dict[str, dict[str, Tensor]]:
    """Train `spec`, of strategy `experts`, for `steps` steps; return the named parameters of each sub-model."""
    count = len(corpus.info.domains)
    strategy = Strategy("experts", count)
    flat = initial_state(spec, strategy).phi
    layout = strategy.layout(COMMON, spec.model)
    experts = []
    for _ in range(count):
        experts.append(build_sharded(spec.model, CPU, None))
        Rows(experts[-1], layout).copy_in(flat, [COMMON])
    joint = JointLoss(experts)
    shapes = [(name, tuple(value.shape)) for name, value in joint.model.named_parameters()]
    inner = Inner(spec.inner, joint, Ranks(0, 1, CPU), is_bfloat16=False)  # type: ignore[arg-type]  # has what it needs
    inner.use(Layout.of({COMMON: shapes}), is_fresh=True)
    schedule = Schedule(spec, Strategy("replicas", 1))
    length, seed = spec.model.context_length, STREAMS * spec.seed
    samplers = [Sampler(sources_of(corpus, domain), length, seed + domain) for domain in range(count)]
    batch = spec.inner.batch_tokens // length
    for position in range(steps):
        picks = range(position * batch, (position + 1) * batch)
        joint.domains = [pick % count for pick in picks]
        windows = torch.cat([samplers[pick % count].batch(pick // count, 1) for pick in picks])
        age = (position + 1) * spec.inner.batch_tokens
        inner.step(windows, len(windows), {COMMON: schedule.rate(COMMON, age)})
    return {
        name: {key: value.detach() for key, value in expert.model.named_parameters()}
        for name, expert in zip(strategy.sub_models, experts, strict=True)
    }
