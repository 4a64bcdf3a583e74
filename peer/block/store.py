"""The blocks that a peer stores: those that it trains and those that it keeps for others, on disk and by digest."""

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from torch import Tensor

from configs.content import content_id_of
from configs.errors import DataError, NetworkError, PeerError, ShoalError, StateError
from configs.files import discard, disk_errors, make_folder, put_in_place, write_file, write_json
from configs.run import RunSpec
from peer.block.keeping import KeepRules, vouched
from peer.block.replica import Replica
from peer.block.room import Room
from peer.block.saved import Facts, facts_of, load_facts, load_state
from peer.block.spot_check import UnlikeError, drawn, look
from peer.block.threads import unbroken
from peer.train.model import initial_parameters
from peer.train.outer import OuterState, common_tokens_of, most_state_bytes, new_state, read_state, unwritten
from peer.train.partition import COMMON, Strategy
from peer.train.pretrained import parameters_id, read_parameters
from protocols.shards import download
from protocols.state import BlockState, ask_blocks, keep_seconds
from protocols.traffic import Traffic

log = logging.getLogger(__name__)

PRIVATE = ("residual", "offered")  # files of a block beside its state that only who trains it has
PIN_S = 60.0  # that a state stays after somebody has asked for a piece of it
MAX_PINNED = 4


EVERYBODY = KeepRules()
NONE_NAMED: Mapping[str, BlockState] = {}


