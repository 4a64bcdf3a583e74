"""The rounds of the blocks that this peer trains: which are due, with whom, and what each comes to.

An exchange runs beside the training. A block has one at a time: a round that begins while another is under way passes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from peer import rounds
from peer.exchange import Outcome, run_round
from peer.random_group import run_round_among
from peer.session import Cut
from peer.train.outer import OuterState
from protocols.gossip import Timing

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger(__name__)

MISSED_ROUNDS = 2  # in a row, while another is under way: then a peer cannot keep up with a block's group


class Exchanges:
    """The rounds of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._under_way: dict[str, asyncio.Task[None]] = {}  # block → its round
        self._missed: Counter[str] = Counter()  # block → rounds that have passed during the one under way

    async def begin(self, tick: int) -> None:
        """Cut θ and begin an exchange of every block whose round ends at `tick`; training goes on at once."""
        daemon = self._daemon
        ages = {block: replica.state.age for block, replica in daemon.session.replicas.items()}
        groups = {block: self._group(block, tick) for block in rounds.due(daemon.spec, ages, tick)}
        if not any(groups.values()):
            return
        cut = await daemon.session.cut([block for block, group in groups.items() if group])
        for block, group in groups.items():
            if group:
                self._under_way[block] = daemon.tasks.create_task(self._exchange(block, tick, group, cut))

    def takes_part(self, block: str) -> bool:
        """Whether this peer takes part in the rounds of a block that it trains."""
        daemon = self._daemon
        return not (daemon.is_paused or daemon.is_switching or daemon.session.replicas[block].state.is_final)

    def held(self) -> list[str]:
        """Return the blocks in whose groups this peer counts."""
        return [block for block in self._daemon.session.replicas if self._missed[block] < MISSED_ROUNDS]

    async def settle(self) -> None:
        """Wait for the rounds under way."""
        under_way = [task for task in self._under_way.values() if not task.done()]
        if under_way:
            await asyncio.wait(under_way)

    def _group(self, block: str, tick: int) -> Sequence[str]:
        """Return who exchanges a block at `tick`; none if this peer does not, or has not done with its last round."""
        daemon = self._daemon
        under_way = self._under_way.get(block)
        if not self.takes_part(block):
            return ()
        if under_way is not None and not under_way.done():
            self._miss(block, tick)
            return ()
        if daemon.crowds.is_crowd(block):
            return daemon.crowds.group(block, tick)
        view = daemon.membership.view(block, tick)
        return view if daemon.me in view else ()

    def _miss(self, block: str, tick: int) -> None:
        """Let a round pass; after several leave the group, which would wait for this peer's word, until it is done."""
        daemon = self._daemon
        self._missed[block] += 1
        if self._missed[block] == MISSED_ROUNDS and not daemon.crowds.is_crowd(block):
            text = "too slow for these rounds: out of the group until caught up"
            log.warning("%s: %s", block, text)
            daemon.chronicle.outcomes[block] = (tick, text)
            daemon.tasks.create_task(daemon.standing.publish(tick))

    async def _exchange(self, block: str, tick: int, group: Sequence[str], cut: Cut) -> None:
        """Run one round of one block, and bring the worker to its outcome."""
        daemon = self._daemon
        replica, work = daemon.session.replicas[block], cut.works[block]
        before = replica.state
        late_s = daemon.clock.now() - daemon.clock.time_of(tick)
        timing = Timing(*rounds.timing(daemon.spec, before.age, late_s))
        if daemon.crowds.is_crowd(block):
            holders = daemon.crowds.holders(block)
            outcome = await run_round_among(daemon.swarm, replica, tick, group, work, timing, holders)
        else:
            outcome = await run_round(daemon.swarm, replica, tick, group, work, timing)
        if replica.state is not before:
            await daemon.session.rebase(block, before, cut, is_step=outcome.is_step)
            await asyncio.to_thread(daemon.store.save, replica)
        self._record(block, tick, outcome, replica.state)
        if self._missed.pop(block, 0) >= MISSED_ROUNDS:
            await daemon.standing.publish(daemon.clock.tick())

    def _record(self, block: str, tick: int, outcome: Outcome, state: OuterState) -> None:
        daemon = self._daemon
        daemon.chronicle.outcomes[block] = (tick, outcome.text)
        if outcome.is_step and block == daemon.session.sub_model:
            daemon.chronicle.rounds += 1
        loss = daemon.workers.progress.loss
        log.info(
            "%s round %d: %s; version %d, age %d, digest %s, loss %s",
            block, tick, outcome.text, state.version, state.age, state.digest[:8], f"{loss:.3f}" if loss else "-",
        )  # fmt: skip
