"""A whole swarm in one event loop: real daemons, a fake worker each, a network in memory, faults as data."""

import asyncio
import json
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from network import Air, Network
from worker import FakeWorkers

from configs.clock import Clock, SteadyTime
from configs.errors import UsageError
from configs.machine import PeerConfig
from configs.run import RunSpec
from dht.address_book import AddressBook
from dht.identity import Identity
from peer.block import replica as replica_module
from peer.block import store as store_module
from peer.daemon import Daemon
from peer.member.entry import Entry
from peer.member.facts import Facts
from peer.train.outer import Contribution, OuterState
from peer.train.partition import Strategy

GENESIS = 1_700_000_000.0


class Kind(Enum):
    """What may befall a peer."""

    KILL = "kill"  # its process ends as it is, and is started again
    LEAVE = "leave"  # it leaves, and comes back
    PAUSE = "pause"
    LOST_CALLS = "lost calls"  # nobody reaches it, and it reaches nobody
    SLOW = "slow"  # its messages and its steps take many times as long
    CLOCK = "clock"  # somebody sets its clock


@dataclass(frozen=True)
class Fault:
    kind: Kind
    peer: int
    tick: int
    seconds: float  # how long it lasts; of a clock: by how much it is set


class FakeLibrary:
    """Text is not what these swarms are about: there is always some."""

    def __init__(self, spec: RunSpec, num_domains: int) -> None:
        self.spec = spec
        self.domains = [
            SimpleNamespace(name=f"d{n}", tokens=1 << 40, shards=(), heldout="") for n in range(num_domains)
        ]
        self.tokenizer_id, self.tokenizer_json = "0" * 64, b"{}"
        self.on_bytes: Any = None
        self.leased: Any = dict
        self.stream = None

    async def obtain_base(self, peers: object) -> None:
        return None

    async def fetch_first(self, *arguments: object) -> None:
        pass

    async def fetch_in_background(self, *arguments: object) -> None:
        pass

    def sources(self, strategy: Strategy, sub_model: str) -> list[Any]:
        return []

    def heldout_sources(self, strategy: Strategy, sub_model: str) -> dict[str, Any]:
        return {}

    def path(self, blob: object) -> None:
        return None

    def trains(self, strategy: Strategy, sub_model: str) -> list[Any]:
        return self.domains

    def leases(self, strategy: Strategy, sub_model: str) -> list[str]:
        return []

    def domain_name(self, index: int | None) -> str:
        return "all" if index is None else str(self.domains[index].name)

    def can_train(self, strategy: Strategy, sub_model: str) -> bool:
        return True

    def lookup(self, content_id: str) -> None:
        return None


@dataclass
class Ledger:
    """Every outer step that anybody took: which state it led from, and what it counted of whom."""

    steps: dict[tuple[str, str], tuple[str, dict[str, torch.Tensor]]] = field(default_factory=dict)
    begun: dict[str, OuterState] = field(default_factory=dict)  # first states, by their digest

    def watch(self, monkeypatch: Any) -> None:
        outer, lone = replica_module.outer_step, replica_module.lone_step

        def stepped(base: OuterState, given: list[Contribution], *rest: Any, **more: Any) -> OuterState:
            after = outer(base, given, *rest, **more)
            self.steps[after.block, after.digest] = (base.digest, {one.peer_id: one.values for one in given})
            return after

        def alone(base: OuterState, theta: torch.Tensor, me: str, *rest: Any, **more: Any) -> OuterState:
            after = lone(base, theta, me, *rest, **more)
            self.steps[after.block, after.digest] = (base.digest, {me: base.phi - after.phi})
            return after

        derived = store_module.derive

        def begun(strategy: Strategy, block: str, *rest: Any) -> OuterState:
            state = derived(strategy, block, *rest)
            self.begun[state.digest] = state
            return state

        monkeypatch.setattr(store_module, "derive", begun)
        monkeypatch.setattr(replica_module, "outer_step", stepped)
        monkeypatch.setattr(replica_module, "lone_step", alone)

    def leads_to(self, state: OuterState, digest: str) -> bool:
        """Return whether the history of a state goes through the state with this digest."""
        at: str | None = state.digest
        while at is not None and at != digest:
            at = self.steps.get((state.block, at), (None, {}))[0]
        return at == digest

    def counted(self, state: OuterState) -> tuple[dict[str, int], dict[str, torch.Tensor]] | None:
        """Return the ages at the beginning of a state's history, and what it counted of each peer since.

        Returns None if histories were merged in it.
        """
        sums: dict[str, torch.Tensor] = {}
        digest, left = state.digest, state.version
        while left:
            if (state.block, digest) not in self.steps:
                return None
            digest, given = self.steps[state.block, digest]
            left -= 1
            for peer, values in given.items():
                sums[peer] = sums.get(peer, torch.zeros_like(values)) + values
        return dict(self.begun[digest].ages) if digest in self.begun else {}, sums

    def roots(self, block: str) -> list[str]:
        """Return the digests of the states that a block began with: of more than one, if its history parted there."""
        return [digest for digest, state in self.begun.items() if state.block == block]


