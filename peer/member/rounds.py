"""The rounds of the blocks that this peer trains: which are due, with whom, and what each comes to.

An exchange runs beside the training. A block has one at a time: a round that begins while another is under way passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from configs.errors import DeviceError, StateError
from dht.membership import ACT_TICKS
from peer.block.exchange import RESTARTED, Outcome, run_round
from peer.block.random_group import run_round_among
from peer.block.replica import Replica
from peer.block.stride import GOOD_ROUNDS, Trial, next_stride
from peer.block.timing import Meeting, meeting, round_seconds, round_timing, rounds_of
from peer.member.session import Cut
from peer.train.outer import OuterState
from protocols.gossip import Timing

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger(__name__)

MISSED_ROUNDS = 2  # in a row, while another is under way: then a peer cannot keep up with a block's group
OVERTAKEN = "overtaken"  # why a round passes: one before it is still under way
FAULTY = "faulty"  # why a round is skipped: an error that nobody foresaw


def is_of_this_machine(error: BaseException) -> bool:
    """Say whether an error, or one of a group, ends the daemon: a full disk, a device that is gone."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_of_this_machine, error.exceptions))
    return isinstance(error, StateError | DeviceError)


class Exchanges:
    """The rounds of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._under_way: dict[str, asyncio.Task[None]] = {}  # block → its round
        self._missed: Counter[str] = Counter()  # block → rounds that have passed during the one under way
        self._begun: dict[str, int] = {}  # block → tick of the round that has begun last
        self._trials: dict[str, list[Trial]] = {}  # block → its rounds with others since its stride was changed
        self._strides: dict[str, tuple[int, int]] = {}  # block → (from_tick, stride), as it is told to the others

    async def begin(self, tick: int) -> None:
        """Copy θ out and begin an exchange of every block whose round ends at `tick`; training goes on at once."""
        daemon = self._daemon
        due = {block: each for block in daemon.session.replicas if (each := self._due(block, tick)) is not None}
        if not due:
            return
        cut = await daemon.session.cut(list(due))
        for block, each in due.items():
            self._begun[block] = each.tick
            self._under_way[block] = daemon.tasks.create_task(self._exchange(block, each, cut))

    def takes_part(self, block: str) -> bool:
        """Whether this peer takes part in the rounds of a block that it trains."""
        daemon = self._daemon
        return not (daemon.is_paused or daemon.is_switching or daemon.session.replicas[block].state.is_final)

    def held(self) -> list[str]:
        """Return the blocks in whose groups this peer counts."""
        return [block for block in self._daemon.session.replicas if self._missed[block] < MISSED_ROUNDS]

    def strides(self) -> dict[str, tuple[int, int]]:
        """Return what the others are told: block → (from_tick, stride), of the blocks that ever had one beyond 1."""
        return {block: told for block, told in self._strides.items() if block in self._daemon.session.replicas}

    async def settle(self) -> None:
        """Wait for the rounds under way."""
        under_way = [task for task in self._under_way.values() if not task.done()]
        if under_way:
            await asyncio.wait(under_way)

    async def drop(self) -> None:
        """End the rounds under way: each has taken its step as a whole, or its work is still owed."""
        for task in self._under_way.values():
            task.cancel()
        await self.settle()

    def _due(self, block: str, tick: int) -> Meeting | None:
        """Return the round of a block that begins at `tick`; None if there is none, or this peer lets it pass."""
        daemon = self._daemon
        if not self.takes_part(block):
            return None
        rule = rounds_of(daemon.spec, block, daemon.session.replicas[block].state.age)
        if daemon.crowds.is_crowd(block):
            group = daemon.crowds.group(block, tick)
            due = Meeting(tick, tuple(group), 1) if group and rule.is_due(tick) else None
        else:
            strides_at = partial(daemon.membership.strides, block)
            due = meeting(rule, daemon.me, tick, self._begun.get(block, 0), strides_at)
        return None if due is None or self._passes(block, due.tick) else due

    def _passes(self, block: str, tick: int) -> bool:
        """Say whether a round passes since the one before is under way; after several this peer leaves the group.

        It would wait for this peer's word.
        """
        daemon, under_way = self._daemon, self._under_way.get(block)
        if under_way is None or under_way.done():
            return False
        self._missed[block] += 1
        daemon.chronicle.skipped[OVERTAKEN] += 1
        if self._missed[block] == MISSED_ROUNDS and not daemon.crowds.is_crowd(block):
            text = "too slow for these rounds: out of the group until caught up"
            log.warning("%s: %s", block, text)
            daemon.chronicle.outcomes[block] = (tick, text)
            daemon.tasks.create_task(daemon.standing.publish(tick))
        return True

    async def _exchange(self, block: str, due: Meeting, cut: Cut) -> None:
        """Run one round of one block, and bring the worker to its outcome."""
        daemon = self._daemon
        replica, work = daemon.session.replicas[block], cut.works[block]
        before = replica.state
        late_s = daemon.clock.now() - daemon.clock.time_of(due.tick)
        timing = Timing(*round_timing(daemon.spec, before.age, late_s, due.stride))
        try:
            if daemon.crowds.is_crowd(block):
                holders = daemon.crowds.holders(block)
                outcome = await run_round_among(daemon.swarm, replica, due.tick, due.group, work, timing, holders)
            else:
                outcome = await run_round(daemon.swarm, replica, due.tick, due.group, work, timing)
        except asyncio.CancelledError:  # this peer leaves
            if replica.state is before:
                replica.skip(due.tick)
            else:
                await self._take(replica, before, cut, is_step=replica.pending is None)
            raise
        except Exception as error:  # of another peer, or of ours: it ends here, not with the daemon
            if is_of_this_machine(error):
                raise
            log.exception("%s round %d failed; please report it", block, due.tick)
            replica.skip(due.tick)
            outcome = Outcome(f"skipped: {type(error).__name__}, see the log", False, FAULTY)
        if replica.state is not before:
            await self._take(replica, before, cut, is_step=outcome.is_step)
        self._record(due, outcome, replica, late_s)
        has_changed = self._missed.pop(block, 0) >= MISSED_ROUNDS
        if outcome.cause != RESTARTED:
            offer_s = None if outcome.offer_s is None else late_s + outcome.offer_s
            trial = Trial(offer_s, late_s + timing.cut_s, outcome.is_step)
            if len(due.group) > 1:
                daemon.company.ended(trial, outcome.cause)
            if not daemon.crowds.is_crowd(block):
                has_changed |= self._has_other_stride(block, trial, is_alone=len(due.group) < 2)
        if has_changed:
            await daemon.standing.publish(daemon.clock.tick())

    async def _take(self, replica: Replica, before: OuterState, cut: Cut, *, is_step: bool) -> None:
        """Bring the worker to the replica's new state, and save that."""
        await self._daemon.session.rebase(replica.block, before, cut, is_step=is_step)
        await asyncio.to_thread(self._daemon.store.save, replica)

    def _has_other_stride(self, block: str, trial: Trial, *, is_alone: bool) -> bool:
        """Take in what a round has shown; return whether this peer takes longer or shorter ones from now on."""
        daemon = self._daemon
        if block not in daemon.session.replicas:
            return False
        trials = self._trials.setdefault(block, [])
        trials.append(trial)
        del trials[:-GOOD_ROUNDS]
        _, stride = self._strides.get(block, (0, 1))
        round_s = round_seconds(daemon.spec, daemon.session.replicas[block].state.age)
        if is_alone:
            new, reason = 1, "there is nobody else"
        else:
            new, reason = next_stride(stride, trials, daemon.workers.progress.step_s, round_s)
        if new == stride:
            return False
        trials.clear()
        self._strides[block] = (daemon.clock.tick() + ACT_TICKS, new)
        text = f"{block}: rounds of {new * round_s:.3g} s from now on: {reason}"
        log.warning("%s", text)
        daemon.chronicle.happened(text)
        return True

    def _record(self, due: Meeting, outcome: Outcome, replica: Replica, late_s: float) -> None:
        daemon, block, state = self._daemon, replica.block, replica.state
        daemon.chronicle.outcomes[block] = (due.tick, outcome.text)
        if outcome.cause:
            daemon.chronicle.skipped[outcome.cause] += 1
        if outcome.is_step and block == daemon.session.sub_model:
            daemon.chronicle.rounds += 1
        loss = daemon.workers.progress.loss
        log.info(
            "%s round %d: %s; version %d, age %d, digest %s, loss %s, %.2f s late",
            block, due.tick, outcome.text, state.version, state.age, state.digest[:8], f"{loss:.3f}" if loss else "-",
            late_s,
        )  # fmt: skip
