"""The daemon's side of the workers: starts them, asks them, and starts them again when one dies.

The daemon never dies of a worker. When a rank ends, all ranks are started again from the anchor (a new
*generation*), with half of the micro-batch if memory was the reason, and what was being asked is asked again.

Nothing heavy is imported at the top, so that `preload` can run before everything else.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import DeviceError, ShoalError
from configs.machine import PeerConfig
from configs.run import RunSpec, check_is_of_text
from peer.train.launch import Setup, check_base_precision, check_devices, devices_of, shared
from peer.train.ledger import TokenLedger
from peer.train.messages import (
    Answer,
    Answered,
    Apply,
    Asked,
    Diverged,
    Failed,
    Load,
    Message,
    Pause,
    Place,
    Ready,
    Request,
    Resume,
    Score,
    Scored,
    SetSources,
    Snapshot,
    Stalled,
    Stepped,
    TakeSnapshot,
)
from peer.workers.progress import Progress
from peer.workers.ranks import Rank, RankDiedError, ask_all, open_ranks, preload
from peer.workers.restarts import Death, Restarts
from peer.workers.trainer import Event

if TYPE_CHECKING:
    from torch import Tensor

    from peer.corpus.source import Source
    from peer.train.partition import Strategy

log = logging.getLogger(__name__)

# Seconds that workers have for an answer: so many inner steps, since most requests wait for the end of one, but never
# less than the least, and more while no step has ended and nobody knows how long one takes.
ANSWER_STEPS, LEAST_ANSWER_S, FIRST_ANSWER_S = 10, 60.0, 600.0


@asynccontextmanager
async def open_workers(
    config: PeerConfig, on_event: Callable[[Event], None] = lambda event: None
) -> AsyncIterator[Workers]:
    """Hold the workers of this machine; their imports begin at once, training after `start` and `load`.

    Holds one process and one socket for each device, and two shared buffers; all end with the context.
    """
    preload()
    with tempfile.TemporaryDirectory(prefix="shoal-") as folder:
        workers = Workers(config, Path(folder), on_event)
        try:
            yield workers
        finally:
            await workers.close()


class Workers:
    """The ranks that train this peer's sub-model, as one.

    `anchor` and `snapshot` are flat float32 tensors shared with the ranks, in the layout of the sub-model that is
    loaded: write the anchor before `load` and `apply`, read the snapshot after `take_snapshot`. `epoch` changes
    whenever θ went back to the anchor. Workers that do not answer are started again, and requests wait meanwhile; all
    raise DeviceError once that has failed too often. Cancelling a request leaves the workers usable.
    """

    anchor: Tensor
    snapshot: Tensor

    def __init__(self, config: PeerConfig, folder: Path, on_event: Callable[[Event], None]) -> None:
        self.progress = Progress()
        self.epoch = 0
        self.micro_batch = 0  # sequences in one forward pass of a rank, as found
        self._config, self._folder = config, folder
        self.on_event = on_event
        self._restarts = Restarts(config.micro_batch)
        self._generation = 0
        self._ranks: list[Rank] = []
        self._ready = asyncio.Event()  # the ranks answer, or `_failure` says why they never will
        self._failure: ShoalError | None = None
        self._loaded: Load | None = None  # what to load after a restart
        self._is_paused = False
        self._ledger = TokenLedger()  # of rank 0, by what it tells
        self._supervision: asyncio.Task[None] | None = None
        self._stepped_at = time.monotonic()

    @property
    def is_up(self) -> bool:
        """Whether the ranks answer, as far as is known: they have begun, and none has ended since."""
        return self._ready.is_set() and self._failure is None

    @property
    def silent_s(self) -> float:
        """Seconds since a step was told of, or training was begun."""
        return time.monotonic() - self._stepped_at

    @property
    def temporary(self) -> list[Path]:
        """The folders that are removed in the end, but by nobody if this process is killed."""
        return [self._folder, Path(get_temp_dir())]

    def configure(self, config: PeerConfig) -> None:
        """Take these settings from `start` on: what the run's founder suggests is known only once the run is."""
        self._config = config
        self._restarts = Restarts(config.micro_batch)

    def check(self, spec: RunSpec) -> None:
        """Raise DeviceError, before anything is allocated, if a device is missing or the run's model is too large.

        Raises UsageError if the run has no language model.
        """
        check_is_of_text(spec)
        from peer.train.memory import check_host, check_limit

        devices = devices_of(self._config)
        check_devices(devices)
        check_base_precision(self._config, spec.model)
        check_host(spec.model, is_training="cpu" in devices, base_precision=self._config.base_precision)
        check_limit(spec.model, self._config.memory_gb, devices, self._config.base_precision)

    def limit(self, memory_gb: float | None) -> None:
        """Let no worker take more memory: those that run start again, and lose what was learnt since the last round."""
        self._config = self._config.model_copy(update={"memory_gb": memory_gb})
        self._restarts = Restarts(self._config.micro_batch)
        for rank in self._ranks:
            rank.give_up("its limit of memory was changed")

    async def start(self, spec: RunSpec, seed: int, base: Path | None = None) -> None:
        """Start the ranks, for a run. `seed` orders the data: give every peer its own. `base`: what adapters are on.

        Raises DeviceError: no such device, or the model does not fit; says what would.
        """
        from peer.train.partition import COMMON, Strategy

        size = Strategy.of(spec.strategy, 1).layout(COMMON, spec.model).size
        self.anchor, self.snapshot = (shared(size) for _ in range(2))
        setup = Setup.first(self._config, spec, seed=seed, base=base)
        self._supervision = asyncio.create_task(self._supervise(setup))
        await self._live()

    async def load(
        self,
        strategy: Strategy,
        sub_model: str,
        sources: Sequence[Source],
        ages: Mapping[str, int],
        position: int | None = None,
    ) -> None:
        """θ ← anchor, as `sub_model`, trained from `sources`. `ages`: of its blocks, for the learning rates.

        `position`: inner steps of the data to leave out; None goes on from where this peer is. Raises DataError.
        """
        self._ledger, self._stepped_at = TokenLedger(), time.monotonic()
        begun_at = self.progress.position if position is None else position
        self.progress = replace(self.progress, tokens=0, position=begun_at, load=self.progress.load + 1)
        loaded = self._loaded = Load(
            sub_model=sub_model, num_domains=strategy.num_domains, sources=tuple(sources), place=self._place(ages)
        )
        await self._ask(loaded)
        self.epoch = loaded.place.epoch

    async def take_snapshot(self) -> Snapshot:
        """snapshot ← θ as it is now, also in the midst of a step, which goes on; unfinished steps are not in it."""
        taken = await self._ask(TakeSnapshot())
        assert isinstance(taken, Snapshot)
        self._ledger.trained(taken.tokens - self._ledger.tokens)
        self._ledger.snapshot()
        self.progress = replace(self.progress, tokens=taken.tokens, position=taken.position)
        return taken

    async def apply(self, ages: Mapping[str, int]) -> None:
        """θ ← θ + anchor − snapshot for the blocks in `ages`, which have these ages now; waits for no step.

        Both buffers may be written again when this returns. What the worker has learnt since the snapshot is kept. The
        caller may write another base than θ into the snapshot first. If θ went back to the anchor meanwhile, unseen by
        the caller: θ ← anchor.
        """
        await self._ask(Apply(ages=dict(ages), epoch=self.epoch))
        self._ledger.rebased()
        if self._loaded is not None:
            place = self._place({**self._loaded.place.ages, **ages})
            self._loaded = self._loaded.model_copy(update={"place": place})

    async def set_sources(self, sources: Sequence[Source]) -> None:
        """Sample from these token files from the next step on. Raises DataError; training then waits for others."""
        request = SetSources(sources=tuple(sources))
        if self._loaded is not None:
            self._loaded = self._loaded.model_copy(update={"sources": request.sources})
        await self._ask(request)

    async def score(self, sources: Sequence[Source], windows: int) -> tuple[float, ...]:
        """Return the loss of θ, as it is between two steps, on so many windows of each token file. Raises DataError."""
        scored = await self._ask(Score(sources=tuple(sources), windows=windows))
        assert isinstance(scored, Scored)
        return scored.losses

    async def pause(self) -> None:
        """Stop training between two steps; everything else goes on."""
        self._is_paused = True
        await self._ask(Pause())

    async def resume(self) -> None:
        """Go on training."""
        self._is_paused, self._stepped_at = False, time.monotonic()
        await self._ask(Resume())

    async def close(self) -> None:
        """End the workers and wait for that; requests raise DeviceError from now on."""
        if self._supervision is None:
            return
        self._supervision.cancel()
        with suppress(asyncio.CancelledError):
            await self._supervision

    def _place(self, ages: Mapping[str, int]) -> Place:
        return Place(
            ages=dict(ages),
            epoch=self.epoch + 1,
            position=self.progress.position,
            tokens=self._ledger.in_anchor,
            snapshot_tokens=self._ledger.in_snapshot,
        )

    async def _live(self) -> list[Rank]:
        await self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self._ranks

    async def _ask(self, request: Request) -> Answer:
        """Ask all ranks, again after each restart; return rank 0's answer. Nobody waits for what others ask."""
        while True:
            ranks = await self._live()
            with suppress(RankDiedError):
                return await ask_all(ranks, request, self._patience_s)

    @property
    def _patience_s(self) -> float:
        step_s = self.progress.step_s
        return FIRST_ANSWER_S if step_s is None else max(LEAST_ANSWER_S, ANSWER_STEPS * step_s)

    async def _supervise(self, setup: Setup) -> None:
        """Run one generation after the other until closed or until it is pointless."""
        try:
            await self._run_generations(setup)
        finally:
            self._failure = self._failure or DeviceError("the workers are closed")
            self._ready.set()

    async def _run_generations(self, setup: Setup) -> None:
        while True:
            began = self.progress.position
            try:
                death = await self._run_generation(setup)
            except OSError as error:
                death = Death(f"a worker cannot be started: {error}")
            except EOFError:
                death = Death("a worker cannot be started: the fork server, which imports its modules, ended")
            self._ledger.reset()
            has_stepped = self.progress.position > began
            self.progress = replace(self.progress, tokens=self._ledger.tokens, tokens_per_s=0.0)
            try:
                reason = self._restarts.after(death, has_stepped=has_stepped, micro_batch=self.micro_batch)
            except DeviceError as error:
                self._failure = error
                self._tell(Event("failed", str(error)))
                return
            self._tell(Event("restarted", reason))

    async def _run_generation(self, setup: Setup) -> Death:
        """Start all ranks, bring them to where training was, and wait until one ends; return why."""
        from peer.train.memory import out_of_memory_kills

        self._generation += 1
        kills = out_of_memory_kills()
        setup = replace(
            setup,
            rendezvous=str(self._folder / str(self._generation)),
            micro_batch=self._restarts.micro_batch,
            memory_gb=self._config.memory_gb,
        )
        dead: list[Rank] = []
        async with open_ranks(setup, self.snapshot, self.anchor) as ranks:
            try:
                async with asyncio.TaskGroup() as group:
                    for rank in ranks:
                        group.create_task(self._listen(rank))
                    await ranks[0].ready.wait()
                    await self._take_up(ranks)
                    self._ranks = ranks
                    self._ready.set()
            except* RankDiedError as died:
                dead = [error.rank for error in died.exceptions if isinstance(error, RankDiedError)]
            finally:
                self._ready.clear()
            # A rank that fails takes the others' process group down: the reason is the first that gives one.
            failures = [rank.failure for rank in sorted(ranks, key=lambda rank: not rank.is_given_up) if rank.failure]
            for failure in failures:
                log.debug("worker: %s", failure.detail)
                return Death(failure.reason, failure.kind)
            reason = await asyncio.to_thread(dead[0].why_ended)
        is_memory = "SIGKILL" in reason and out_of_memory_kills() > kills
        return Death(f"{reason}, for memory", "memory") if is_memory else Death(reason)

    async def _take_up(self, ranks: Sequence[Rank]) -> None:
        """Bring a new generation to where the one before was."""
        if self._is_paused:
            await ask_all(ranks, Pause(), self._patience_s)
        if self._loaded is None:
            return
        place, self._stepped_at = self._place(self._loaded.place.ages), time.monotonic()
        self._loaded = self._loaded.model_copy(update={"place": place})
        try:
            await ask_all(ranks, self._loaded, self._patience_s)
        except ShoalError as error:
            self._tell(Event("stalled", str(error)))
        self.epoch = place.epoch

    async def _listen(self, rank: Rank) -> None:
        """Take in what a rank says, until it ends: then raises RankDiedError."""
        try:
            async for message in rank.messages():
                self._hear(rank, message)
        finally:
            self._ready.clear()
            rank.ended()
        raise RankDiedError(rank)

    def _hear(self, rank: Rank, message: Message) -> None:
        match message:
            case Answered():
                rank.answered(message)
            case Stepped():
                self._ledger.trained(message.tokens - self._ledger.tokens)
                self.progress, self._stepped_at = self.progress.stepped(message), time.monotonic()
            case Ready():
                self.micro_batch = message.micro_batch
                rank.ready.set()
            case Diverged():
                self.epoch = message.epoch
                self._ledger.reset()
                self.progress = replace(self.progress, position=message.position, tokens=self._ledger.tokens)
                self._tell(Event("diverged", f"the loss became {message.loss:.3g}; went back to the last anchor"))
            case Stalled():
                self._tell(Event("stalled", message.reason))
            case Failed():
                rank.failure = message
            case Asked():
                raise AssertionError("a worker asks nothing")

    def _tell(self, event: Event) -> None:
        if event.kind != "failed":  # that is raised
            log.warning("worker %s: %s", event.kind, event.reason)
        self.on_event(event)
