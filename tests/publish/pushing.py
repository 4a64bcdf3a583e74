"""What the tests of publishing share: a peer's state directory."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from peer.block.store import BlockStore
from peer.member.entry import Entry
from peer.train.outer import OuterState, new_state
from peer.train.partition import COMMON


@dataclass
class Saved:
    """A state directory, and what is in it."""

    folder: Path
    corpus: Path
    entry: Entry
    store: BlockStore
    state: OuterState

    def advance(self) -> OuterState:
        """Store a newer state of the common model."""
        old = self.state
        version = old.version + 1
        ages = {"me": 100 * version}
        self.state = new_state(COMMON, old.phi + 0.5, None, version=version, round_=version, ages=ages, is_final=False)
        asyncio.run(self.store.put(self.state))
        return self.state
