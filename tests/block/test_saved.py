"""What a peer's own folder holds of a block is checked when it is read; what others have is fetched again."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from configs.errors import NetworkError, StateError
from configs.run import RunSpec
from peer.block.replica import Replica
from peer.block.saved import load_state
from peer.block.store import BlockStore, initial_state
from peer.train.checkpoint import write_tensors
from peer.train.partition import Strategy


def nobody(peer: str) -> Any:
    raise NetworkError("no network here")


@pytest.fixture
def spec(smallest_run: Callable[..., RunSpec]) -> RunSpec:
    return smallest_run()


@pytest.fixture
def replica(spec: RunSpec, tmp_path: Path) -> Replica:
    """A replica whose state lies in the folder."""
    made = Replica(initial_state(spec, Strategy("replicas", 1)), spec, "me")
    made.advance_alone(1, made.state.phi - 0.01, 70)
    made.save(tmp_path)
    return made


def store_in(folder: Path, spec: RunSpec) -> BlockStore:
    return BlockStore(folder, spec, Strategy("replicas", 1), nobody, nobody)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("facts", ["{", "{}", "[]", '{"block": "model", "version": 1}', '{"block": 3}'])
def test_facts_that_are_damaged_are_made_anew_from_the_state(
    replica: Replica, spec: RunSpec, tmp_path: Path, facts: str
) -> None:
    told = store_in(tmp_path, spec).stored["model"]
    assert (told.version, told.tokens) == (1, 70)
    (tmp_path / "model.json").write_text(facts)
    store = store_in(tmp_path, spec)
    assert store.stored["model"].model_dump(exclude={"tokens"}) == told.model_dump(exclude={"tokens"})
    state = store.load("model")
    assert state is not None and state.digest == replica.state.digest
    again = Replica(state, spec, "me")
    again.resume(tmp_path)
    assert again.tokens == 70  # as many have counted
    again.save(tmp_path)
    assert store_in(tmp_path, spec).stored["model"] == told


def test_facts_of_earlier_versions_are_read(replica: Replica, spec: RunSpec, tmp_path: Path) -> None:
    kept = json.loads((tmp_path / "model.json").read_text())
    del kept["tokens"]
    (tmp_path / "model.json").write_text(json.dumps(kept))
    (tmp_path / "of_another_run.json").write_text("{}")
    assert list(store_in(tmp_path, spec).stored) == ["model"]


def test_one_flipped_bit_is_found_by_the_digest(replica: Replica, spec: RunSpec, tmp_path: Path) -> None:
    flip_a_bit(tmp_path / "model.safetensors")
    with pytest.raises(StateError, match=r"model\.safetensors is damaged \(its digest") as error:
        load_state(tmp_path, "model", replica.size)
    assert "\n" not in str(error.value)
    with pytest.raises(StateError, match="its digest"):  # and nobody else has it
        asyncio.run(store_in(tmp_path, spec).obtain("model", ["other"]))
    (tmp_path / "model.json").unlink()  # as the line says
    assert load_state(tmp_path, "model", replica.size) is not None


def test_a_kill_between_two_writes_is_no_damage(replica: Replica, tmp_path: Path) -> None:
    """The state was written and its facts were not: of the next version, or of the same one of another history."""
    facts = (tmp_path / "model.json").read_bytes()
    mine = Replica(initial_state(replica.spec, Strategy("replicas", 1)), replica.spec, "me")
    mine.advance_alone(1, mine.state.phi + 0.01, 70)
    assert mine.state.version == replica.state.version and mine.state.digest != replica.state.digest
    for _ in range(2):
        mine.save(tmp_path)
        (tmp_path / "model.json").write_bytes(facts)
        state = load_state(tmp_path, "model", mine.size)
        assert state is not None and state.digest == mine.state.digest
        mine.advance_alone(mine.state.round + 1, mine.state.phi + 0.01, 140)


def test_a_damaged_state_is_fetched_again_from_whoever_has_it(
    replica: Replica, spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = bytes(replica.state.blob)
    told = store_in(tmp_path, spec).block_states()[0]
    for damage in (flip_a_bit, lambda path: path.write_bytes(blob[:-9])):
        damage(tmp_path / "model.safetensors")
        store = store_in(tmp_path, spec)

        async def ask(*arguments: object) -> Any:
            return {"other": [told]}

        async def download(*arguments: Any, **options: object) -> None:
            arguments[-1].write_bytes(blob)

        monkeypatch.setattr(store, "ask", ask)
        monkeypatch.setattr("peer.block.store.download", download)
        assert asyncio.run(store.obtain("model", ["other"])).digest == replica.state.digest
        assert (tmp_path / "model.safetensors").read_bytes() == blob
        assert store.stored["model"].digest == replica.state.digest


@pytest.mark.parametrize("name", ["model.residual", "model.offered"])
@pytest.mark.parametrize(
    ("tensors", "facts"),
    [
        ({"produced": torch.zeros(3), "residual": torch.zeros(3)}, {"round": "1", "codec": "int8"}),
        ({"residual": torch.zeros(3)}, {"round": "one"}),
        ({"offer.first.int8.1": torch.zeros(3, dtype=torch.uint8)}, {"round": "1"}),
        ({"offer.1.int8.1": torch.zeros(3, dtype=torch.uint8)}, {}),
    ],
)
def test_what_is_owed_is_checked(
    replica: Replica, spec: RunSpec, tmp_path: Path, name: str, tensors: dict[str, Any], facts: dict[str, str]
) -> None:
    write_tensors(tmp_path / name, tensors, facts)
    with pytest.raises(StateError, match=r"is damaged .*; move it away") as error:
        Replica(replica.state, spec, "me").resume(tmp_path)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_values_that_are_not_finite_are_not_owed(replica: Replica, spec: RunSpec, tmp_path: Path) -> None:
    lost = torch.full((replica.size,), torch.nan)
    write_tensors(tmp_path / "model.residual", {"residual": lost}, {"round": "1"})
    with pytest.raises(StateError, match="residual is not what it should be"):
        Replica(replica.state, spec, "me").resume(tmp_path)


def test_a_file_where_the_folder_should_be_is_one_line(spec: RunSpec, tmp_path: Path) -> None:
    (tmp_path / "blocks").write_bytes(b"")
    with pytest.raises(StateError, match=r"blocks is a file where a folder should be; move it away"):
        store_in(tmp_path / "blocks", spec)
