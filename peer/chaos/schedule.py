"""Faults as data: what can be done to a swarm, and schedules of it, as files and drawn from a seed.

How each is done stands in `faults.py`, what must hold all the same in `invariants.py`.
"""

import random
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from configs.errors import UsageError
from configs.files import first_problem
from peer.chaos.links import NAMED

Kind = Literal[
    "kill",  # SIGKILL of every process of a peer at once, as a power cut
    "kill_holders",  # the same to all who hold the expert with the fewest holders, for good
    "kill_daemon",  # SIGKILL of the daemon alone; what it has started must end by itself
    "kill_worker",  # SIGKILL of the process that trains
    "kill_p2pd",  # SIGKILL of libp2p's process; the daemon ends, and whoever supervises it starts it again
    "sleep",  # SIGSTOP of everything, then SIGCONT: a laptop that is closed and opened
    "hang_worker",  # SIGSTOP of the process that trains, for good
    "starve_worker",  # no more memory for the process that trains
    "leave",  # SIGTERM, as `shoal leave`
    "link",  # the peer's way to the network becomes the named one
    "cut",  # nothing comes through any more
    "uplink",  # another address: from the wifi to the phone
    "partition",  # into the named sides
    "full_disk",
    "read_only",  # the state directory cannot be written any more
    "damage",  # a file of the state directory, while the daemon is down
    "clock",  # the machine's clock is set by so many seconds, and set right again
    "wrong_clock",  # the peer comes back from a power cut with its clock off by so many seconds
    "twin",  # a copy of the state directory is started beside it
    "other_version",  # somebody whose protocol is another one joins, and is refused
    "other_run",  # somebody joins by the id of another run, and is refused
]
ON_LINKS = {"link", "cut", "uplink", "partition"}
ON_DISKS = {"full_disk", "read_only"}
MOMENTARY = {"kill_worker", "hang_worker", "starve_worker", "uplink", "other_version", "other_run"}  # nothing to undo
VISITORS = {"other_version", "other_run"}  # that are no members
File = Literal["checkpoint", "residual", "run", "book", "domains", "counters"]
MAX_PEERS = 16


class Fault(BaseModel):
    """One thing that goes wrong: when, at whom, for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    at: Annotated[float, Field(ge=0, le=10_000)] = 0.0  # ticks after the swarm has come to seal rounds of all
    ticks: Annotated[float, Field(ge=0, le=10_000)] = 5.0  # until it is undone
    peers: tuple[int, ...] = (1,)  # at whom, by number; 0 is the founder
    is_final: bool = False  # never undone: who was killed or left stays away
    link: str = "absurd"  # of kind `link`: one of NAMED
    sides: tuple[tuple[int, ...], ...] = ()  # of kind `partition`: who is not named is on the first
    file: File = "checkpoint"  # of kind `damage`
    how: Literal["corrupt", "truncate"] = "corrupt"
    seconds: float = 300.0  # of kinds `clock` and `wrong_clock`

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.kind == "link" and self.link not in NAMED:
            raise ValueError(f"no link is called '{self.link}'; there are {', '.join(NAMED)}")
        if self.kind == "partition" and len(self.sides) < 2:
            raise ValueError("a partition needs `sides`, such as [[0, 1], [2, 3]]")
        if self.is_final and self.kind not in {"kill", "leave", "kill_holders"}:
            raise ValueError(f"is_final is only for the kinds kill and leave, not for {self.kind}")
        if self.kind == "kill_holders" and (self.peers or not self.is_final):
            raise ValueError("kill_holders finds its peers by itself, and for good: peers = [], is_final = true")
        return self

    @property
    def ends(self) -> float:
        """When it is undone, in ticks."""
        return self.at if self.is_final or self.kind in MOMENTARY else self.at + self.ticks

    def victims(self) -> set[int]:
        """Return the peers that something is done to; of a partition all but the first side."""
        if self.kind in VISITORS:
            return set()
        return {peer for side in self.sides[1:] for peer in side} if self.kind == "partition" else {*self.peers}


class Schedule(BaseModel):
    """A swarm, and what is done to it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[\w .+-]{1,64}$")] = "schedule"
    peers: Annotated[int, Field(ge=2, le=MAX_PEERS)] = 4
    strategy: Literal["replicas", "experts"] = "replicas"
    tick_seconds: Annotated[float, Field(ge=0.2, le=3600)] = 1.0
    seed: int = 0  # of what is lost on the links and which bytes are damaged
    faults: Annotated[tuple[Fault, ...], Field(max_length=1000)]

    @model_validator(mode="after")
    def _knows_its_peers(self) -> Self:
        for fault in self.faults:
            named = {*fault.peers, *(peer for side in fault.sides for peer in side)}
            if wrong := sorted(peer for peer in named if not 0 <= peer < self.peers):
                raise ValueError(f"there is no peer {wrong[0]}: they are 0 to {self.peers - 1}")
        if self.strategy == "replicas" and any(fault.kind == "kill_holders" for fault in self.faults):
            raise ValueError('kill_holders is for strategy = "experts"')
        return self

    def needs_links(self) -> bool:
        """Say whether its peers need networks of their own."""
        return any(fault.kind in ON_LINKS for fault in self.faults)

    def on_disks(self) -> set[int]:
        """Return the peers that need a disk of their own."""
        return {peer for fault in self.faults if fault.kind in ON_DISKS for peer in fault.peers}

    def without(self, kinds: set[str]) -> "Schedule":
        """Return it without the faults of these kinds."""
        return self.model_copy(update={"faults": tuple(f for f in self.faults if f.kind not in kinds)})


