"""A module that the caller's own loop trains, with the face of a peer's worker processes (`peer/workers/trainer.py`).

θ lies in the module's parameters and belongs to the caller's thread, which hands it over for a moment between two
optimizer steps, in `step`. Whatever the peer, in its own thread, wants of θ waits for that moment: a snapshot, or a
new anchor, θ ← θ + (φ_new − θ_snapshot). Nothing ever waits the other way round.
"""

import asyncio
import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import Module, Parameter

from configs.errors import DeviceError, UsageError
from configs.machine import PeerConfig
from configs.run import ModelSpec, RunSpec
from peer.train.ledger import TokenLedger
from peer.train.messages import Snapshot, Stepped
from peer.train.outer import unwritten
from peer.train.partition import Strategy
from peer.workers.progress import Progress
from peer.workers.trainer import Event
from protocols.codecs import is_finite

TOLD_S = 0.5  # between two steps whose progress is told


@dataclass(frozen=True)
class Parameters:
    """The parameters of a module that are exchanged, in their order; a tied one once, a frozen one never."""

    named: tuple[tuple[str, Parameter], ...]

    @classmethod
    def of(cls, module: Module) -> Self:
        """Return those of `module` that are trained. Raises UsageError: there are none, or they cannot be exchanged."""
        named = tuple((name, each) for name, each in module.named_parameters() if each.requires_grad)
        if not named:
            raise UsageError(
                "the module has no parameter that is trained (requires_grad): there is nothing to exchange"
            )
        for name, each in named:
            if not each.is_floating_point():
                raise UsageError(f"parameter {name} is of {each.dtype}; only real floating-point ones are exchanged")
            if each.is_meta or hasattr(each, "full_tensor"):
                raise UsageError(
                    f"parameter {name} has no values here (it is sharded, or on the meta device); shoal.Outer takes a "
                    "module that is whole in this process"
                )
        return cls(named)

    @cached_property
    def size(self) -> int:
        """Number of values."""
        return sum(each.numel() for _, each in self.named)

    @cached_property
    def listed(self) -> bytes:
        """The list of names and shapes, as JSON: what all peers of a run must have in common."""
        return json.dumps([[name, list(each.shape)] for name, each in self.named], separators=(",", ":")).encode()

    @property
    def sha256(self) -> str:
        """The hash of the list."""
        return hashlib.sha256(self.listed).hexdigest()

    @property
    def spec(self) -> ModelSpec:
        """What a run's spec says of the module."""
        return ModelSpec.of_module(self.size, len(self.named))

    def tensors(self, flat: Tensor) -> dict[str, Tensor]:
        """Return views of a flat tensor, (N,), by the parameters' names and in their shapes."""
        views, at = {}, 0
        for name, each in self.named:
            views[name] = flat[at : at + each.numel()].view(each.shape)
            at += each.numel()
        return views

    @torch.no_grad()
    def read(self, flat: Tensor) -> None:
        """Copy the values into a flat float32 tensor, (N,)."""
        for view, (_, each) in zip(self.tensors(flat).values(), self.named, strict=True):
            view.copy_(each)

    @torch.no_grad()
    def write(self, flat: Tensor) -> None:
        """Take the values from a flat tensor, (N,)."""
        for view, (_, each) in zip(self.tensors(flat).values(), self.named, strict=True):
            each.copy_(view)

    @torch.no_grad()
    def add(self, flat: Tensor) -> None:
        """Add a flat float32 tensor, (N,), to the values."""
        for view, (_, each) in zip(self.tensors(flat).values(), self.named, strict=True):
            each.add_(view.to(each.device, each.dtype))


