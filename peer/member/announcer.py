"""What this peer tells the others: its member record, written anew in time, and as soon as it holds something else."""

from collections.abc import Callable

from configs.names import MAX_ADDRESSES
from dht.membership import RENEW_TICKS, hold
from dht.records import MemberRecord
from peer.member.crowds import Crowds
from peer.member.report import Parts, report_of

Strides = dict[str, tuple[int, int]]  # block → (from_tick, stride)


class Announcer:
    """Writes the member record. What is in it is the other rooms': `held` and `strides` are those of the rounds."""

    def __init__(
        self, parts: Parts, crowds: Crowds, held: Callable[[], list[str]], strides: Callable[[], Strides]
    ) -> None:
        self._parts, self._crowds = parts, crowds
        self._held, self._strides = held, strides
        self._published_at: int | None = None
        self._published: object = None  # what must be said at once when it changes

    def is_due(self, tick: int) -> bool:
        """Return whether the record should be written at `tick`: it ages, or something in it has changed."""
        if self._published_at is None or tick - self._published_at >= RENEW_TICKS:
            return True
        return self._published != self._urgent()

    async def publish(self, tick: int, *, is_leaving: bool = False) -> None:
        """Write this peer's member record."""
        parts = self._parts
        is_holding = not (is_leaving or parts.activity.is_paused)
        sub_model = parts.session.sub_model
        record = MemberRecord(
            run_id=parts.facts.spec.run_id,
            addresses=parts.place.addresses[:MAX_ADDRESSES],
            holdings=hold(parts.membership.holdings(), self._held() if is_holding else [], tick),
            strides=self._strides() if is_holding else {},
            sub_model=sub_model,
            keeps=parts.store.versions(),
            ages=parts.store.ages(),
            leases=parts.library.leases(parts.facts.strategy, sub_model) if is_holding and sub_model else [],
            crowds=self._crowds.told() if is_holding else {},
            report=report_of(parts),
            is_leaving=is_leaving,
        )
        self._published_at, self._published = tick, self._urgent()
        await parts.membership.publish(record, is_listed=is_leaving or self._crowds.is_listed())

    def _urgent(self) -> object:
        is_paused = self._parts.activity.is_paused
        return self._parts.session.sub_model, is_paused, self._held(), self._strides()
