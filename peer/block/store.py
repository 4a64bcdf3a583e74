"""The blocks that a peer stores: those that it trains and those that it keeps for others, on disk and by digest."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from configs.errors import DataError, NetworkError, PeerError, ShoalError
from configs.files import read_json, write_file, write_json
from configs.run import RunSpec
from peer.block.replica import Replica, load_state
from peer.block.threads import unbroken
from peer.train.model import initial_parameters
from peer.train.outer import MAX_HEADER_BYTES, OuterState, common_tokens_of, new_state, read_state, unwritten
from peer.train.partition import COMMON, Strategy
from peer.train.pretrained import parameters_id, read_parameters
from protocols.shards import OnBytes, download_bytes
from protocols.state import BlockState, ask_blocks

log = logging.getLogger(__name__)

DOWNLOAD_S = 600.0
PIN_S = 60.0  # that a state stays after somebody has asked for a piece of it
MAX_PINNED = 4


@dataclass(frozen=True)
class Facts:
    """What is known of a stored block without reading it."""

    block: str
    version: int
    round: int
    age: int
    digest: str


def facts_of(state: OuterState) -> Facts:
    """Return what is remembered of a state."""
    return Facts(state.block, state.version, state.round, state.age, state.digest)


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
        on_bytes: OnBytes | None = None,
    ) -> None:
        self.folder = folder
        self.replicas: dict[str, Replica] = {}  # in training
        self.stored: dict[str, Facts] = {}  # on disk
        self._pinned: dict[str, tuple[memoryview, float]] = {}  # digest → state, and when it was last asked for
        self._spec = spec
        self._strategy = strategy
        self._state_stub, self._shards_stub, self._on_bytes = state_stub, shards_stub, on_bytes
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.json"):
            facts = read_json(path)
            if facts and "digest" in facts and path.with_suffix(".safetensors").exists():
                self.stored[facts["block"]] = Facts(**{key.name: facts[key.name] for key in fields(Facts)})

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

    def versions(self) -> dict[str, int]:
        """Return the version of every block that this peer stores."""
        stored = {f.block: f.version for f in self.stored.values()}
        return stored | {b: r.state.version for b, r in self.replicas.items()}

    def load(self, block: str) -> OuterState | None:
        """Return the stored state of `block`, or None. Raises StateError if it is damaged."""
        return load_state(self.folder, block, self.size_of(block))

    async def save(self, replica: Replica) -> None:
        """Write a block in training, with what is private to this peer. Raises StateError."""
        state = await unbroken(replica.save, self.folder)
        self._unpin()
        self.stored[state.block] = facts_of(state)

    async def put(self, state: OuterState) -> None:
        """Write a block that this peer only keeps. Raises StateError."""
        self.stored[state.block] = await unbroken(self._write, state)

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
        """Fetch a block's state from a peer that asks for it to be kept. Raises PeerError, NetworkError."""
        if state.block in self.replicas or state.version <= self.versions().get(state.block, -1):
            return
        await self._download(state, [from_peer])

    async def newest(self, block: str, peers: Sequence[str]) -> tuple[BlockState, list[str]] | None:
        """Ask `peers` where `block` stands; return the newest state with the peers that have it, or None."""
        answers = await self.ask(peers)
        found = [(state, peer) for peer, states in answers.items() for state in states if state.block == block]
        if not found:
            return None
        best = max((state for state, _ in found), key=lambda s: (s.version, s.content_id))
        return best, [peer for state, peer in found if state.content_id == best.content_id]

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

        What was downloaded is stored. Raises NetworkError if nobody has it and it cannot be derived.
        """
        here = await asyncio.to_thread(self.load, block)
        found = await self.newest(block, peers)
        if found is not None and (here is None or found[0].version > here.version):
            try:
                return await self._download(*found)
            except (ShoalError, TimeoutError) as error:
                log.warning("%s could not be downloaded: %s", block, error)
                if here is None:
                    raise
        if here is not None:
            return here
        if block == COMMON:
            raise NetworkError(f"nobody in the swarm has block {block}; start a peer whose state directory has it")
        common = await self.obtain(COMMON, peers)
        return await asyncio.to_thread(derive, self._strategy, block, common, self._spec)

    async def _download(self, state: BlockState, peers: Sequence[str]) -> OuterState:
        size = self.size_of(state.block)
        if state.size_bytes > 8 * size + MAX_HEADER_BYTES:
            raise PeerError(f"state of {state.block}: {state.size_bytes} bytes are too many for {size} parameters")
        data = await download_bytes(
            self._shards_stub, peers, state.content_id, state.size_bytes, deadline_s=DOWNLOAD_S, on_bytes=self._on_bytes
        )
        loaded = await asyncio.to_thread(self._read, data, state.block, size)
        if state.block not in self.replicas:
            await self.put(loaded)
        return loaded

    def _read(self, data: bytearray, block: str, size: int) -> OuterState:
        state = read_state(data, block, size)
        is_known = block == COMMON and state.version == 0 and not self._spec.is_seeded
        if is_known and parameters_id([state.phi]) != self._spec.initial_id:
            raise PeerError(f"state of {block}: these are not the parameters that the run begins with")
        return state

    def _write(self, state: OuterState) -> Facts:
        facts = facts_of(state)
        write_file(self.folder / f"{state.block}.safetensors", state.blob)
        write_json(self.folder / f"{state.block}.json", asdict(facts))
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
