"""What does not change while a peer takes part in a run."""

from dataclasses import dataclass

from configs.clock import Clock
from configs.machine import PeerConfig
from configs.run import RunSpec
from peer.train.partition import Strategy


@dataclass(frozen=True)
class Facts:
    """A run, and this peer in it."""

    spec: RunSpec
    config: PeerConfig
    strategy: Strategy
    me: str  # this peer's id
    clock: Clock
