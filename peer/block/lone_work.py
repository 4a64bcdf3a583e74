"""What a peer did on a block without others, who may have gone on without it."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from peer.train.outer import OuterState


@dataclass(frozen=True)
class LoneWork:
    """What steps without others have put into the block from `round` on.

    It is forgotten when so many versions have followed the last of them that no other history can lead past it.
    """

    round: int
    version: int  # after the last of the steps, or after that in which histories were merged
    digest: str  # of the state after it: a history that has another state in its place has not all of this work
    counted_tokens: int  # of this peer in the block before them: a history without these steps may have more offers
    work: Tensor  # φ before them − φ after them, (N,)

    def lacking_after(self, base: OuterState, state: OuterState) -> Tensor | None:
        """Return what a history lacks that leaves `base`, which leads to `state` here; None if it has everything."""
        if base.round < self.round:
            return self.work
        is_amid = base.version < self.version == state.version
        return base.phi - state.phi if is_amid else None

    def lacking_in(self, told: Mapping[int, str], is_older: bool) -> Tensor | None:
        """Return what a history lacks of which these states are told, version → digest; None if it has everything.

        Where that is not told it depends on whether the history `is_older`: counts fewer of this peer's tokens.
        """
        if self.version in told:
            return None if told[self.version] == self.digest else self.work
        return self.work if is_older else None