class Member:
    """One peer: its files outlive its process."""

    def __init__(self, index: int, spec: RunSpec, identity: Identity, air: Air, folder: Path, step_s: float) -> None:
        self.index, self.spec, self.identity, self.air, self.folder = index, spec, identity, air, folder
        self.step_s = step_s
        self.clock_set_s = 0.0
        self.daemon: Daemon | None = None
        self.network: Network | None = None
        self.workers: FakeWorkers | None = None
        self.task: asyncio.Task[None] | None = None
        self.errors: list[BaseException] = []
        self.stored: dict[str, str] = {}  # block → digest of its state when this peer came back last
        self._directions: dict[int, torch.Tensor] = {}

    @property
    def peer_id(self) -> str:
        return self.identity.peer_id

    def direction(self, size: int) -> torch.Tensor:
        """Return what this peer learns from one token, of a block of this size."""
        if size not in self._directions:
            generator = torch.Generator().manual_seed(1000 * self.index + size)
            self._directions[size] = 1e-4 * torch.randn(size, generator=generator)
        return self._directions[size]

    def start(self, others: list[str], *, is_founder: bool) -> None:
        loop = asyncio.get_running_loop()
        self.stored = {}
        for path in (self.folder / "blocks").glob("*.json"):
            self.stored[path.stem] = json.loads(path.read_text())["digest"]
        self.clock_set_s = 0.0  # with a wrong clock it would not be let in
        steady = SteadyTime(wall=lambda: GENESIS + loop.time() + self.clock_set_s, steady=lambda: GENESIS + loop.time())
        now = SteadyTime(wall=lambda: GENESIS + loop.time(), steady=loop.time)
        strategy = Strategy.of(self.spec.strategy, 2)
        library: Any = FakeLibrary(self.spec, strategy.num_domains)
        entry = Entry(self.spec, (), library, tuple(others), is_founder)
        clock = Clock(self.spec.genesis, self.spec.rounds.tick_seconds, steady)
        facts = Facts(self.spec, PeerConfig(state_dir=self.folder), strategy, self.peer_id, clock)
        self.network = Network(self.air, self.identity, now)
        self.workers = FakeWorkers(self.step_s, self.spec.inner.batch_tokens, self.direction)
        leaving, workers, network = asyncio.Event(), self.workers, self.network
        book = AddressBook(self.folder / "address_book.json")
        self.daemon = Daemon(facts, entry, network, workers, book, leaving)  # type: ignore[arg-type]
        self.task = asyncio.create_task(self._run(self.daemon))

    async def _run(self, daemon: Daemon) -> None:
        try:
            await daemon.found()
            await daemon.open("")
            await daemon.train(lambda: None)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.errors.append(error)
        finally:
            if self.network is not None:
                self.network.close()

    async def leave(self) -> None:
        assert self.daemon is not None and self.task is not None
        await self.daemon.parts.control.leave()
        async with asyncio.timeout(40.0):  # as docs/operations.md promises
            await asyncio.wait([self.task])
        self.daemon = None

    async def kill(self) -> None:
        """End as a killed process does: what its handlers would have written is not written."""
        assert self.task is not None and self.network is not None
        kept = self.folder.with_suffix(".kept")
        shutil.copytree(self.folder, kept)
        self.network.close()
        self.task.cancel()
        await asyncio.wait([self.task])
        shutil.rmtree(self.folder)
        kept.rename(self.folder)
        self.daemon = None

    def made(self, block: str, before: int) -> torch.Tensor:
        """Return all that this peer has learnt for a block, by its count of tokens, of which it began with some."""
        assert self.daemon is not None and self.workers is not None
        session = self.daemon.parts.session
        self.workers.look()
        tokens = session._before[block] + self.workers.progress.tokens - before
        return tokens * self.direction(session.replicas[block].size)

    def left(self, block: str) -> torch.Tensor:
        """Return what the block does not have of it yet: what is owed, and what was learnt since the last round."""
        assert self.daemon is not None and self.workers is not None
        session = self.daemon.parts.session
        replica = session.replicas[block]
        return replica.residual + replica.state.phi - self.workers.theta[session._layout.span(block)]


