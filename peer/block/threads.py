"""Work that is done as a whole or not at all, whoever is cancelled meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unbroken(function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in a thread beside the event loop; a cancellation comes only when it is done."""
    return await whole(asyncio.to_thread(function, *arguments))


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Do a work; a cancellation comes only when it is done, so that it changes all or nothing."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
