"""A change of sub-model that cannot be made leaves everything as it is."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import NetworkError
from peer.member.changes import Changes


@pytest.mark.parametrize("error", [NetworkError("nobody has it"), TimeoutError()])
def test_a_sub_model_that_cannot_be_had_is_put_off_and_training_goes_on(error: Exception) -> None:
    put_off: list[str] = []

    async def obtain(block: str, peers: object) -> None:
        raise error

    activity = SimpleNamespace()  # no transition may be asked of it
    parts: Any = SimpleNamespace(
        activity=activity,
        session=SimpleNamespace(sub_model="branch.0", replicas={"branch.0": None}),
        outlook=SimpleNamespace(others=list),
        store=SimpleNamespace(obtain=obtain),
        facts=SimpleNamespace(strategy=SimpleNamespace(blocks=lambda sub_model: (sub_model,))),
    )
    turns: Any = SimpleNamespace(target=lambda tick: "branch.1", put_off=put_off.append)
    none: Any = None

    async def main() -> None:
        changes = Changes(parts, none, none, turns, none, none)
        async with asyncio.TaskGroup() as tasks:
            changes.consider(8, tasks)
            changes.consider(8, tasks)  # one is under way: no second one begins
        await changes.settle()

    asyncio.run(main())
    assert put_off == ["branch.1"]


@pytest.mark.parametrize("target", ["branch.0", None])
def test_nothing_changes_where_the_target_is_what_is_trained(target: str | None) -> None:
    parts: Any = SimpleNamespace(session=SimpleNamespace(sub_model=target or ""))
    turns: Any = SimpleNamespace(target=lambda tick: target)
    none: Any = None
    Changes(parts, none, none, turns, none, none).consider(8, none)
