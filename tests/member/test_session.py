"""What the user said of pausing holds, whatever begins meanwhile."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from configs.run import RunSpec
from peer.block.store import initial_state
from peer.member.session import Session
from peer.train.partition import COMMON, Strategy
from peer.train.private import Privacy


class FakeWorkers:
    """Remembers what it was asked."""

    def __init__(self, size: int) -> None:
        self.anchor, self.snapshot = torch.zeros(size), torch.zeros(size)
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def ask(*arguments: object) -> None:
            self.asked.append(name)

        return ask


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_pause_holds_through_a_change_of_sub_model(
    smallest_run: Callable[..., RunSpec], tmp_path: Path, is_paused: bool
) -> None:
    spec = smallest_run()
    strategy = Strategy.of(spec.strategy, 1)
    state = initial_state(spec, strategy)
    workers = FakeWorkers(state.size)
    store = SimpleNamespace(replicas={}, folder=tmp_path)
    library = SimpleNamespace(sources=lambda strategy, sub_model: [], domain_name=str)
    session = Session(spec, "me", cast(Any, workers), cast(Any, store))

    async def unknown() -> list[Any]:
        return []

    async def main() -> None:
        if is_paused:
            await session.pause()  # nothing trains yet
        assert workers.asked == []
        await session.take_up(state, unknown)
        await session.start(strategy, COMMON, cast(Any, library))
        assert workers.asked == (["load"] if is_paused else ["load", "resume"])
        await session.resume()
        assert workers.asked[-1] == "resume"

    asyncio.run(main())


@pytest.mark.parametrize("domains", [[], ["cod", "eel"]])
def test_held_out_losses_have_the_names_of_their_domains(
    smallest_run: Callable[..., RunSpec], tmp_path: Path, domains: list[str]
) -> None:
    spec = smallest_run()
    state = initial_state(spec, Strategy("replicas", 1))
    asked: list[tuple[list[str], int]] = []
    workers: Any = FakeWorkers(state.size)

    async def score(sources: list[str], windows: int) -> tuple[float, ...]:
        asked.append((sources, windows))
        return tuple(float(len(source)) for source in sources)

    workers.score = score
    library: Any = SimpleNamespace(
        sources=lambda strategy, sub_model: [],
        domain_name=str,
        heldout_sources=lambda strategy, sub_model: {name: f"{name}.tokens" for name in domains},
    )
    session = Session(spec, "me", workers, cast(Any, SimpleNamespace(replicas={"model": None}, folder=tmp_path)))

    async def main() -> None:
        assert await session.held_out_losses() == {}  # nothing is in training yet
        session._library, session.sub_model = library, COMMON
        assert await session.held_out_losses() == dict.fromkeys(domains, 10.0)

    asyncio.run(main())
    assert asked == ([(["cod.tokens", "eel.tokens"], 1)] if domains else [])


def test_what_leaves_is_not_what_is_trained_on(smallest_run: Callable[..., RunSpec], tmp_path: Path) -> None:
    """The noise goes to the others; the worker goes on from what it has learnt itself."""
    spec = smallest_run()
    state = initial_state(spec, Strategy("replicas", 1))
    workers = FakeWorkers(state.size)
    privacy = Privacy(0.1, 1.0, tmp_path)
    session = Session(spec, "me", cast(Any, workers), cast(Any, SimpleNamespace(replicas={}, folder=tmp_path)), privacy)
    library: Any = SimpleNamespace(sources=lambda strategy, sub_model: [], domain_name=str)

    async def unknown() -> list[Any]:
        return []

    async def snapshot() -> Any:
        workers.snapshot.copy_(state.phi + 1.0)
        return SimpleNamespace(tokens=8, position=0)

    async def main() -> None:
        await session.take_up(state, unknown)
        await session.start(Strategy("replicas", 1), COMMON, library)
        taken = await session.take_snapshots([COMMON])
        assert taken.thetas[COMMON].equal(state.phi + 1.0)
        left = taken.works[COMMON].theta - state.phi
        norm = float(torch.linalg.vector_norm(left))
        assert norm < 0.5 * state.size**0.5 and privacy.releases == 1
        await session.rebase(COMMON, state, taken, is_step=True)
        assert workers.snapshot.equal(taken.thetas[COMMON])

    workers.__dict__.update(take_snapshot=snapshot, epoch=0)
    asyncio.run(main())
