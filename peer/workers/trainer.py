"""What trains a peer's sub-model, as the rest of the peer sees it.

There are two: the worker processes (`supervisor.py`), and a training loop in the caller's own process
(`shoal/trainee.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from configs.machine import PeerConfig
from configs.run import RunSpec
from peer.train.messages import Snapshot
from peer.workers.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor

    from peer.corpus.source import Source
    from peer.train.partition import Strategy


@dataclass(frozen=True)
class Event:
    """Something that happened to the workers, and why.

    `restarted`: all ranks begin again from the anchor. `diverged`: θ went back to the anchor. `stalled`: training
    waits for other sources or another anchor. `failed`: there is no worker any more; every request raises.
    """

    kind: Literal["restarted", "diverged", "stalled", "failed"]
    reason: str


class Trainer(Protocol):
    """Trains one sub-model at a time; what each method means in full stands in `supervisor.Workers`."""

    anchor: Tensor
    snapshot: Tensor
    progress: Progress
    epoch: int
    on_event: Callable[[Event], None]

    @property
    def is_up(self) -> bool:
        """Whether it trains, or could, as far as is known."""

    @property
    def silent_s(self) -> float:
        """Seconds since a step was told of, or training was begun."""

    @property
    def temporary(self) -> list[Path]:
        """The folders that are removed in the end, but by nobody if this process is killed."""

    def configure(self, config: PeerConfig) -> None:
        """Take these settings from `start` on."""

    def check(self, spec: RunSpec) -> None:
        """Raise ShoalError if this cannot train that run, before anything is allocated."""

    def limit(self, memory_gb: float | None) -> None:
        """Take no more memory than this, from the next start of what trains on; None: no limit of its own."""

    async def start(self, spec: RunSpec, seed: int, base: Path | None = None) -> None:
        """Get ready to train, for a run."""

    async def load(
        self, strategy: Strategy, sub_model: str, sources: Sequence[Source], ages: Mapping[str, int]
    ) -> None:
        """θ ← anchor, as `sub_model`."""

    async def take_snapshot(self) -> Snapshot:
        """snapshot ← θ."""

    async def apply(self, ages: Mapping[str, int]) -> None:
        """θ ← θ + anchor − snapshot for the blocks in `ages`; both buffers may be written again when this returns."""

    async def set_sources(self, sources: Sequence[Source]) -> None:
        """Sample from these token files from the next step on."""

    async def score(self, sources: Sequence[Source], windows: int) -> tuple[float, ...]:
        """Return the loss of θ on so many windows of each token file."""

    async def pause(self) -> None:
        """Stop training between two steps."""

    async def resume(self) -> None:
        """Go on training."""
