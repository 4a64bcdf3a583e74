"""A simulated network: which messages arrive in time, and who leaves. The same for the same seed."""

import hashlib
import random
from collections.abc import Sequence

from peer.block.timing import LIST_SHARE
from peer.simulate.scenario import TICK_SECONDS, Scenario

Lists = dict[str, dict[str, str]]  # member → what it holds: peer → offer id


def offer_id(peer: str, tick: int) -> str:
    """Return the name of a peer's offer of a tick."""
    return hashlib.sha256(f"{peer} {tick}".encode()).hexdigest()


class Links:
    """Loses and delays each message by itself; a peer that leaves says nothing more."""

    def __init__(self, scenario: Scenario, cut_share: float) -> None:
        self._scenario = scenario
        self._cut_ms = 1000 * TICK_SECONDS * cut_share
        self._list_ms = 1000 * TICK_SECONDS * LIST_SHARE
        self.chance = random.Random(f"links {scenario.seed}")

    def leaving(self, names: Sequence[str]) -> set[str]:
        """Return who leaves in this round: `churn` of the peers, on average, and never all."""
        gone = {name for name in names if self.chance.random() < self._scenario.churn}
        return gone if len(gone) < len(names) else set(names[1:])

    def held(self, group: Sequence[str], tick: int, gone: set[str]) -> Lists:
        """Return what each member holds at the cut of a tick, of the offers of the members that are there."""
        offers = {name: offer_id(name, tick) for name in group if name not in gone}
        return {
            me: {peer: offer for peer, offer in offers.items() if peer == me or self.arrives(self._cut_ms)}
            for me in offers
        }

    def heard(self, me: str, lists: Lists) -> Lists:
        """Return the lists that `me` hears; its own is one of them."""
        return {member: held for member, held in lists.items() if member == me or self.arrives(self._list_ms)}

    def arrives(self, deadline_ms: float) -> bool:
        """Whether a message arrives before its deadline."""
        delay_ms = self._scenario.delay_ms
        return not self.loses() and (not delay_ms or self.chance.expovariate(1 / delay_ms) <= deadline_ms)

    def loses(self) -> bool:
        """Whether a message never arrives."""
        return self._scenario.loss > 0 and self.chance.random() < self._scenario.loss
