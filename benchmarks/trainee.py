"""What a peer trains, without a worker process: `Inner`, the product's, takes the steps, `Rows` holds parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from configs.run import RunSpec
from peer.corpus.data import Sampler, Source
from peer.train.frozen import take_base
from peer.train.inner import Inner, Schedule
from peer.train.partition import COMMON, Strategy
from peer.train.sharded import Ranks, Rows, build_sharded
from peer.train.theta import Theta

CPU = torch.device("cpu")
STREAMS = 1000  # orders of the data, for each seed


class Trainee:
    """Parameters in training, their optimizer, and the streams of text that they are trained on.

    `frozen` is the file of the model that adapters are trained on.
    """

    def __init__(
        self,
        spec: RunSpec,
        strategy: Strategy,
        phi: Tensor,
        sources: Sequence[Source],
        streams: Sequence[int],
        frozen: Path | None = None,
    ) -> None:
        self.strategy = strategy
        self.module = build_sharded(spec.model, CPU, None)
        if frozen is not None:
            take_base(self.module, spec.model, frozen)
        self._spec, self._streams = spec, streams
        self._inner = Inner(spec.inner, self.module, Ranks(0, 1, CPU), is_bfloat16=False)
        self._schedule = Schedule(spec, strategy)
        self._batch = spec.inner.batch_tokens // spec.model.context_length
        self.use(COMMON)
        self.rows.copy_in(phi, [COMMON])
        self.read(sources)

    def use(self, sub_model: str) -> None:
        """Train the blocks of `sub_model` from now on; parameters and moments stay."""
        self.layout = self.strategy.layout(sub_model, self._spec.model)
        self.rows = Rows(self.module, self.layout)
        self._inner.use(self.layout, is_fresh=False)

    def read(self, sources: Sequence[Source]) -> None:
        """Train on this text from now on."""
        length, seed = self._spec.model.context_length, STREAMS * self._spec.seed
        self._samplers = [Sampler(sources, length, seed + stream) for stream in self._streams]

    def step(self, position: int, ages: Mapping[str, int]) -> None:
        """Take one inner step with the rates of the ages, on the windows that stand at `position` of each stream."""
        windows = torch.cat([sampler.batch(position, self._batch) for sampler in self._samplers])
        rates = {block: self._schedule.rate(block, age) for block, age in ages.items()}
        self._inner.step(windows, len(windows), rates)

    def theta(self, block: str) -> Tensor:
        """Return a copy of a block's parameters, (N,)."""
        flat = torch.empty(self.layout.size)
        self.rows.copy_out(flat)
        return flat[self.layout.span(block)].clone()

    def shift(self, block: str, anchor: Tensor, snapshot: Tensor) -> None:
        """Move a block's parameters by what lies between `snapshot` and `anchor`, (N,) each."""
        spread = torch.zeros(2, self.layout.size)
        spread[:, self.layout.span(block)] = torch.stack([anchor, snapshot])
        theta = Theta(self.rows)
        theta.shift_later(spread[0], spread[1], [block])
        theta.take_up()