class BlockStore:
    """Answers what this peer holds, and fetches what it should hold. Training itself is the session's.

    What lies here is changed in the event loop only; threads read and write files.
    """

    def __init__(
        self,
        folder: Path,
        spec: RunSpec,
        strategy: Strategy,
        state_stub: Callable[[str], Any],
        shards_stub: Callable[[str], Any],
        traffic: Traffic | None = None,  # which counts what is fetched, and holds it to its cap
        rules: KeepRules = EVERYBODY,
    ) -> None:
        self.folder = folder
        self.replicas: dict[str, Replica] = {}  # in training
        self.stored: dict[str, Facts] = {}  # on disk
        self._pinned: dict[str, tuple[memoryview, float]] = {}  # digest → state, and when it was last asked for
        self._spec = spec
        self._strategy = strategy
        self._state_stub, self._shards_stub = state_stub, shards_stub
        self._traffic, self._rules = traffic or Traffic(), rules
        self.room = Room()  # for what is kept for others
        self._chance = random.SystemRandom()  # what a liar cannot foresee
        self._writing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # block → one write at a time
        self._fetching: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # digest → one download
        make_folder(folder)
        for path in folder.glob("*.json"):
            with suppress(PeerError):  # no block of this run
                facts = load_facts(folder, path.stem, self.size_of(path.stem))
                if facts is not None:
                    self.stored[facts.block] = facts

    def size_of(self, block: str) -> int:
        """Return the number of parameters of `block`. Raises PeerError if the run has no such block."""
        strategy = self._strategy
        for sub_model in (COMMON, *strategy.sub_models):
            if block in strategy.blocks(sub_model):
                return strategy.layout(sub_model, self._spec.model).block_size(block)
        raise PeerError(f"this run has no block {block!r}")

    def ages(self) -> dict[str, int]:
        """Return the age of every block that this peer stores."""
        return {f.block: f.age for f in self.stored.values()} | {b: r.state.age for b, r in self.replicas.items()}

    def took_part(self) -> set[str]:
        """Return the peers whose work is in the blocks in training here."""
        return {peer for replica in self.replicas.values() for peer in replica.state.ages}

    def versions(self) -> dict[str, int]:
        """Return the version of every block that this peer stores."""
        stored = {f.block: f.version for f in self.stored.values()}
        return stored | {b: r.state.version for b, r in self.replicas.items()}

    def load(self, block: str) -> OuterState | None:
        """Return the stored state of `block`, or None. Raises StateError if it is damaged."""
        return load_state(self.folder, block, self.size_of(block))

    async def save(self, replica: Replica) -> None:
        """Write a block in training, with what is private to this peer. Raises StateError."""
        async with self._writing[replica.block]:
            state = await unbroken(replica.save, self.folder)
            self._unpin()
            self.stored[state.block] = facts_of(state)

    async def put(self, state: OuterState, file: Path | None = None) -> None:
        """Store a block that this peer only keeps; an older state never replaces a newer one. Raises StateError.

        The state is written, unless it has been already, into `file`, in the same folder.
        """
        async with self._writing[state.block]:
            here = self.stored.get(state.block)
            if state.block not in self.replicas and (here is None or here.version <= state.version):
                self.stored[state.block] = await unbroken(self._write, state, file)

    def lookup(self, digest: str) -> Path | memoryview | None:
        """Return the bytes of a state by its digest: of a block in training, now or one step ago, or on disk.

        What was asked for lately stays while training goes on: on a slow link a download takes many rounds.
        """
        states = (s for r in self.replicas.values() for s in (r.state, r.previous))
        blob = next((s.blob for s in states if s is not None and s.digest == digest), None)
        if blob is None and digest in self._pinned:
            blob = self._pinned[digest][0]
        if blob is not None:
            self._pinned.pop(digest, None)
            self._pinned[digest] = (blob, time.monotonic())
            self._unpin()
            return blob
        found = next((f for f in self.stored.values() if f.digest == digest), None)
        return self.folder / f"{found.block}.safetensors" if found else None

    def _unpin(self) -> None:
        """Let go of states that nobody downloads any more."""
        since = time.monotonic() - PIN_S
        kept = [digest for digest, (_, asked) in self._pinned.items() if asked > since][-MAX_PINNED:]
        self._pinned = {digest: self._pinned[digest] for digest in kept}

    def block_states(self) -> list[BlockState]:
        """Say which state of each block can be had here."""
        states = {f.block: (f.version, f.round, f.age, f.digest) for f in self.stored.values()}
        for block, replica in self.replicas.items():
            state = replica.state
            states[block] = (state.version, state.round, state.age, state.digest)
        return [
            BlockState(
                block=block, version=version, round=round_, age=age, content_id=digest,
                size_bytes=self._blob_bytes(block), is_final=self._is_final(block, age),
            )
            for block, (version, round_, age, digest) in sorted(states.items())
        ]  # fmt: skip

    async def keep(self, state: BlockState, from_peer: str) -> None:
        """Fetch a block's state from a peer that asks for it to be kept; where others hold it, what these vouch for.

        Raises PeerError, NetworkError to decline, and StateError (the disk).
        """
        self._rules.check(state.block, from_peer)
        others = [peer for peer in self._rules.holders(state.block) if peer != from_peer]
        found = await self.newest(state.block, others) if others else None
        await self.keep_from(*(found or (state, [from_peer])))

    async def keep_from(self, state: BlockState, peers: Sequence[str]) -> None:
        """Fetch a state that `peers` have and store it, if it is newer than what lies here; in training, nothing is.

        What a try that failed has left on disk is taken up by the next one. Raises as `keep`.
        """
        if state.block in self.replicas or state.version <= self.versions().get(state.block, -1):
            return
        if not self.room.takes(state.size_bytes if state.block not in self.stored else 0):
            raise PeerError(f"the owner of this machine lets it keep no more than {self.room.disk_gb:g} GB")
        await self._download(state, peers)

    def kept(self) -> list[str]:
        """Return the blocks that lie here for others alone: none of this peer's work lies beside their states."""
        own = {block for block in self.stored for kind in PRIVATE if (self.folder / f"{block}.{kind}").exists()}
        return sorted(self.stored.keys() - self.replicas.keys() - own - {COMMON})

    async def give_up(self, block: str) -> None:
        """Keep a block no longer."""
        async with self._writing[block]:
            if self.stored.pop(block, None) is not None:
                for path in (*self.folder.glob(f"{block}.*"), *self.folder.glob(f".{block}.*")):
                    await asyncio.to_thread(discard, path)

    async def newest(self, block: str, peers: Sequence[str]) -> tuple[BlockState, list[str]] | None:
        """Ask `peers` where `block` stands; return the newest state with the peers that have it, or None.

        Its holders vouch for it, if there are any among `peers`: what its keepers have is older.
        """
        named = await self._named(block, peers)
        return self._best(block, named) if named else None

    async def _named(self, block: str, peers: Sequence[str]) -> dict[str, BlockState]:
        """Ask `peers` where `block` stands."""
        answers = await self.ask(peers)
        return {peer: state for peer, states in answers.items() for state in states if state.block == block}

    def _best(self, block: str, named: Mapping[str, BlockState]) -> tuple[BlockState, list[str]]:
        holders = self._rules.holders(block)
        best = vouched([state for peer, state in named.items() if peer in holders] or list(named.values()))
        return best, [peer for peer, state in named.items() if state.content_id == best.content_id]

    async def ask(self, peers: Sequence[str]) -> dict[str, list[BlockState]]:
        """Return what each of `peers` stores; those that do not answer are left out."""
        answers: dict[str, list[BlockState]] = {}

        async def one(peer: str) -> None:
            try:
                answers[peer] = await ask_blocks(self._state_stub(peer))
            except ShoalError as error:
                log.debug("%s does not say what it stores: %s", peer, error)

        async with asyncio.TaskGroup() as group:
            for peer in peers:
                group.create_task(one(peer))
        return answers

    async def obtain(self, block: str, peers: Sequence[str]) -> OuterState:
        """Return the newest state of `block`: from here, from the swarm, or derived from the common phase.

        What was downloaded is stored. Raises NetworkError if nobody has it and it cannot be derived, StateError if
        what is here is damaged and nobody else has it.
        """
        here, damage = None, None
        try:
            here = await asyncio.to_thread(self.load, block)
        except StateError as error:
            log.warning("%s", error)
            damage = error
            self.stored.pop(block, None)
        named = await self._named(block, peers)
        while named:
            best, sources = self._best(block, named)
            if here is not None and best.version <= here.version:
                break
            try:
                return await self._made(best) or await self._download(best, sources, named)
            except UnlikeError as error:
                log.warning("%s; others are asked", error)
                named = {peer: state for peer, state in named.items() if peer not in sources}
                if not named and here is None and damage is None:
                    raise
            except (ShoalError, TimeoutError) as error:
                log.warning("%s could not be downloaded: %s", block, error)
                if here is None and damage is None:
                    raise
                break
        if here is not None:
            return here
        if damage is not None:
            raise damage
        if block == COMMON:
            raise NetworkError(f"nobody in the swarm has block {block}; start a peer whose state directory has it")
        common = await self.obtain(COMMON, peers)
        return await asyncio.to_thread(derive, self._strategy, block, common, self._spec)

    async def _made(self, told: BlockState) -> OuterState | None:
        """Return the first state of a block, stored, if it is the one that is told and the seed makes it here, too."""
        if told.version or not self._spec.is_seeded:
            return None

        def make() -> OuterState | None:
            first = initial_state(self._spec, self._strategy)
            if told.block != COMMON:  # where sub-models part at once
                first = derive(self._strategy, told.block, first, self._spec)
            return first if first.digest == told.content_id else None

        first = await asyncio.to_thread(make)
        if first is not None:
            await self.put(first)
        return first

    async def _download(
        self, state: BlockState, peers: Sequence[str], named: Mapping[str, BlockState] = NONE_NAMED
    ) -> OuterState:
        """Fetch a state by way of a file beside, check it, store it if nothing newer is here, and return it.

        Raises UnlikeError if it is not like those of the others that are `named`.
        """
        size = self.size_of(state.block)
        if state.size_bytes > most_state_bytes(size):
            raise PeerError(f"state of {state.block}: {state.size_bytes} bytes are too many for {size} parameters")
        lock = self._fetching.setdefault(state.content_id, asyncio.Lock())
        async with lock:
            file = self.folder / f".{state.content_id}.{state.block}.fetched"
            under_way = [digest for digest, each in self._fetching.items() if each.locked()]
            await asyncio.to_thread(self._forget_others, state.block, under_way)
            others = drawn(peers, named, self._chance)
            deadline_s = keep_seconds(state.size_bytes, self._traffic.down_mbit)
            # At the same time: while one is waited for, the other's states may be gone.
            looking = asyncio.ensure_future(look(others, named, size, self._shards_stub, self._chance))
            try:
                await download(
                    self._shards_stub, peers, state.content_id, state.size_bytes, file, deadline_s=deadline_s,
                    on_bytes=self._traffic.receiver("states"),
                )  # fmt: skip
                glimpse = await looking
            finally:
                looking.cancel()
            try:
                loaded = await asyncio.to_thread(self._read, file, state, size)
                await asyncio.to_thread(glimpse.check, loaded)
                await self.put(loaded, file)
            finally:
                await asyncio.to_thread(discard, file)
            return loaded

    def _forget_others(self, block: str, under_way: Sequence[str]) -> None:
        """Delete what is left of downloads of other states of a block: whoever had them has gone on since."""
        for left in self.folder.glob(f".{'?' * len(content_id_of(b''))}.{block}.fetched*"):
            if not left.name.startswith(tuple(f".{digest}." for digest in under_way)):
                discard(left)

    def _read(self, file: Path, claimed: BlockState, size: int) -> OuterState:
        """Read what was fetched. Raises PeerError if it is not the state that was claimed."""
        block = claimed.block
        state = read_state(file.read_bytes(), block, size)
        if state.version != claimed.version:
            raise PeerError(f"state of {block}: it is of version {state.version}, not {claimed.version}")
        is_known = block == COMMON and state.version == 0 and not self._spec.is_seeded
        if is_known and parameters_id([state.phi]) != self._spec.initial_id:
            raise PeerError(f"state of {block}: these are not the parameters that the run begins with")
        return state

    def _write(self, state: OuterState, file: Path | None) -> Facts:
        path, facts = self.folder / f"{state.block}.safetensors", facts_of(state)
        if file is None:
            write_file(path, state.blob)
        else:
            with disk_errors(path):
                put_in_place(file, path)
        write_json(self.folder / f"{state.block}.json", facts.model_dump())
        return facts

    def _is_final(self, block: str, age: int) -> bool:
        common_tokens = common_tokens_of(self._spec, block)
        return common_tokens is not None and age >= common_tokens

    def _blob_bytes(self, block: str) -> int:
        replica = self.replicas.get(block)
        return len(replica.state.blob) if replica else (self.folder / f"{block}.safetensors").stat().st_size


