"""The rounds of the blocks that this peer trains: which are due, with whom, and what each comes to.

An exchange runs beside the training. A block has one at a time: a round that begins while another is under way passes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from configs.errors import DeviceError, StateError
from dht.membership import ACT_TICKS, Membership
from peer.block.exchange import RESTARTED, Outcome, Swarm, invited, run_round
from peer.block.random_group import run_round_among
from peer.block.replica import Replica
from peer.block.stride import GOOD_ROUNDS, Trial, next_stride
from peer.block.threads import whole
from peer.block.timing import Meeting, meeting, round_seconds, round_timing, rounds_of, silent_ticks
from peer.http.history import RoundRecord
from peer.member.activity import Activity
from peer.member.crowds import Crowds
from peer.member.facts import Facts
from peer.member.session import Session, Snapshots
from peer.member.timeline import Passed, record_of
from peer.train.outer import OuterState
from protocols.gossip import Timing

log = logging.getLogger(__name__)

MISSED_ROUNDS = 2  # rounds in a row that begin while an earlier one runs; then the peer leaves the block's group
OVERTAKEN = "overtaken"  # why a round passes: one before it is still under way
FAULTY = "faulty"  # why a round is skipped: an error that nobody foresaw


@dataclass(frozen=True)
class RoundEnd:
    """What came of a round of this peer, for those who count and show."""

    block: str
    tick: int
    outcome: Outcome
    trial: Trial | None = None  # of a round with others, that says how fast this peer was
    event: str = ""  # what follows from it, in words
    record: RoundRecord | None = None  # of a round that was begun


def is_of_this_machine(error: BaseException) -> bool:
    """Say whether an error, or one of a group, ends the daemon: a full disk, a device that is gone."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_of_this_machine, error.exceptions))
    return isinstance(error, StateError | DeviceError)


