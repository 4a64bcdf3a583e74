"""What the doctor measures: plain values. Whatever could not be measured says why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from configs.run import RunSpec
from dht.relays import Terms
from protocols.reach import ReachAnswer

T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """Not measured, and why; `is_fault` where the attempt itself showed that something is wrong."""

    why: str
    is_fault: bool = False


@dataclass(frozen=True)
class OtherVersion(Unknown):
    """Not measured, as the other side is of another version of shoal."""


Measured: TypeAlias = T | Unknown


@dataclass(frozen=True)
class Daemon:
    """The daemon of the state directory, as it says itself."""

    state: str
    run_id: str
    port: int  # that it listens on for other peers
    warnings: Sequence[str]
    unseen: Sequence[str]  # other peers that are not seen: who, and why


@dataclass(frozen=True)
class Disk:
    """The file system of the state directory."""

    path: str
    free_bytes: int
    free_files: int
    is_writable: bool
    problem: str = ""  # why it is not writable


@dataclass(frozen=True)
class Memory:
    """Of this machine, or its container."""

    free_bytes: int
    problem: str = ""  # with the run's model


@dataclass(frozen=True)
class Devices:
    """What would train here."""

    names: Sequence[str]
    problem: str = ""


@dataclass(frozen=True)
class Descriptors:
    """How many files a process may have open: as it begins, and at most."""

    soft: int
    hard: int


@dataclass(frozen=True)
class Machine:
    """What can be seen without anybody else."""

    version: str
    protocol: int
    state_dir: str
    daemon: Measured[Daemon]
    run_id: Measured[str]  # of the state directory
    port: Measured[int]  # that is to be listened on; 0: any
    disk: Measured[Disk]
    memory: Measured[Memory]
    devices: Measured[Devices]
    descriptors: Measured[Descriptors]


@dataclass(frozen=True)
class Description:
    """What the peer says of its run."""

    version: str
    spec: RunSpec
    clock_offset_s: float  # its clock minus ours
    uncertainty_s: float


@dataclass(frozen=True)
class Outside:
    """What a peer at an address shows; `way` is that address, or why it cannot be reached."""

    way: Measured[str]
    hosts: frozenset[str] = frozenset()  # this machine's own addresses
    own_port: int = 0  # that these questions were asked from
    asked_port: int = 0  # that was to be dialled from outside
    reach: Sequence[ReachAnswer] = ()  # of the peer, then of others of its run
    reach_problem: str = ""
    terms: Measured[Terms] = Unknown("")
    description: Measured[Description] = Unknown("")
    down_mbit: Measured[float] = Unknown("")


@dataclass(frozen=True)
class Facts:
    """All of it."""

    machine: Machine
    outside: Outside
    clock_step_s: float  # by which this machine's clock was set while all this was measured
