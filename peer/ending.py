"""How a daemon ends: at a signal, or by the first error that a person can act on."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Collection, Iterator
from typing import Any

from configs.errors import ShoalError

log = logging.getLogger(__name__)


@contextlib.contextmanager
def leave_on_signals(leaving: asyncio.Event) -> Iterator[Callable[[], object]]:
    """Leave at the first SIGTERM, SIGINT or SIGHUP (a closed terminal); at the second, end at once.

    Until what this yields was called there is nothing to hand over, and leaving cancels the calling task.
    """
    loop = asyncio.get_running_loop()
    giving_up = loop.create_task(_give_up(leaving, asyncio.current_task()))

    def on_signal(number: int) -> None:
        if leaving.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        log.info("leaving: handing over and saving; once more to end at once")
        leaving.set()

    try:
        with handling_signals(on_signal):
            yield giving_up.cancel
    finally:
        giving_up.cancel()


@contextlib.contextmanager
def handling_signals(
    on_signal: Callable[[int], object], numbers: Collection[int] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
) -> Iterator[None]:
    """Call `on_signal` in the running loop at each of these signals; afterwards they end the process as usual.

    A SIGHUP that is ignored, as below `nohup`, stays ignored.
    """
    loop = asyncio.get_running_loop()
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        numbers = [number for number in numbers if number != signal.SIGHUP]
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _give_up(leaving: asyncio.Event, start: asyncio.Task[Any] | None) -> None:
    await leaving.wait()
    if start is not None:
        start.cancel()


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that a person can act on, or the first."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(first_cause(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in leaves if isinstance(error, ShoalError)), leaves[0])
