"""`fuse --best` takes what foretold held-out text best, which peers keep beside the newest."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from configs.errors import UsageError
from peer.block.store import BlockStore, initial_state
from peer.member.best import FOLDER, keep_best
from peer.member.entry import Entry
from peer.train.outer import SWARM, OuterState, new_state
from peer.train.partition import COMMON, Strategy
from peer.visit.gather import Sources, fuse_from, gather


@pytest.fixture
def saved(founded: Callable[..., Entry], tmp_path: Path) -> Callable[[str], tuple[Path, OuterState]]:
    """A state directory with a run in it, and the newest state of its common model."""

    def save(kind: str) -> tuple[Path, OuterState]:
        folder = tmp_path / kind
        entry = founded(folder, {"kind": kind, "common_tokens": 1000})
        entry.save(folder)
        entry.library.keep_counts()
        strategy = Strategy.of(entry.spec.strategy, len(entry.library.domains))
        state = initial_state(entry.spec, strategy)
        store = BlockStore(folder / "blocks", entry.spec, strategy, cast(Any, None), cast(Any, None))
        asyncio.run(store.put(state))
        return folder, state

    return save


def test_the_best_state_is_fused_in_the_place_of_the_newest(
    saved: Callable[[str], tuple[Path, OuterState]], tmp_path: Path
) -> None:
    folder, newest = saved("replicas")
    with pytest.raises(UsageError, match=r"no best state is kept there; .* Leave out --best"):
        gather(Sources([str(folder)], best=True))
    best = new_state(COMMON, newest.phi + 1.0, None, version=0, round_=0, ages={SWARM: 5}, is_final=False)
    assert keep_best(folder / FOLDER, COMMON, {"fish": 2.0}, [best])
    assert gather(Sources([str(folder)])).blocks[COMMON].equal(newest.phi)
    assert gather(Sources([str(folder)], best=True)).blocks[COMMON].equal(best.phi)
    fuse_from(Sources([str(folder)], best=True), tmp_path / "out", "llama")
    assert (tmp_path / "out" / "config.json").is_file()
    with pytest.raises(UsageError, match="lie on disk: give state directories, or leave out --best"):
        gather(Sources(["/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"], best=True))


def test_experts_have_no_best_state(saved: Callable[[str], tuple[Path, OuterState]]) -> None:
    folder, state = saved("experts")
    keep_best(folder / FOLDER, COMMON, {"fish": 2.0}, [state])
    with pytest.raises(UsageError, match="experts share a trunk"):
        gather(Sources([str(folder)], best=True))
