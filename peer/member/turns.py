"""Which sub-model this peer should train: the one that needs it most, and with few peers several in turn.

Asked at each tick; how the change is made is the daemon's affair.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dht.leases import assign, choose_sub_model, next_turn
from peer.block.timing import TURN_TICKS
from peer.train.partition import COMMON

if TYPE_CHECKING:
    from peer.daemon import Daemon


class Turns:
    """Chooses for a daemon. Everybody chooses by the same rules from the same views, so choices seldom collide."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._unavailable: dict[str, int] = {}  # sub-model → tick before which it is not tried again
        self.began = 0  # tick at which this peer took its sub-model

    def lease(self) -> str:
        """Return the sub-model with the fewest holders, then the youngest, of those that still need tokens.

        Raises UsageError when the one that was asked for does not exist.
        """
        daemon = self._daemon
        if daemon.config.sub_model is not None:
            daemon.strategy.blocks(daemon.config.sub_model)
            return daemon.config.sub_model
        names = self._trainable() or [daemon.strategy.sub_models[0]]
        holders = self._holders(self._unfinished(names) or names)
        return choose_sub_model(holders, daemon.standing.ages(), daemon.me, daemon.spec.seed)

    def target(self, tick: int) -> str:
        """Return the sub-model that this peer should train; "" for none, when all have had their tokens."""
        daemon = self._daemon
        current = daemon.session.sub_model
        if not current or daemon.is_paused:
            return current
        if current == COMMON and daemon.session.replicas[COMMON].state.is_final:
            return self._at_parting()
        if daemon.standing.is_done(current):
            return "" if all(map(daemon.standing.is_done, daemon.strategy.sub_models)) else self.lease()
        if current != COMMON and daemon.config.sub_model is None and tick - self.began >= self._turn_ticks(tick):
            holders = self._holders({*self._unfinished(self._trainable()), current})
            return next_turn(current, holders, daemon.standing.ages(), daemon.me) or current
        return current

    def put_off(self, sub_model: str) -> None:
        """Leave a sub-model that could not be had alone for a while."""
        self._unavailable[sub_model] = self._daemon.clock.tick() + TURN_TICKS

    def _at_parting(self) -> str:
        """Return this peer's place where sub-models part: by the last common view, so that they are all taken.

        Who was not in that view (too slow for its rounds, paused, or only just back) takes what needs it most.
        """
        daemon = self._daemon
        if daemon.config.sub_model is not None or not all(map(self._can_train, daemon.strategy.sub_models)):
            return self.lease()
        members = daemon.membership.view(COMMON, daemon.session.replicas[COMMON].state.round)
        return assign(members, daemon.strategy.sub_models, daemon.spec.seed).get(daemon.me) or self.lease()

    def _turn_ticks(self, tick: int) -> int:
        """Return how long this peer stays with a sub-model that others wait for: for one of its own rounds at least."""
        daemon = self._daemon
        lengths = [
            daemon.spec.rounds.length(replica.state.age) * daemon.membership.strides(block, tick).get(daemon.me, 1)
            for block, replica in daemon.session.replicas.items()
        ]
        return max(TURN_TICKS, *lengths)

    def _trainable(self) -> list[str]:
        return [name for name in self._daemon.strategy.sub_models if self._can_train(name)]

    def _unfinished(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not self._daemon.standing.is_done(name)]

    def _holders(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        tick = self._daemon.standing.acting_tick()
        return {name: self._daemon.membership.view(name, tick) for name in names}

    def _can_train(self, sub_model: str) -> bool:
        daemon = self._daemon
        is_tried = self._unavailable.get(sub_model, 0) <= daemon.clock.tick()
        return is_tried and daemon.library.can_train(daemon.strategy, sub_model)
