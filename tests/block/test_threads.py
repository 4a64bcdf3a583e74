"""Work that is done as a whole, whoever is cancelled meanwhile."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from configs.errors import StateError
from peer.block.threads import whole


@pytest.mark.parametrize("fails", [False, True])
def test_a_cancellation_comes_when_the_work_is_done_and_nothing_complains(fails: bool) -> None:
    complaints, done = list[dict[str, Any]](), list[str]()

    async def work(goes_on: asyncio.Event) -> None:
        await goes_on.wait()
        done.append("done")
        if fails:
            raise StateError("the disk is full")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        goes_on = asyncio.Event()
        doing: Coroutine[Any, Any, None] = whole(work(goes_on))
        task = asyncio.ensure_future(doing)
        await asyncio.sleep(0)
        task.cancel()
        asyncio.get_running_loop().call_later(0.01, goes_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        gc.collect()

    asyncio.run(main())
    gc.collect()
    assert done == ["done"] and not complaints


def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise StateError("the disk is full")

    with pytest.raises(StateError):
        asyncio.run(whole(work()))
