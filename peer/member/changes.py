"""How this peer takes a sub-model, changes to another, and puts it away in the end; which one is `turns.py`'s."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from configs.errors import NetworkError, PeerError
from peer.block.exchange import Swarm, rounds_before
from peer.member.report import Parts
from peer.member.rounds import Rounds
from peer.member.turns import Turns
from peer.train.outer import OuterState
from peer.train.partition import COMMON
from protocols.offers import SealedRound

log = logging.getLogger(__name__)


class Changes:
    """Changes one sub-model for another: `is_alone` says of which blocks this peer is the only holder."""

    def __init__(
        self,
        parts: Parts,
        swarm: Swarm,
        rounds: Rounds,
        turns: Turns,
        is_alone: Callable[[str], bool],
        forget: Callable[[str], object],
    ) -> None:
        self._parts, self._swarm, self._rounds, self._turns = parts, swarm, rounds, turns
        self._is_alone, self._forget = is_alone, forget  # of a block: its offers, when it is put away
        self._under_way: asyncio.Task[None] | None = None

    async def first(self, tasks: asyncio.TaskGroup) -> None:
        """Take what this peer trains first: what it trained before, or what needs it most."""
        await self._take(*await self._obtain_first(), tasks)

    def consider(self, tick: int, tasks: asyncio.TaskGroup) -> None:
        """Begin to change over when the sub-models part, when this one is done, or when another's turn has come."""
        if self._under_way is not None and not self._under_way.done():
            return
        target = self._turns.target(tick)
        if (target or "") != self._parts.session.sub_model:
            self._under_way = tasks.create_task(self._change(target, tasks))

    async def settle(self) -> None:
        """Wait for a change that is under way."""
        if self._under_way is not None:
            await self._under_way

    async def put_away(self, until: float) -> None:
        """Stop training, keep what was learnt, and let go of all blocks; they stay stored.

        A worker that does not answer is waited for until then, by the loop's clock.
        """
        session = self._parts.session
        try:
            async with asyncio.timeout_at(until):
                await session.stop()
        except TimeoutError:
            log.warning("the worker does not answer: what it has learnt since its last round is lost")
        self._parts.chronicle.trained(session.progress)
        blocks = list(session.replicas)
        await self._finish_alone(blocks)
        await session.drop(blocks)

    async def _obtain_first(self) -> tuple[str, list[OuterState]]:
        parts = self._parts
        others = parts.outlook.others()
        common = await parts.store.obtain(COMMON, others)
        if not common.is_final:  # do not ask for a newer one: on a slow link each would be outdated on arrival
            await parts.library.fetch_first(parts.facts.strategy, COMMON, parts.facts.me, others)
            return COMMON, [common]
        known = parts.chronicle.sub_model in parts.facts.strategy.sub_models
        sub_model = parts.chronicle.sub_model if known else self._turns.lease()
        return sub_model, await self._obtain(sub_model)

    async def _change(self, target: str | None, tasks: asyncio.TaskGroup) -> None:
        """Get what `target` needs; then finish the rounds under way, put the present sub-model away, and begin it."""
        parts, session = self._parts, self._parts.session
        try:
            states = await self._obtain(target)
        except (NetworkError, PeerError, TimeoutError) as error:
            log.warning("cannot change to %s yet: %s", target, error)
            self._turns.put_off(target or "")
            return
        parts.activity.change()
        await self._rounds.settle()
        log.info("changing from %s to %s", session.sub_model, target or "serving only: all tokens are trained")
        parts.chronicle.happened(f"changed from {session.sub_model} to {target or 'serving only'}")
        await session.stop()
        parts.chronicle.trained(session.progress)
        kept = parts.facts.strategy.blocks(target) if target else ()
        leaving = [block for block in session.replicas if block not in kept]
        await self._finish_alone(leaving)
        await session.drop(leaving)
        for block in leaving:
            self._forget(block)
        await self._take(target, states, tasks)

    async def _obtain(self, sub_model: str | None) -> list[OuterState]:
        """Return the states of the blocks of `sub_model` that are not in training here, and see to some of its text."""
        if sub_model is None:
            return []
        parts, others = self._parts, self._parts.outlook.others()
        blocks = parts.facts.strategy.blocks(sub_model)
        states = [await parts.store.obtain(block, others) for block in blocks if block not in parts.session.replicas]
        await parts.library.fetch_first(parts.facts.strategy, sub_model, parts.facts.me, others)
        return states

    async def _take(self, sub_model: str | None, states: Sequence[OuterState], tasks: asyncio.TaskGroup) -> None:
        """Begin to train `sub_model`, or to serve only."""
        parts = self._parts
        parts.chronicle.sub_model = sub_model or ""
        self._turns.began = parts.facts.clock.tick()
        if sub_model is None:
            parts.session.serve()
            parts.activity.serve()
            return
        strategy, me = parts.facts.strategy, parts.facts.me
        for state in states:
            await parts.session.take_up(state, partial(self._rounds_before, state))
        await parts.session.start(strategy, sub_model, parts.library)
        parts.activity.train()
        others, refresh = parts.outlook.others, parts.session.refresh_sources
        tasks.create_task(parts.library.fetch_in_background(strategy, sub_model, me, others, refresh))
        if parts.library.stream is not None:
            tasks.create_task(parts.library.stream.follow(parts.library.sources(strategy, sub_model), refresh))

    async def _rounds_before(self, state: OuterState) -> Sequence[SealedRound]:
        return await rounds_before(self._swarm, state, self._parts.outlook.others())

    async def _finish_alone(self, blocks: Sequence[str]) -> None:
        """Take the last step of the blocks that nobody else trains, so that their state has all of the work."""
        tick = self._parts.facts.clock.tick()
        for block in blocks:
            replica = self._parts.session.replicas[block]
            if self._is_alone(block) and tick > replica.state.round:
                await asyncio.to_thread(replica.advance_alone, tick, replica.state.phi, replica.tokens)
