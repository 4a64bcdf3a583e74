"""The inner step: AdamW or Muon with a learning rate for each block, gradients summed over micro-batches and ranks.

Also the schedule, which follows a block's age, and the watch that notices when training has gone wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer

from configs.run import InnerSpec, RunPlan
from peer.train.model import TokenLoss
from peer.train.muon import Muon
from peer.train.partition import TRUNK, Layout, Strategy
from peer.train.sharded import Ranks

RAMP_STEPS = 20  # steps over which the rate of a new optimizer rises: its moments are rough at first
JUMP_NATS = 1.5  # rise of the smoothed loss over its best that counts as a jump
SMOOTHING = 0.1  # weight of the newest loss


def learning_rate(inner: InnerSpec, age: float, total_tokens: int) -> float:
    """Return the rate at `age` tokens: a linear warm-up, then a cosine to `min_rate_share` at `total_tokens`."""
    if age < inner.warmup_tokens:
        return inner.learning_rate * age / inner.warmup_tokens
    done = min(1.0, (age - inner.warmup_tokens) / max(1, total_tokens - inner.warmup_tokens))
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return inner.learning_rate * (inner.min_rate_share + (1 - inner.min_rate_share) * cosine)


@dataclass(frozen=True)
class Schedule:
    """At which age a block is done, and its learning rate until then."""

    plan: RunPlan
    strategy: Strategy

    def last_age(self, block: str) -> int:
        """Return the age of `block` when the swarm has absorbed all tokens, shared evenly by the sub-models."""
        total, common = self.plan.total_tokens, min(self.plan.total_tokens, self.plan.strategy.common_tokens)
        return common + (total - common) // self._shares(block)

    def rate(self, block: str, age: int) -> float:
        """Return the learning rate of `block` at `age`. It does not jump when sub-models part."""
        return learning_rate(self.plan.inner, self._swarm_age(block, age), self.plan.total_tokens)

    def _swarm_age(self, block: str, age: int) -> int:
        """Return how many tokens the swarm has absorbed when `block` has `age`, if all sub-models are as old as it.

        So the rate falls with the share of all the work that is done, before the sub-models part and after.
        """
        common = min(age, self.plan.strategy.common_tokens)
        return common + (age - common) * self._shares(block)

    def _shares(self, block: str) -> int:
        """Return into how many equal parts what is trained after parting falls, of which `block` has one."""
        return 1 if block == TRUNK or self.strategy.kind == "replicas" else len(self.strategy.sub_models)


class Watch:
    """Notices a loss that is not a number, or one that jumps up and stays there."""

    def __init__(self) -> None:
        self._smooth: float | None = None
        self._best = math.inf

    def is_bad(self, loss: float) -> bool:
        """Take in the next loss, in nats per token; return whether training has diverged."""
        if not math.isfinite(loss):
            return True
        self._smooth = loss if self._smooth is None else self._smooth + SMOOTHING * (loss - self._smooth)
        self._best = min(self._best, self._smooth)
        return self._smooth > self._best + JUMP_NATS


def is_for_muon(inner: InnerSpec, name: str, parameter: Tensor) -> bool:
    """Say whether Muon trains a parameter: a matrix of a layer, in a run that has it."""
    return inner.optimizer == "muon" and ".layers." in name and parameter.dim() == 2


class Inner:
    """The optimizers of one sub-model on one rank. Their moments survive a change of anchor and of sub-model."""

    def __init__(self, inner: InnerSpec, module: TokenLoss, ranks: Ranks, is_bfloat16: bool) -> None:
        self._inner = inner
        self._module = module
        self._ranks = ranks
        self._autocast = torch.autocast(ranks.device.type, torch.bfloat16, enabled=is_bfloat16)
        self._names = {value: name for name, value in module.model.named_parameters() if value.requires_grad}
        self._optimizers: list[Optimizer] = []
        self._ramp = 0
        self.gradient_norm, self.rate = 0.0, 0.0  # of the last step: before clipping; the highest of the blocks

    def use(self, layout: Layout, *, is_fresh: bool) -> None:
        """Group the parameters by `layout`'s blocks; forget the moments if `is_fresh`. Norms do not decay."""
        old = [] if is_fresh else self._optimizers
        block_of = {slot.name: slot.block for slot in layout.slots}
        groups: dict[bool, dict[tuple[str, bool], list[nn.Parameter]]] = {False: {}, True: {}}
        for parameter, name in self._names.items():
            is_matrix = parameter.dim() > 1
            for_muon = is_for_muon(self._inner, name, parameter)
            groups[for_muon].setdefault((block_of[name], is_matrix), []).append(parameter)
        adamw, muon = (
            [
                {"params": params, "block": block, "weight_decay": self._inner.weight_decay if is_matrix else 0.0}
                for (block, is_matrix), params in groups[for_muon].items()
            ]
            for for_muon in (False, True)
        )
        rate, betas = self._inner.learning_rate, self._inner.betas
        self._optimizers = [AdamW(adamw, lr=rate, betas=betas, fused=True)]
        if muon:
            self._optimizers.append(Muon(muon, lr=rate))
        if not old:
            self._ramp = 0
        for fresh, before in zip(self._optimizers, old, strict=False):
            fresh.state.update(before.state)

    def step(self, windows: Tensor, micro_batch: int, rates: Mapping[str, float]) -> float:
        """Take one optimizer step and return its loss: `gradient`, then `update`, unless the loss is NaN."""
        loss = self.gradient(windows, micro_batch)
        if not math.isnan(loss):
            self.update(rates)
        return loss

    def gradient(self, windows: Tensor, micro_batch: int) -> float:
        """Make the gradient of the windows of all ranks; return the loss in nats per token over all of them.

        `windows` is (B, T + 1), the same on every rank; each takes its share of the rows. Only unmarked tokens
        (data.py) count. Where loss or gradient are not finite there is none, and NaN is returned. Raises
        torch.OutOfMemoryError. The parameters stay as they are.
        """
        self._module.zero_grad()
        loss = self._accumulate(windows, micro_batch, is_learnt=True)
        norm = nn.utils.clip_grad_norm_(self._module.parameters(), self._inner.grad_clip)
        total_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.gradient_norm = total_norm.item()
        if not (math.isfinite(loss) and math.isfinite(self.gradient_norm)):
            return math.nan
        for optimizer in self._optimizers:
            if isinstance(optimizer, Muon):
                optimizer.prepare()
        return loss

    @torch.no_grad()
    def score(self, windows: Tensor, micro_batch: int) -> float:
        """Return the loss of the windows of all ranks as `gradient` does, and learn nothing."""
        return self._accumulate(windows, micro_batch, is_learnt=False)

    def update(self, rates: Mapping[str, float]) -> None:
        """Change the parameters by the gradient that was made last, with a learning rate for each block.

        This alone changes them, and it is short: what is long about a step is in `gradient`.
        """
        self._ramp = min(RAMP_STEPS, self._ramp + 1)
        self.rate = max(rates.values()) * self._ramp / RAMP_STEPS
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rates[group["block"]] * self._ramp / RAMP_STEPS
            optimizer.step()
        self._module.zero_grad()

    def _accumulate(self, windows: Tensor, micro_batch: int, *, is_learnt: bool) -> float:
        """Return the mean loss over micro-batches and ranks and, if it `is_learnt`, sum its gradient."""
        counted = max(1, int((windows[:, 1:] >= 0).sum()))
        ranks, own = self._ranks, windows[self._ranks.index :: self._ranks.count]
        total = torch.zeros((), device=ranks.device)
        starts = range(0, math.ceil(len(windows) / ranks.count), micro_batch)
        for start in starts:
            rows, weight = own[start : start + micro_batch], 1.0
            if not len(rows):  # every rank must take part in every collective
                rows, weight = windows[:1], 0.0
            if isinstance(self._module, FSDPModule):
                self._module.set_requires_gradient_sync(start == starts[-1])
            with self._autocast:
                loss: Tensor = self._module(rows.to(ranks.device)) * weight
            total += loss.detach()
            if is_learnt:
                (loss * (ranks.count / counted)).backward()  # type: ignore[no-untyped-call]  # fully_shard takes the mean over the ranks
        return ranks.sum(total.item()) / counted