class InLoopSwarm:
    """Members 0, 1, … of one run; member 0 founds it."""

    def __init__(self, spec: RunSpec, identities: list[Identity], folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.spec = spec
        self.air = Air(random.Random(seed + 1))
        self.members = []
        for index, identity in enumerate(identities):
            place = folder / f"peer{index}"
            place.mkdir()
            step_s = self.chance.uniform(0.1, 0.4)
            self.members.append(Member(index, spec, identity, self.air, place, step_s))
        self._timers: list[asyncio.Task[None]] = []

    async def start(self, stagger_s: float) -> None:
        self.start_one(self.members[0])
        for member in self.members[1:]:
            await asyncio.sleep(self.chance.uniform(0.0, stagger_s))
            self.start_one(member, is_known=False)

    def start_one(self, member: Member, *, is_known: bool = True) -> None:
        """Start a member again, or, unless it `is_known`, one that has first asked another for the run."""
        others = [other.peer_id for other in self.members if other is not member and other.daemon is not None]
        if not is_known:
            asked = next(other.daemon for other in self.members if other.daemon is not None)
            asked.parts.newcomers.asked(member.peer_id)
        member.start(others, is_founder=member.index == 0)

    async def until(self, tick: float) -> None:
        """Wait until a tick of the swarm's clock."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, tick * self.spec.rounds.tick_seconds - now))

    def befall(self, fault: Fault) -> None:
        self._timers.append(asyncio.create_task(self._befall(fault)))

    async def settled(self) -> None:
        """Wait until all faults are over."""
        for timer in self._timers:
            await timer

    async def _befall(self, fault: Fault) -> None:
        member = self.members[fault.peer]
        await self.until(fault.tick + self.chance.random())
        daemon = member.daemon
        if daemon is None:  # it is away already
            return
        match fault.kind:
            case Kind.KILL:
                await member.kill()
                await asyncio.sleep(fault.seconds)
                self.start_one(member)
            case Kind.LEAVE:
                await member.leave()
                await asyncio.sleep(fault.seconds)
                self.start_one(member)
            case Kind.PAUSE:
                with suppress(UsageError):  # it leaves just now
                    await daemon.parts.control.pause()
                    await asyncio.sleep(fault.seconds)
                    await daemon.parts.control.resume()
            case Kind.LOST_CALLS:
                self.air.lost.add(member.peer_id)
                await asyncio.sleep(fault.seconds)
                self.air.lost.discard(member.peer_id)
            case Kind.SLOW:
                workers = member.workers
                assert workers is not None
                self.air.slow[member.peer_id] = 20.0
                workers.look()
                workers.step_s = 10 * member.step_s
                await asyncio.sleep(fault.seconds)
                self.air.slow.pop(member.peer_id, None)
                workers.look()
                workers.step_s = member.step_s
            case Kind.CLOCK:
                member.clock_set_s += self.chance.choice((-1, 1)) * fault.seconds

    async def stop(self) -> None:
        for member in self.members:
            if member.task is not None and not member.task.done():
                member.task.cancel()
                await asyncio.wait([member.task])

    def digests(self) -> Mapping[str, Counter[str]]:
        """Return how many members hold each state of each block that is in training."""
        found: dict[str, Counter[str]] = {}
        for member in self.members:
            if member.daemon is not None:
                for block, replica in member.daemon.parts.session.replicas.items():
                    found.setdefault(block, Counter())[replica.state.digest] += 1
        return found
