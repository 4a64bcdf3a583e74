"""What does not change while a peer takes part in a run."""

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from configs.clock import Clock, SteadyTime
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

    @classmethod
    def of(cls, spec: RunSpec, config: PeerConfig, domains: int, me: str) -> Self:
        """Return the facts of a peer in a run with so many domains; its clock begins to count."""
        clock = Clock(spec.genesis, spec.rounds.tick_seconds, SteadyTime())
        return cls(spec, config, Strategy.of(spec.strategy, domains), me, clock)

    @property
    def data_seed(self) -> int:
        """What orders this peer's data: another order for every peer."""
        return int.from_bytes(sha256(self.me.encode()).digest()[:4], "big")
