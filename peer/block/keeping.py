"""Which state of a block counts as its newest, and who may ask for one to be kept. Pure; nothing is fetched here."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from configs.errors import PeerError
from protocols.state import BlockState

FEW_SOURCES = 3  # from which on a majority vouches for a state; of fewer, what there is is taken


@dataclass(frozen=True)
class KeepRules:
    """What the members' records say of who has to do with a block; unless told otherwise, everybody may ask."""

    holders: Callable[[str], Collection[str]] = lambda block: ()  # the peers in its view; empty: nobody is known
    stores: Callable[[str, str], bool] = lambda peer, block: False  # whether a peer says that it keeps a block
    is_keeper: Callable[[str, str], bool] = lambda block, gone: True  # whether this peer keeps it when `gone` has left

    def check(self, block: str, from_peer: str) -> None:
        """See that this peer is one to keep `block`, and the other one to ask for it. Raises PeerError.

        Where nobody holds a block any more, whoever has it may hand it over.
        """
        holders = self.holders(block)
        if holders and from_peer not in holders and not self.stores(from_peer, block):
            raise PeerError(f"{from_peer} neither holds nor keeps {block}, and others do")
        if not self.is_keeper(block, from_peer):
            raise PeerError(f"this peer is none of the keepers of {block}")


def vouched(named: Sequence[BlockState]) -> BlockState:
    """Return the state of those that the sources name for which they vouch together: one for each source, at least one.

    It is the newest that more than half of them have reached, and of several of one version the one that most name.
    A state that a single stranger claims to be newer than all others does not count; of two sources the newer one does.
    """
    if len(named) < FEW_SOURCES:
        return max(named, key=lambda s: (s.version, s.content_id))
    version = sorted((state.version for state in named), reverse=True)[len(named) // 2]
    there = [state for state in named if state.version == version]
    voices = Counter(state.content_id for state in named)
    return max(there, key=lambda s: (voices[s.content_id], s.content_id))
