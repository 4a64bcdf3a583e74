"""What a peer serves of its blocks while they go on changing."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import peer.block.store
from configs.errors import NetworkError
from configs.run import RunSpec
from peer.block.replica import Replica
from peer.block.store import MAX_PINNED, PIN_S, BlockStore, derive, initial_state
from peer.train.partition import Strategy
from protocols.state import BlockState


def no_stub(peer_id: str) -> Any:
    raise AssertionError(f"nobody should be asked, and {peer_id} was")


@pytest.fixture
def store(smallest_run: Callable[..., RunSpec], tmp_path: Path) -> BlockStore:
    spec, strategy = smallest_run(), Strategy("replicas", 1)
    made = BlockStore(tmp_path, spec, strategy, no_stub, no_stub)
    made.replicas["model"] = Replica(initial_state(spec, strategy), spec, "me")
    return made


def train(store: BlockStore) -> str:
    """Take a step and save it; return the digest of the state before."""
    replica = store.replicas["model"]
    before = replica.state.digest
    replica.advance_alone(replica.state.round + 1, replica.state.phi - 0.01, 1)
    asyncio.run(store.save(replica))
    return before


def test_a_state_that_is_being_downloaded_stays_while_training_goes_on(
    store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(peer.block.store.time, "monotonic", lambda: now)
    older, newer = [train(store) for _ in range(3)][1:]
    assert store.lookup(newer) is not None  # one step ago
    assert store.lookup(older) is None  # nobody had asked before it went
    wanted = store.replicas["model"].state
    content = torch.frombuffer(bytearray(wanted.blob), dtype=torch.uint8)
    for _ in range(5):
        served = store.lookup(wanted.digest)
        assert isinstance(served, memoryview)
        assert torch.equal(torch.frombuffer(served, dtype=torch.uint8), content)
        now += PIN_S / 2
        train(store)
    now += PIN_S
    train(store)
    assert store.lookup(wanted.digest) is None


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("block", ["model", "branch.1"])  # the latter of a run whose sub-models part at once
def test_what_follows_from_the_seed_is_sent_by_nobody(
    block: str, version: int, smallest_run: Callable[..., RunSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, strategy = smallest_run(strategy={"kind": "branches"}), Strategy("branches", 2)
    store = BlockStore(tmp_path, spec, strategy, no_stub, no_stub)
    first = initial_state(spec, strategy)
    if block != "model":
        first = derive(strategy, block, first, spec)
    content_id = first.digest if version == 0 else "1" * 64

    async def ask(peers: object) -> dict[str, list[BlockState]]:
        facts = {"block": block, "version": version, "round": 0, "age": 0, "is_final": False}
        return {"founder": [BlockState(**facts, content_id=content_id, size_bytes=len(first.blob))]}

    monkeypatch.setattr(store, "ask", ask)
    if version:
        with pytest.raises(NetworkError, match="founder: it could not be asked"):
            asyncio.run(store.obtain(block, ["founder"]))
    else:
        assert asyncio.run(store.obtain(block, ["founder"])).digest == first.digest
        assert store.versions() == {block: 0}


def test_few_states_are_kept_for_others(store: BlockStore) -> None:
    digests = []
    for _ in range(MAX_PINNED + 3):
        digests.append(store.replicas["model"].state.digest)
        assert store.lookup(digests[-1]) is not None
        train(store)
    assert [store.lookup(digest) is not None for digest in digests[:4]] == [False] * 3 + [True]


class Loops(dict[str, Any]):
    """What only the event loop may change: others iterate it there."""

    def __setitem__(self, key: str, value: Any) -> None:
        assert threading.current_thread() is threading.main_thread()
        super().__setitem__(key, value)


def test_threads_write_files_and_the_loop_says_what_is_stored(store: BlockStore) -> None:
    store.stored, store._unpin = Loops(), lambda: store.stored.__setitem__("unpinned", 1)  # type: ignore[method-assign]
    replica = store.replicas.pop("model")
    asyncio.run(store.put(replica.state))
    assert store.stored.pop("model").version == 0
    store.replicas["model"] = replica
    replica.advance_alone(1, replica.state.phi - 0.01, 1)
    asyncio.run(store.save(replica))
    assert store.stored["model"].version == 1 and store.stored["unpinned"]
