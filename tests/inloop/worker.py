"""A worker that learns a known amount with each token: then "applied + owed = made" is an equation."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from peer.train.partition import COMMON, Strategy
from peer.workers.progress import Progress
from peer.workers.supervisor import Snapshot


class FakeWorkers:
    """Has the face of `peer.workers.supervisor.Workers`; θ moves by `direction` for each token.

    A step takes `step_s` of the loop's seconds. Steps are taken when somebody looks: nothing else can tell.
    """

    def __init__(self, step_s: float, batch_tokens: int, direction: Callable[[int], torch.Tensor]) -> None:
        self.progress = Progress()
        self.epoch = 0
        self.is_up, self.silent_s = True, 0.0
        self.trained = 0  # tokens, of all loads
        self.step_s = step_s
        self._batch, self._direction = batch_tokens, direction
        self._is_paused = False
        self._since = 0.0  # when the step that goes on began
        self._layout: Any = None
        self._spec: Any = None

    async def start(self, spec: Any, seed: int, base: object = None) -> None:
        size = Strategy.of(spec.strategy, 1).layout(COMMON, spec.model).size
        self.anchor, self.snapshot, self.theta = (torch.zeros(size) for _ in range(3))
        self._spec = spec
        await asyncio.sleep(0)

    async def load(
        self, strategy: Strategy, sub_model: str, sources: Sequence[object], ages: Mapping[str, int]
    ) -> None:
        while self._spec is None:  # as the real one: requests wait for the start
            await asyncio.sleep(0.01)
        self._layout = strategy.layout(sub_model, self._spec.model)
        self.progress = Progress(step_s=self.step_s, load=self.progress.load + 1)
        self.theta.copy_(self.anchor)
        self._per_token = torch.cat([self._direction(self._layout.block_size(block)) for block in self._layout.blocks])
        self.epoch += 1
        self._since = self._now()

    async def take_snapshot(self) -> Snapshot:
        self.look()
        self.snapshot.copy_(self.theta)
        return Snapshot(tokens=self.progress.tokens, steps=0, loss=None, position=0)

    async def apply(self, ages: Mapping[str, int]) -> None:
        self.look()
        for block in ages:
            span = self._layout.span(block)
            self.theta[span] += self.anchor[span] - self.snapshot[span]

    async def set_sources(self, sources: Sequence[object]) -> None:
        pass

    async def score(self, sources: Sequence[object], windows: int) -> tuple[float, ...]:
        return ()

    async def pause(self) -> None:
        self.look()
        self._is_paused = True

    async def resume(self) -> None:
        self.look()
        self._is_paused, self._since = False, self._now()

    def look(self) -> None:
        """Take the steps that are over by now."""
        now = self._now()
        if self._layout is None or self._is_paused:
            self._since = now
            return
        steps = int((now - self._since) / self.step_s)
        self._since += steps * self.step_s
        tokens = steps * self._batch
        self.trained += tokens
        self.theta[: self._per_token.numel()] -= tokens * self._per_token
        told = self.progress.tokens + tokens
        self.progress = replace(self.progress, tokens=told, step_s=self.step_s, loss=1.0, tokens_per_s=1.0)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
