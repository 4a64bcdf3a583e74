"""A newcomer believes no holder alone where replicas differ: drawn places of its state must be like those of others."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from source import Source
from torch import Tensor

from configs.run import RunSpec
from peer.block.spot_check import ASKED, FLOOR, RATIO, UnlikeError, drawn, is_alike, look
from peer.block.store import BlockStore
from peer.train.outer import OuterState, new_state
from peer.train.partition import Strategy

MODEL = {
    "vocab_size": 2048, "hidden_size": 64, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8,
    "context_length": 8,
}  # fmt: skip


def random_values(seed: int, size: int = 10_000) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def spec(smallest_run: Callable[..., RunSpec]) -> RunSpec:
    return smallest_run(model=MODEL)


@pytest.fixture
def holder(spec: RunSpec) -> Callable[..., Source]:
    """Make a holder of a replica: a common model, and something of its own; what it adds is `poison`."""
    size = Strategy("replicas", 1).layout("model", spec.model).size
    common = random_values(0, size)

    def make(number: int, version: int, apart: float = 0.05, poison: float = 0.0) -> Source:
        phi = common + apart * random_values(number, size) + poison * random_values(99, size)
        ages = {f"peer{each}": 7 for each in range(number)}  # headers of different lengths
        state = new_state("model", phi, None, version=version, round_=version, ages=ages, is_final=False)
        return Source(state)

    return make


def obtained(folder: Path, spec: RunSpec, holders: dict[str, Source]) -> tuple[OuterState, BlockStore]:
    store = BlockStore(folder, spec, Strategy("replicas", 1), holders.__getitem__, holders.__getitem__)
    return asyncio.run(store.obtain("model", list(holders))), store


def swarm_with_a_liar(holder: Callable[..., Source], others: int, poison: float) -> dict[str, Source]:
    """Return honest holders and one whose state is the first to be tried: it alone has the version that most have."""
    ahead = (others + 1) // 2
    holders = {f"honest{number}": holder(number, 9 if number <= ahead else 7) for number in range(1, others + 1)}
    return holders | {"liar": holder(50, 8, poison=poison)}


@pytest.mark.parametrize(("poison", "is_taken"), [(0.0, True), (0.1, True), (0.5, False), (5.0, False)])
@pytest.mark.parametrize("others", [2, 3, 6])
def test_who_is_far_from_the_others_is_left_and_another_s_state_is_taken(
    poison: float, is_taken: bool, others: int, tmp_path: Path, spec: RunSpec, holder: Callable[..., Source]
) -> None:
    holders = swarm_with_a_liar(holder, others, poison)
    state, store = obtained(tmp_path, spec, holders)
    assert (state.digest == holders["liar"].told.content_id) == is_taken
    stored = store.load("model")
    assert stored is not None and stored.digest == state.digest
    assert not list(tmp_path.glob(".*"))


def test_one_liar_among_those_that_are_compared_changes_nothing(
    tmp_path: Path, spec: RunSpec, holder: Callable[..., Source]
) -> None:
    holders = swarm_with_a_liar(holder, 3, 0.0) | {"other liar": holder(51, 7, poison=5.0)}
    honest = holders.pop("liar")
    state, _ = obtained(tmp_path, spec, holders | {"newcomer's": honest})
    assert state.phi.abs().max() < 8.0, "of five times the noise"


def test_who_shows_nothing_is_left_out_and_with_one_other_nothing_can_be_compared(
    tmp_path: Path, spec: RunSpec, holder: Callable[..., Source]
) -> None:
    holders = swarm_with_a_liar(holder, 2, 5.0)
    holders["honest1"].chunks_left = 0
    state, _ = obtained(tmp_path, spec, holders)
    assert state.digest == holders["liar"].told.content_id


def test_nobody_is_left_when_all_are_unlike(tmp_path: Path, spec: RunSpec, holder: Callable[..., Source]) -> None:
    """The last one or two have nobody to be compared with: then it is taken on trust, as where there are no more."""
    holders = {f"p{number}": holder(number, 7 + number, apart=3.0) for number in range(1, 4)}
    state, _ = obtained(tmp_path, spec, holders)
    assert state.digest in {each.told.content_id for each in holders.values()}


def test_a_check_costs_little(tmp_path: Path, spec: RunSpec, holder: Callable[..., Source]) -> None:
    holders = swarm_with_a_liar(holder, 6, 0.0)
    obtained(tmp_path, spec, holders)
    asked = [each for name, each in holders.items() if name != "liar" and each.sent]
    assert len(asked) == ASKED


def test_whose_states_are_looked_at() -> None:
    named: dict[str, Any] = dict.fromkeys("abcdef")
    chance = random.Random(0)
    looked = drawn(["a"], named, chance)
    assert len(looked) == ASKED and "a" not in looked
    assert drawn(["a", "b", "c"], named, chance), "half is no majority"
    assert drawn(["a", "b", "c", "d"], named, chance) == []
    assert drawn(["a"], {"a": named["a"], "b": named["b"]}, chance) == [], "one other is nobody's witness"
    assert len({tuple(sorted(drawn(["a"], named, chance))) for _ in range(50)}) > 3


@pytest.mark.parametrize(("factor", "alike"), [(0.9, True), (1.1, False)])
def test_the_threshold_is_a_multiple_of_how_far_the_others_are_apart(factor: float, alike: bool) -> None:
    others = [random_values(0) + 0.1 * random_values(number) for number in (1, 2, 3)]
    apart = min(float((a - b).square().mean().sqrt()) for a, b in [(others[0], others[1]), (others[0], others[2])])
    mine = random_values(0) + factor * RATIO * apart * random_values(9)
    assert is_alike(mine, others) is alike


@pytest.mark.parametrize(("factor", "alike"), [(0.9, True), (1.1, False)])
def test_of_equal_ones_a_little_is_no_difference(factor: float, alike: bool) -> None:
    others = [random_values(0)] * 2
    assert is_alike(random_values(0) + factor * FLOOR * random_values(9), others) is alike


def test_a_part_beyond_the_blob_is_none(tmp_path: Path, spec: RunSpec, holder: Callable[..., Source]) -> None:
    """A liar whose state is shorter than it must be shows nothing, and is left out."""
    short = new_state("model", torch.zeros(8), None, version=9, round_=9, ages={}, is_final=False)
    holders = {"a": Source(short), "b": holder(1, 9), "c": holder(2, 9)}
    named = {name: each.told for name, each in holders.items()}
    size = Strategy("replicas", 1).layout("model", spec.model).size
    poisoned = new_state("model", 9 * random_values(4, size), None, version=9, round_=9, ages={}, is_final=False)
    with pytest.raises(UnlikeError, match="of 2 others"):
        asyncio.run(look(list("abc"), named, size, holders.__getitem__, random.Random(0))).check(poisoned)
