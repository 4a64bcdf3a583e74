"""Work that is done in a thread beside the event loop, as a whole or not at all."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def unbroken(function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in a thread; a cancellation comes only when it is done, so that it changes all or nothing."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