class Trainee:
    """A `Trainer` whose steps are the caller's: `hold` hands θ to the caller's thread, `release` gives it back.

    While the caller's thread does not have θ (before the first step and after the last) the peer takes what it needs
    at once.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.anchor, self.snapshot = torch.zeros(parameters.size), torch.zeros(parameters.size)
        self.progress = Progress()
        self.epoch = 0
        self.on_event: Callable[[Event], None] = lambda event: None
        self.temporary: list[Path] = []
        self._lock = threading.Lock()  # of all that follows
        self._waiting: deque[Callable[[], None]] = deque()  # until the next step is over
        self._is_held = False
        self._ledger = TokenLedger()
        self._steps = 0
        self._loss: float | None = None
        self._began = self._told_at = 0.0  # the step under way; the last one that was told
        self._told_tokens = 0

    @property
    def is_up(self) -> bool:
        """Whether it trains, or could: what trains is the caller's own program."""
        return True

    @property
    def silent_s(self) -> float:
        """Seconds since a step was told of; none while the caller's loop is not in the midst of one."""
        return time.monotonic() - self._told_at if self._is_held else 0.0

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        """Hold nothing: what trains is the caller's."""
        yield self

    # The caller's thread

    def hold(self) -> None:
        """Take θ: from now on the peer waits for the end of a step."""
        with self._lock:
            self._is_held = True
            self._began = self._told_at = time.monotonic()

    def step(self, tokens: int, loss: float | Tensor | None) -> None:
        """Count an optimizer step that is over, and do what the peer waits to do with θ."""
        now = time.monotonic()
        with self._lock:
            self._ledger.trained(tokens)
            self._steps += 1
            step_s, self._began = now - self._began, now
            if now - self._told_at >= TOLD_S or self.progress.step_s is None:
                self._tell(now, step_s, loss)
            while self._waiting:
                self._waiting.popleft()()

    def release(self) -> None:
        """Give θ back, after the last step."""
        with self._lock:
            self._is_held = False
            while self._waiting:
                self._waiting.popleft()()

    def _tell(self, now: float, step_s: float, loss: float | Tensor | None) -> None:
        speed = (self._ledger.tokens - self._told_tokens) / (now - self._told_at) if now > self._told_at else None
        self._told_at, self._told_tokens = now, self._ledger.tokens
        if loss is not None:  # on a GPU it is waited for: so only when it is told
            self._loss = float(loss.detach() if isinstance(loss, Tensor) else loss)
        told = Stepped(
            position=self._steps, loss=self._loss or 0.0, tokens=self._ledger.tokens, tokens_per_s=speed, step_s=step_s
        )
        progress = self.progress.stepped(told)
        self.progress = progress if self._loss is not None else replace(progress, loss=None)

    # The peer's thread

    def configure(self, config: PeerConfig) -> None:
        """Take nothing: devices and precision are the caller's."""

    def limit(self, memory_gb: float | None) -> None:
        """Do nothing: the memory is the caller's program's."""

    def check(self, spec: RunSpec) -> None:
        """Raise UsageError if the run is not of this module."""
        own, its = self.parameters.spec.module, spec.model.module
        if its is None or own is None:
            raise UsageError(
                f"run {spec.run_id} ({spec.name}) trains a language model; join it with `shoal join` or open_peer, or "
                "found a run of your own: leave initial_peers out"
            )
        if self.parameters.sha256 != spec.tokenizer_sha256:
            raise UsageError(
                f"run {spec.run_id} ({spec.name}) trains another module: {its.values:,} values in {its.parameters:,} "
                f"parameters, this one has {own.values:,} in {own.parameters:,}"
                + (", with other names or shapes" if own == its else "")
                + "; build the same module, or found a run of your own: leave initial_peers out"
            )

    async def start(self, spec: RunSpec, seed: int, base: Path | None = None) -> None:
        """Start nothing: the caller does."""

    async def load(
        self, strategy: Strategy, sub_model: str, sources: Sequence[object], ages: Mapping[str, int]
    ) -> None:
        """θ ← anchor."""
        await self._between_steps(lambda: self.parameters.write(self.anchor))
        with self._lock:
            self._ledger, self._told_tokens = TokenLedger(), 0
            self.progress = replace(self.progress, tokens=0, load=self.progress.load + 1)
        self.epoch += 1

    async def take_snapshot(self) -> Snapshot:
        """snapshot ← θ as it is when the step under way is over. Raises DeviceError if it is not finite any more."""

        def take() -> int:
            self.parameters.read(self.snapshot)
            self._ledger.snapshot()
            return self._ledger.tokens

        tokens = await self._between_steps(take)
        if not await asyncio.to_thread(is_finite, self.snapshot):
            raise DeviceError(
                "the module's parameters are not finite any more, and nothing of them was sent: training has diverged; "
                "begin again from a checkpoint, or join again for the swarm's state, with a lower learning rate"
            )
        return Snapshot(tokens=tokens, steps=self._steps, loss=self.progress.loss, position=self._steps)

    async def apply(self, ages: Mapping[str, int]) -> None:
        """θ ← θ + anchor − snapshot when the step under way is over; waits for none."""
        shift = await asyncio.to_thread(torch.sub, self.anchor, self.snapshot, out=unwritten(self.parameters.size))

        def add() -> None:
            self.parameters.add(shift)

        with self._lock:
            self._ledger.rebased()
            if self._is_held:
                self._waiting.append(add)
                return
        await asyncio.to_thread(add)

    async def set_sources(self, sources: Sequence[object]) -> None:
        """Take none: the caller has his own."""

    async def score(self, sources: Sequence[object], windows: int) -> tuple[float, ...]:
        """Return nothing: what the module foretells is the caller's to know."""
        return ()

    async def pause(self) -> None:
        """Do nothing: the peer takes part in no round then, and the caller's loop goes on by itself."""

    async def resume(self) -> None:
        """Do nothing, as above: what was learnt meanwhile goes into the next round."""

    async def _between_steps(self, work: Callable[[], Any]) -> Any:
        """Do a work with θ when the step under way is over, in the caller's thread; at once if that has none.

        A cancellation takes it back if it has not begun.
        """
        future: Future[Any] = Future()

        def do() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)

        with self._lock:
            is_held = self._is_held
            if is_held:
                self._waiting.append(do)
        if not is_held:
            await asyncio.to_thread(do)
        return await asyncio.wrap_future(future)
