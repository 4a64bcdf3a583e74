"""Work that is done as a whole or not at all, whoever is cancelled meanwhile."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


async def unbroken(function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in a thread beside the event loop; a cancellation comes only when it is done."""
    return await whole(asyncio.to_thread(function, *arguments))


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Do a work; a cancellation comes only when it is done, so that it changes all or nothing.

    Where it fails meanwhile, the cancellation comes all the same: whoever cancels says why all of it ends.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("failed while it was to end: %s", error)
        raise
