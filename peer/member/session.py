"""The sub-model that this peer trains now: its replicas, its worker, and what passes between them.

A block's exchange runs beside the training: θ is copied out at the round's end, and the new anchor goes in between
two inner steps, keeping what the worker has learnt meanwhile: θ ← θ + (φ_new − θₛ).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from torch import Tensor

from configs.run import RunSpec
from peer.block.exchange import Work
from peer.block.replica import Replica
from peer.block.store import BlockStore
from peer.block.threads import unbroken
from peer.member.library import Library
from peer.train.outer import OuterState, unwritten
from peer.train.partition import Layout, Strategy
from peer.train.private import Privacy
from peer.workers.progress import Progress
from peer.workers.trainer import Trainer
from protocols.offers import SealedRound

PAUSE_S = 5.0  # for the end of a step, when a sub-model is put away


@dataclass(frozen=True)
class Snapshots:
    """What was copied out of the worker at a round's end."""

    works: Mapping[str, Work]  # block → θ as it may leave, tokens, domain
    thetas: Mapping[str, Tensor]  # block → θ as it is
    epoch: int  # of the worker: it changes when θ goes back to the anchor
    position: int = 0  # steps of the data that were taken


class Session:
    """Trains one sub-model at a time. `lock` orders everything that touches the two shared buffers."""

    def __init__(
        self, spec: RunSpec, me: str, workers: Trainer, store: BlockStore, privacy: Privacy | None = None
    ) -> None:
        self.sub_model = ""
        self.replicas: dict[str, Replica] = store.replicas
        self._spec, self._me, self.workers, self._store = spec, me, workers, store
        self.privacy = privacy
        self._strategy = Strategy.of(spec.strategy, 1)
        self._library: Library | None = None
        self._layout = Layout(())
        self._domain = ""
        self._is_put_off = False  # what was learnt lies in the residuals, and must not get there twice
        self._is_paused = False  # by the user: then whatever begins waits for `resume`
        self._reached: int | None = None  # steps of the data that are in the replicas
        self._before: dict[str, int] = {}  # block → this peer's tokens on it before the worker was loaded
        self._lock = asyncio.Lock()  # orders everything that touches the two shared buffers

    async def take_up(self, state: OuterState, rounds: Callable[[], Awaitable[Sequence[SealedRound]]]) -> None:
        """Begin to hold a block; `rounds` asks for those that led to its state, as old offers may count there."""
        replica = await asyncio.to_thread(Replica, state, self._spec, self._me)
        await asyncio.to_thread(replica.resume, self._store.folder)
        past = await rounds()
        if replica.may_count:
            await asyncio.to_thread(replica.reconcile, past)
        else:
            replica.lineage = tuple(past)  # who was in its last rounds decides the next
        self.replicas[state.block] = replica

    async def start(self, strategy: Strategy, sub_model: str, library: Library) -> None:
        """Begin to train `sub_model`, whose blocks are all held. Raises DeviceError, DataError."""
        async with self._lock:
            self._strategy, self._library, self.sub_model = strategy, library, sub_model
            self._is_put_off = False
            self._layout = strategy.layout(sub_model, self._spec.model)
            self._domain = library.domain_name(strategy.domain(sub_model))
            for block in self._layout.blocks:
                replica = self.replicas[block]
                await unbroken(self._put, self.workers.anchor, block, replica.state.phi)
                self._before[block] = max(replica.tokens, replica.state.ages.get(self._me, 0))
            sources = library.sources(strategy, sub_model)
            await self.workers.load(strategy, sub_model, sources, self._ages(self._layout.blocks))
            if not self._is_paused:
                await self.workers.resume()

    @property
    def progress(self) -> Progress:
        """How the training goes."""
        return self.workers.progress

    async def refresh_sources(self) -> None:
        """Sample from all the text that lies here by now."""
        if self._library is not None and self.sub_model:
            await self.workers.set_sources(self._library.sources(self._strategy, self.sub_model))

    async def take_snapshots(self, blocks: Sequence[str]) -> Snapshots:
        """Copy θ of `blocks` out at their round's end; the worker goes on at once."""
        async with self._lock:
            return await self._take(blocks)

    async def rebase(self, block: str, before: OuterState, snapshots: Snapshots, *, is_step: bool) -> None:
        """Bring the worker to the replica's new anchor.

        After a step θ is rebased from the snapshot; after a mere repair, or when the worker went back to the old
        anchor meanwhile, from the old anchor.
        """
        async with self._lock:
            if block not in self._layout.blocks or block not in self.replicas:
                return
            has_snapshot = is_step and snapshots.epoch == self.workers.epoch
            base = snapshots.thetas[block] if has_snapshot else before.phi
            self._reached = snapshots.position if has_snapshot else self._reached
            await unbroken(self._put, self.workers.snapshot, block, base)
            await unbroken(self._put, self.workers.anchor, block, self.replicas[block].state.phi)
            await self.workers.apply(self._ages([block]))

    async def held_out_losses(self) -> dict[str, float]:
        """Return the loss on held-out text of each domain of the sub-model, as far as it lies here; training waits."""
        library, sub_model, inner = self._library, self.sub_model, self._spec.inner
        if library is None or not sub_model:
            return {}
        held_out = await asyncio.to_thread(library.heldout_sources, self._strategy, sub_model)
        if not held_out:
            return {}
        windows = inner.batch_tokens // self._spec.model.context_length
        losses = await self.workers.score(list(held_out.values()), windows)
        return dict(zip(held_out, losses, strict=True)) if self.sub_model == sub_model else {}

    def states(self) -> list[OuterState]:
        """Return the states of the blocks of the sub-model, as they were sealed last."""
        return [self.replicas[block].state for block in self._layout.blocks if block in self.replicas]

    async def pause(self) -> None:
        """Stop training until `resume`, also that of sub-models to come; the state stays where it is."""
        self._is_paused = True
        if self.sub_model:
            await self.workers.pause()

    async def resume(self) -> None:
        """Go on training."""
        self._is_paused = False
        if self.sub_model:
            await self.workers.resume()

    async def stop(self) -> None:
        """Stop training; what was learnt since the last round goes into the residuals, to be sent later.

        A step that goes on for long is not waited for: it is left out.
        """
        async with self._lock:
            if not self.sub_model or self._is_put_off:
                return
            self._is_put_off = True
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_S):
                    await self.workers.pause()
            snapshots = await self._take(self._layout.blocks)
            self._reached = snapshots.position
            for block in self._layout.blocks:
                work = snapshots.works[block]
                await unbroken(self.replicas[block].put_off, work.theta, work.tokens)
                # A rank that dies while all is put away comes back with this work.
                await unbroken(self._put, self.workers.anchor, block, snapshots.thetas[block])

    async def save(self, replica: Replica) -> None:
        """Store a replica's state, and how far through the data it is."""
        await self._store.save(replica)
        stream = None if self._library is None else self._library.stream
        if stream is not None and self._reached is not None:
            await asyncio.to_thread(stream.keep_position, self._reached)

    def serve(self) -> None:
        """Train nothing from now on."""
        self.sub_model = ""

    async def drop(self, blocks: Sequence[str]) -> None:
        """Save the replicas of `blocks` and let go of them; they stay stored."""
        for block in blocks:
            await self.save(self.replicas[block])
            del self.replicas[block]

    async def _take(self, blocks: Sequence[str]) -> Snapshots:
        snapshot = await self.workers.take_snapshot()
        epoch = self.workers.epoch
        thetas = await asyncio.to_thread(lambda: {block: self._read(block) for block in blocks})
        released = await asyncio.to_thread(self._released, thetas)
        works = {
            block: Work(theta, self._before[block] + snapshot.tokens, self._domain) for block, theta in released.items()
        }
        return Snapshots(works, thetas, epoch, snapshot.position)

    def _released(self, thetas: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return what may leave in the place of each θ."""
        if self.privacy is None:
            return thetas
        return {block: self.privacy.release(self.replicas[block].state.phi, theta) for block, theta in thetas.items()}

    def _read(self, block: str) -> Tensor:
        """Copy a block out of the snapshot. In a thread: the loop has others to answer."""
        return unwritten(self._layout.block_size(block)).copy_(self.workers.snapshot[self._layout.span(block)])

    def _put(self, flat: Tensor, block: str, values: Tensor) -> None:
        """Copy a block into one of the shared buffers. In a thread, as above."""
        flat[self._layout.span(block)] = values

    def _ages(self, blocks: Sequence[str]) -> dict[str, int]:
        return {block: self.replicas[block].state.age for block in blocks}
