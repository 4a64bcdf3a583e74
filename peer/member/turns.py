"""Which sub-model this peer should train: the one that needs it most, and with few peers several in turn.

Asked at each tick; how the change is made is another room's (`changes.py`).
"""

from collections.abc import Iterable

from dht.leases import assign, choose_sub_model, next_turn
from dht.membership import Membership
from peer.member.activity import Activity
from peer.member.facts import Facts
from peer.member.library import Library
from peer.member.outlook import Outlook
from peer.member.session import Session
from peer.train.partition import COMMON

TURN_TICKS = 8  # a peer that serves several sub-models stays this long with one


class Turns:
    """Chooses for a member. Everybody chooses by the same rules from the same views, so choices seldom collide."""

    def __init__(
        self,
        facts: Facts,
        activity: Activity,
        membership: Membership,
        outlook: Outlook,
        session: Session,
        library: Library,
    ) -> None:
        self._facts, self._activity, self._membership = facts, activity, membership
        self._outlook, self._session, self._library = outlook, session, library
        self._unavailable: dict[str, int] = {}  # sub-model → tick before which it is not tried again
        self.began = 0  # tick at which this peer took its sub-model

    def lease(self) -> str:
        """Return the sub-model with the fewest holders, then the youngest, of those that still need tokens.

        Raises UsageError when the one that was asked for does not exist.
        """
        if self._facts.config.sub_model is not None:
            self._facts.strategy.blocks(self._facts.config.sub_model)
            return self._facts.config.sub_model
        names = self._trainable() or [self._facts.strategy.sub_models[0]]
        holders = self._holders(self._unfinished(names) or names)
        return choose_sub_model(holders, self._outlook.ages(), self._facts.me, self._facts.spec.seed)

    def target(self, tick: int) -> str | None:
        """Return the sub-model that this peer should train; None, when all have had their tokens."""
        current = self._session.sub_model
        if not current or self._activity.is_paused:
            return current or None
        if current == COMMON and self._session.replicas[COMMON].state.is_final:
            return self._at_parting()
        if self._outlook.is_done(current):
            return None if all(map(self._outlook.is_done, self._facts.strategy.sub_models)) else self.lease()
        if current != COMMON and self._facts.config.sub_model is None and tick - self.began >= self._turn_ticks(tick):
            holders = self._holders({*self._unfinished(self._trainable()), current})
            return next_turn(current, holders, self._outlook.ages(), self._facts.me) or current
        return current

    def put_off(self, sub_model: str) -> None:
        """Leave a sub-model that could not be had alone for a while."""
        self._unavailable[sub_model] = self._facts.clock.tick() + TURN_TICKS

    def _at_parting(self) -> str:
        """Return this peer's place where sub-models part: by the last common view of who took part, so all are taken.

        Who was not in that view (too slow for its rounds, paused, or only just back) takes what needs it most.
        """
        if self._facts.config.sub_model is not None or not all(map(self._can_train, self._facts.strategy.sub_models)):
            return self.lease()
        state = self._session.replicas[COMMON].state
        members = [peer for peer in self._membership.view(COMMON, state.round) if peer in state.ages]
        return (
            assign(members, self._facts.strategy.sub_models, self._facts.spec.seed).get(self._facts.me) or self.lease()
        )

    def _turn_ticks(self, tick: int) -> int:
        """Return how long this peer stays with a sub-model that others wait for: for one of its own rounds at least."""
        lengths = [
            self._facts.spec.rounds.length(replica.state.age)
            * self._membership.strides(block, tick).get(self._facts.me, 1)
            for block, replica in self._session.replicas.items()
        ]
        return max(TURN_TICKS, *lengths)

    def _trainable(self) -> list[str]:
        return [name for name in self._facts.strategy.sub_models if self._can_train(name)]

    def _unfinished(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not self._outlook.is_done(name)]

    def _holders(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        tick = self._outlook.acting_tick()
        return {name: self._membership.holders(name, tick) for name in names}

    def _can_train(self, sub_model: str) -> bool:
        is_tried = self._unavailable.get(sub_model, 0) <= self._facts.clock.tick()
        return is_tried and self._library.can_train(self._facts.strategy, sub_model)
