"""Waits of tests and benchmarks: their clock ends a hang, and decides nothing else.

What takes seconds on a quick machine gets minutes, all in this one place, so that a machine that is slow or busy comes
to the same result. Who waits in vain says for what, and what was seen last.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from configs.errors import ShoalError

HANG_S = 600.0  # after which what takes some seconds counts as hung
LOOK_S = 0.1  # between two looks

T = TypeVar("T")


class Hung(ShoalError):
    """Something did not come about in all the time that a wait has."""


def until(
    look: Callable[[], T],
    is_so: Callable[[T], object],
    what: str,
    *,
    seen: Callable[[T], str] = str,
    most_s: float = HANG_S,
) -> T:
    """Look again and again until `is_so` of what is seen; return that. Raises Hung with `what` and the last of it."""
    deadline = time.monotonic() + most_s
    while not is_so(last := look()):
        if time.monotonic() > deadline:
            raise Hung(_in_vain(what, most_s, seen(last)))
        time.sleep(LOOK_S)
    return last


async def until_async(
    look: Callable[[], Awaitable[T]],
    is_so: Callable[[T], object],
    what: str,
    *,
    seen: Callable[[T], str] = str,
    most_s: float = HANG_S,
) -> T:
    """Do as `until`, without blocking the loop; a look that never comes to an end has no longer."""
    last: list[T] = []
    async with patience(what, seen=lambda: seen(last[0]) if last else "nothing", most_s=most_s):
        while True:
            last[:] = [await look()]
            if is_so(last[0]):
                return last[0]
            await asyncio.sleep(LOOK_S)
    raise AssertionError("a wait ends by what it waits for, or by an error")


@asynccontextmanager
async def patience(what: str, *, seen: Callable[[], str] = str, most_s: float = HANG_S) -> AsyncIterator[None]:
    """Hold a deadline for `what` is waited for. Raises Hung with that, and with what is `seen` by then."""
    try:
        async with asyncio.timeout(most_s) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise Hung(_in_vain(what, most_s, seen())) from None


def _in_vain(what: str, seconds: float, last: str) -> str:
    return f"waited {seconds:g} s in vain for {what}" + (f"; seen last: {last}" if last else "")
