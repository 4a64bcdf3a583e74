"""What a store fetches for others: only what was claimed, only what is newer, and on from where it was interrupted."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from source import Source

from configs.content import CHUNK_BYTES
from configs.errors import NetworkError, PeerError, ShoalError
from configs.run import RunSpec
from peer.block.keeping import KeepRules
from peer.block.store import BlockStore
from peer.train.outer import OuterState, new_state
from peer.train.partition import Strategy

MODEL = {
    "vocab_size": 2048, "hidden_size": 128, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8,
    "context_length": 8,
}  # fmt: skip


@pytest.fixture
def spec(smallest_run: Callable[..., RunSpec]) -> RunSpec:
    return smallest_run(model=MODEL)


@pytest.fixture
def state(spec: RunSpec) -> Callable[[int], OuterState]:
    size = Strategy("replicas", 1).layout("model", spec.model).size

    def make(version: int) -> OuterState:
        phi, momentum = torch.randn(2 * size, generator=torch.Generator().manual_seed(version)).split(size)
        return new_state("model", phi, momentum, version=version, round_=version, ages={}, is_final=False)

    return make


def store_of(folder: Path, spec: RunSpec, sources: Mapping[str, Source], duties: KeepRules | None = None) -> BlockStore:
    return BlockStore(
        folder, spec, Strategy("replicas", 1), sources.__getitem__, sources.__getitem__, rules=duties or KeepRules()
    )


def stored(store: BlockStore) -> tuple[int, str]:
    """Return the version and the digest of what lies on disk, which is what is told of it."""
    state = store.load("model")
    assert state is not None and store.stored["model"].digest == state.digest
    return state.version, state.digest


def test_a_keeper_cannot_be_rolled_back(tmp_path: Path, spec: RunSpec, state: Callable[[int], OuterState]) -> None:
    source, mine = Source(state(1), version=200), state(100)
    store = store_of(tmp_path, spec, {"stranger": source})
    asyncio.run(store.put(mine))
    with pytest.raises(PeerError, match="of version 1, not 200"):
        asyncio.run(store.keep(source.told, "stranger"))
    assert stored(store) == (100, mine.digest)
    assert not list(tmp_path.glob(".*"))
    source.told = source.told.model_copy(update={"version": 1})
    asyncio.run(store.keep(source.told, "stranger"))  # it is told that this is stored: something newer is
    assert stored(store) == (100, mine.digest)


def test_what_became_newer_during_a_download_stays(
    tmp_path: Path, spec: RunSpec, state: Callable[[int], OuterState]
) -> None:
    source, newer = Source(state(5)), state(7)
    store = store_of(tmp_path, spec, {"holder": source})

    async def meanwhile(count: int, cause: str) -> None:
        await store.put(newer)

    store._traffic.received = meanwhile  # type: ignore[method-assign]
    asyncio.run(store.keep(source.told, "holder"))
    assert stored(store) == (7, newer.digest)
    asyncio.run(store.put(state(6)))
    assert stored(store) == (7, newer.digest)


def test_a_holder_who_boasts_poisons_no_keeper_as_long_as_others_hold_the_block(
    tmp_path: Path, spec: RunSpec, state: Callable[[int], OuterState]
) -> None:
    """What it says is newest would stay for good: an older state never takes the place of a newer one."""
    liar, honest = Source(state(900)), Source(state(5))
    sources = {"liar": liar, "honest": honest}
    store = store_of(tmp_path, spec, sources, KeepRules(lambda block: ("honest", "liar")))
    asyncio.run(store.keep(liar.told, "liar"))
    assert stored(store) == (5, honest.told.content_id)
    assert not liar.sent
    alone = store_of(tmp_path / "alone", spec, sources, KeepRules(lambda block: ("liar",)))
    asyncio.run(alone.keep(liar.told, "liar"))  # nobody else has it: what there is is better than nothing
    assert stored(alone) == (900, liar.told.content_id)


def test_who_may_ask_is_asked_before_anything_is_fetched(
    tmp_path: Path, spec: RunSpec, state: Callable[[int], OuterState]
) -> None:
    source = Source(state(5))
    sources = {"holder": source, "stranger": source}
    store = store_of(tmp_path, spec, sources, KeepRules(lambda block: ("holder",)))
    with pytest.raises(PeerError, match="neither holds nor keeps"):
        asyncio.run(store.keep(source.told, "stranger"))
    assert not source.sent and not store.stored
    asyncio.run(store.keep(source.told, "holder"))
    assert stored(store)[0] == 5


def test_keeping_goes_on_where_it_was_interrupted_and_from_whoever_has_it(
    tmp_path: Path, spec: RunSpec, state: Callable[[int], OuterState]
) -> None:
    wanted = state(5)
    count = -(-len(wanted.blob) // CHUNK_BYTES)
    assert count >= 8
    goes, stays = Source(wanted), Source(wanted)
    goes.chunks_left = 3
    store = store_of(tmp_path, spec, {"goes": goes, "stays": stays})
    with pytest.raises(NetworkError, match="gone"):
        asyncio.run(store.keep(goes.told, "goes"))
    assert not store.stored
    again = store_of(tmp_path, spec, {"goes": goes, "stays": stays})  # after a restart
    asyncio.run(again.keep_from(goes.told, ["goes", "stays"]))
    assert stored(again) == (5, wanted.digest)
    assert sorted(goes.sent + stays.sent) == list(range(count))


def test_what_is_left_of_another_state_is_deleted(
    tmp_path: Path, spec: RunSpec, state: Callable[[int], OuterState]
) -> None:
    goes, stays = Source(state(5)), Source(state(6))
    goes.chunks_left = 2
    store = store_of(tmp_path, spec, {"goes": goes, "stays": stays})
    with pytest.raises(ShoalError):
        asyncio.run(store.keep(goes.told, "goes"))
    assert len(list(tmp_path.glob(".*.model.fetched.partial"))) == 1
    asyncio.run(store.keep(stays.told, "stays"))
    assert stored(store)[0] == 6 and not list(tmp_path.glob(".*"))


def test_a_stranger_s_version_does_not_win_over_what_the_others_name(
    tmp_path: Path, spec: RunSpec, state: Callable[[int], OuterState]
) -> None:
    true, old, false = state(8), state(2), state(3)
    sources = {"a": Source(true), "b": Source(true), "stranger": Source(false, version=9)}
    store = store_of(tmp_path / "joiner", spec, sources)
    assert asyncio.run(store.obtain("model", list(sources))).digest == true.digest
    sources = {"holder": Source(true), **{f"keeper{n}": Source(old) for n in range(3)}}
    store = store_of(tmp_path / "keeper", spec, sources, KeepRules(lambda block: ("holder",)))
    found = asyncio.run(store.newest("model", list(sources)))
    assert found is not None and (found[0].content_id, found[1]) == (true.digest, ["holder"])