def read_schedule(path: Path) -> Schedule:
    """Read a schedule from a TOML or JSON file. Raises UsageError: one line that says what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); name a schedule, a TOML or JSON file") from None
    try:
        if path.suffix == ".json":
            return Schedule.model_validate_json(data)
        table = tomllib.loads(data.decode())
        return Schedule.model_validate({"name": path.stem, **table})
    except (ValueError, ValidationError) as error:  # TOMLDecodeError and UnicodeDecodeError are such
        raise UsageError(f"{path} is no schedule ({first_problem(error)}); docs/operations.md shows one") from None


def _each_kind() -> dict[str, Schedule]:
    """Return a schedule for every kind of fault, alone in a swarm of four, and for some that only two faults make."""
    everybody = (0, 1, 2, 3)
    faults = {
        "power cut": Fault(kind="kill"),
        "daemon killed": Fault(kind="kill_daemon"),
        "worker killed": Fault(kind="kill_worker"),
        "p2pd killed": Fault(kind="kill_p2pd"),
        "asleep": Fault(kind="sleep", ticks=6),
        "asleep for long": Fault(kind="sleep", ticks=20),
        "worker hangs": Fault(kind="hang_worker", ticks=1),
        "worker out of memory": Fault(kind="starve_worker", ticks=1),
        "link cut": Fault(kind="cut", ticks=15),
        "link flaps": Fault(kind="cut", ticks=1),
        "uplink changed": Fault(kind="uplink", ticks=1),
        "partition in two": Fault(kind="partition", sides=((0, 1), (2, 3)), ticks=16),
        "partition in three": Fault(kind="partition", sides=((0, 1), (2,), (3,)), ticks=16),
        "founder gone": Fault(kind="leave", peers=(0,), is_final=True),
        "founder killed": Fault(kind="kill", peers=(0,), is_final=True),
        "all but one gone": Fault(kind="kill", peers=(0, 1, 2), is_final=True),
        "all gone and back": Fault(kind="kill", peers=everybody),
        "left and back": Fault(kind="leave"),
        "disk full": Fault(kind="full_disk"),
        "read-only state": Fault(kind="read_only"),
        **{f"link {name}": Fault(kind="link", link=name, ticks=10) for name in NAMED if name != "lan"},
        **{
            f"{file} {how}": Fault(kind="damage", file=file, how=how, ticks=2)
            for file in ("checkpoint", "residual", "run", "book", "domains", "counters")
            for how in ("corrupt", "truncate")
        },
        "clock forward": Fault(kind="clock", seconds=420.0, ticks=12),
        "clock back": Fault(kind="clock", seconds=-420.0, ticks=12),
        "clock a little back": Fault(kind="clock", seconds=-4.0, ticks=12),
        "clock wrong at the start": Fault(kind="wrong_clock", seconds=-420.0, ticks=3),
        "one identity twice": Fault(kind="twin", ticks=12),
        "another version": Fault(kind="other_version"),
        "another run": Fault(kind="other_run"),
    }
    schedules = {name: Schedule(name=name, faults=(fault,)) for name, fault in faults.items()}
    # All begin anew while they are divided: neither half knows more of the other than what stands in its files.
    apart = (Fault(kind="partition", sides=((0, 1), (2, 3)), ticks=60), Fault(kind="kill", at=3.0, peers=everybody))
    schedules["halves formed apart"] = Schedule(name="halves formed apart", faults=apart)
    gone = Fault(kind="kill_holders", peers=(), is_final=True)
    schedules["last holder gone"] = Schedule(name="last holder gone", peers=3, strategy="experts", faults=(gone,))
    return schedules


EACH_KIND = _each_kind()


def drawn(seed: int) -> Schedule:
    """Draw a mixed schedule: 4 to 6 peers, three to five faults, some of them at the same time."""
    random_ = random.Random(seed)
    peers = random_.randint(4, 6)
    faults: list[Fault] = []
    at = 0.0
    for _ in range(random_.randint(3, 5)):
        fault = _drawn_fault(random_, peers, at)
        if not _overlaps(fault, faults):
            faults.append(fault)
        at += random_.choice((0.0, 1.5, 4.0, 6.5))
    return Schedule(name=f"seed {seed}", peers=peers, seed=seed, faults=tuple(faults))


_DRAWN: tuple[Kind, ...] = (
    *("kill", "kill_daemon", "kill_worker", "kill_p2pd", "sleep", "leave", "link", "cut", "uplink"),
    *("partition", "full_disk", "read_only", "damage", "clock", "other_version"),
)  # hang_worker takes a minute, and twins stay out for an hour: these only alone


def _drawn_fault(random_: random.Random, peers: int, at: float) -> Fault:
    kind = random_.choice(_DRAWN)
    many = 1 if random_.random() < 0.7 else random_.randint(2, peers)
    who = tuple(sorted(random_.sample(range(peers), many)))
    parts = random_.choice((2, 2, 3))
    order = random_.sample(range(peers), peers)
    return Fault(
        kind=kind,
        at=at,
        ticks=random_.choice((1.0, 3.0, 5.0, 9.0)),
        peers=who if kind in {"kill", "sleep", "leave", "link", "clock"} else who[:1],
        link=random_.choice([name for name in NAMED if name != "lan"]),
        sides=tuple(tuple(sorted(order[part::parts])) for part in range(parts)) if kind == "partition" else (),
        file=random_.choice(("checkpoint", "residual", "run", "book", "domains", "counters")),
        how=random_.choice(("corrupt", "truncate")),
        seconds=random_.choice((-420.0, -4.0, 4.0, 420.0)),
    )


def _overlaps(fault: Fault, others: Sequence[Fault]) -> bool:
    """Say whether something is done to one of its peers already, or to the network."""
    for other in others:
        is_at_once = fault.at < other.ends + 1 and other.at < fault.ends + 1
        is_same = bool(fault.victims() & other.victims()) or fault.kind == other.kind == "partition"
        if is_at_once and is_same:
            return True
    return False