class Rounds:
    """The rounds of one member. `ended` is told what came of each."""

    def __init__(
        self,
        facts: Facts,
        activity: Activity,
        session: Session,
        swarm: Swarm,
        membership: Membership,
        crowds: Crowds,
        ended: Callable[[RoundEnd], None],
    ) -> None:
        self._facts, self._activity, self._session, self._swarm = facts, activity, session, swarm
        self._membership, self._crowds, self._ended = membership, crowds, ended
        self._under_way: dict[str, asyncio.Task[None]] = {}  # block → its round
        self._missed: Counter[str] = Counter()  # block → rounds that have passed during the one under way
        self._begun: dict[str, int] = {}  # block → tick of the round that has begun last
        self._trials: dict[str, list[Trial]] = {}  # block → its rounds with others since its stride was changed
        self._strides: dict[str, tuple[int, int]] = {}  # block → (from_tick, stride), as it is told to the others

    def begin(self, tick: int, tasks: asyncio.TaskGroup) -> None:
        """Begin an exchange of every block whose round ends at `tick`, from one snapshot; training goes on."""
        due = {block: each for block in self._session.replicas if (each := self._due(block, tick)) is not None}
        if not due:
            return
        taken = tasks.create_task(self._session.take_snapshots(list(due)))
        for block, each in due.items():
            self._begun[block] = each.tick
            self._missed.pop(block, None)
            self._under_way[block] = tasks.create_task(self._exchange(block, each, taken))
            length_s = round_seconds(self._facts.spec, self._session.replicas[block].state.age, each.stride)
            self._activity.watch.follow(f"{block}, round {each.tick}", self._under_way[block], taken, round_s=length_s)

    def held(self) -> list[str]:
        """Return the blocks in whose groups this peer counts."""
        return [
            block
            for block in self._session.replicas
            if self._missed[block] < MISSED_ROUNDS or self._under_way[block].done()
        ]

    def strides(self) -> dict[str, tuple[int, int]]:
        """Return what the others are told: block → (from_tick, stride), of the blocks that ever had one beyond 1."""
        return {block: told for block, told in self._strides.items() if block in self._session.replicas}

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
        state = self._session.replicas[block].state
        if not self._activity.takes_part() or state.is_final:
            return None
        rule = rounds_of(self._facts.spec, block, state.age)
        if self._crowds.is_crowd(block):
            group = self._crowds.group(block, tick)
            due = Meeting(tick, tuple(group), 1) if group and rule.is_due(tick) else None
        else:
            strides_at = partial(self._membership.strides, block)
            due = meeting(rule, self._facts.me, tick, self._begun.get(block, 0), strides_at)
            if due is not None:
                silent = silent_ticks(self._facts.spec, state.age, due.stride)
                group = invited(self._session.replicas[block], due.group, due.tick, silent)
                due = replace(due, group=tuple(group))
        return None if due is None or self._passes(block, due.tick) else due

    def _passes(self, block: str, tick: int) -> bool:
        """Say whether a round passes since the one before is under way; after several this peer leaves the group.

        The group would wait for this peer's word.
        """
        under_way = self._under_way.get(block)
        if under_way is None or under_way.done():
            return False
        self._missed[block] += 1
        text = "passed: the round before it is still under way"
        if self._missed[block] == MISSED_ROUNDS and not self._crowds.is_crowd(block):
            text = "too slow for these rounds: out of the group until caught up"
            log.warning("%s: %s", block, text)
        self._ended(RoundEnd(block, tick, Outcome(text, False, OVERTAKEN)))
        return True

    async def _exchange(self, block: str, due: Meeting, taken: asyncio.Task[Snapshots]) -> None:
        """Run one round of one block, and bring the worker to its outcome."""
        snapshots = await asyncio.shield(taken)  # the other blocks' rounds begin with it too
        facts, is_crowd = self._facts, self._crowds.is_crowd(block)
        replica, work = self._session.replicas[block], snapshots.works[block]
        before, loop = replica.state, asyncio.get_running_loop()
        late_s = facts.clock.now() - facts.clock.time_of(due.tick)
        tick_at, phases, traffic = loop.time() - late_s, {"snapshot": late_s}, self._swarm.offers.traffic
        came, went = traffic.bytes_in, traffic.bytes_out
        silent = silent_ticks(facts.spec, before.age, due.stride)
        timing = Timing(*round_timing(facts.spec, before.age, late_s, due.stride), silent)
        try:
            if is_crowd:
                holders = self._crowds.holders(block)
                outcome = await run_round_among(self._swarm, replica, due.tick, due.group, work, timing, holders)
            else:
                outcome = await run_round(self._swarm, replica, due.tick, due.group, work, timing)
        except asyncio.CancelledError:  # this peer leaves
            if replica.state is before:
                replica.skip(due.tick)
            else:
                await self._take(replica, before, snapshots, is_step=replica.pending is None)
            raise
        except Exception as error:  # of another peer, or of ours: it ends here, not with the daemon
            if is_of_this_machine(error):
                raise
            log.exception("%s round %d failed; please report it", block, due.tick)
            replica.skip(due.tick)
            outcome = Outcome(f"skipped: {type(error).__name__}, see the log", False, FAULTY)
        phases["stepped"] = loop.time() - tick_at
        if replica.state is not before:
            await self._take(replica, before, snapshots, is_step=outcome.is_step)
            phases["applied"] = loop.time() - tick_at
        if outcome.offer_s is not None:
            phases["offer"] = late_s + outcome.offer_s
        self._log(due, outcome, replica, late_s)
        trial, event = None, ""
        if outcome.cause != RESTARTED:
            offer_s = None if outcome.offer_s is None else late_s + outcome.offer_s
            trial = Trial(offer_s, late_s + timing.cut_s, outcome.is_shared)
            if not is_crowd:
                event = self._change_stride(block, trial, is_alone=outcome.is_alone)
        passed = Passed(
            block=block,
            tick=due.tick,
            group=due.group,
            at=facts.clock.time_of(due.tick),
            tick_at=tick_at,
            length_s=round_seconds(facts.spec, before.age, due.stride),
            cut_s=late_s + timing.cut_s,
            phases=phases,
            bytes_in=traffic.bytes_in - came,
            bytes_out=traffic.bytes_out - went,
        )
        record = record_of(passed, self._swarm.offers.book(block, due.tick), outcome, replica.state)
        self._ended(RoundEnd(block, due.tick, outcome, trial if len(due.group) > 1 else None, event, record))

    async def _take(self, replica: Replica, before: OuterState, snapshots: Snapshots, *, is_step: bool) -> None:
        """Bring the worker to the replica's new state, and save that.

        Who leaves meanwhile waits: what a worker that has not come along has beyond the new state would be owed twice.
        """

        async def take() -> None:
            await self._session.rebase(replica.block, before, snapshots, is_step=is_step)
            await self._session.save(replica)

        await whole(take())

    def _change_stride(self, block: str, trial: Trial, *, is_alone: bool) -> str:
        """Take in what a round has shown; if this peer takes longer or shorter ones from now on, say why."""
        if block not in self._session.replicas:
            return ""
        trials = self._trials.setdefault(block, [])
        trials.append(trial)
        del trials[: -1 if is_alone else -GOOD_ROUNDS]
        _, stride = self._strides.get(block, (0, 1))
        round_s = round_seconds(self._facts.spec, self._session.replicas[block].state.age)
        if is_alone:
            new, reason = 1, "there is nobody else"
        else:
            new, reason = next_stride(stride, trials, self._session.progress.usual_step_s, round_s)
        if new == stride:
            return ""
        trials.clear()
        self._strides[block] = (self._facts.clock.tick() + ACT_TICKS, new)
        event = f"{block}: rounds of {new * round_s:.3g} s from now on: {reason}"
        log.warning("%s", event)
        return event

    def _log(self, due: Meeting, outcome: Outcome, replica: Replica, late_s: float) -> None:
        state, loss = replica.state, self._session.progress.loss
        log.info(
            "%s round %d: %s; version %d, age %d, digest %s, loss %s, %.2f s late",
            replica.block, due.tick, outcome.text, state.version, state.age, state.digest[:8],
            f"{loss:.3f}" if loss else "-", late_s,
        )  # fmt: skip