def derive(strategy: Strategy, block: str, common: OuterState, spec: RunSpec) -> OuterState:
    """Return the state with which `block` begins where sub-models part: the same bits on every peer."""
    phi = strategy.derive(block, common.phi, spec.model)
    return new_state(block, phi, None, version=0, round_=common.round, ages=common.ages, is_final=False)


def initial_state(spec: RunSpec, strategy: Strategy, init_from: Path | None = None) -> OuterState:
    """Return the state with which a run begins: a pure function of its spec, or what its founder reads in `init_from`.

    Raises DataError if these are not the parameters that the spec names.
    """
    layout = strategy.layout(COMMON, spec.model)
    phi = unwritten(layout.size)
    if spec.is_seeded:
        tensors: Iterable[Tensor] = initial_parameters(spec.model, spec.seed).values()
    elif init_from is None:
        raise DataError("this run begins with a model that its founder brought; the seed does not make it")
    else:
        tensors = read_parameters(init_from, spec.model)
    for slot, tensor in zip(layout.slots, tensors, strict=True):
        phi[slot.span] = tensor.reshape(-1)
    if not spec.is_seeded and parameters_id([phi]) != spec.initial_id:
        raise DataError(f"the weights in {init_from} have changed since the run was founded; found it again")
    is_final = common_tokens_of(spec, COMMON) == 0
    return new_state(COMMON, phi, None, version=0, round_=0, ages={}, is_final=is_final)
