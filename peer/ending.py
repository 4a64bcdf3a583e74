"""How a daemon ends: at a signal, in a time that is bounded, or by the first error that a person can act on."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any

from configs.errors import ShoalError

log = logging.getLogger(__name__)

LEAVE_S = 40.0  # from the wish to leave to the end of the process, whatever hangs
LAST_S = 1.0  # of it, to end the process by force


@contextlib.contextmanager
def leave_on_signals(
    leaving: asyncio.Event, on_leaving: Callable[[], object] = lambda: None
) -> Iterator[Callable[[], object]]:
    """Leave at the first SIGTERM, SIGINT or SIGHUP (a closed terminal); at the second, end at once.

    Until what this yields was called there is nothing to hand over, and leaving cancels the calling task. However it
    comes about, `on_leaving` is called when it begins.
    """
    loop = asyncio.get_running_loop()
    giving_up = loop.create_task(_give_up(leaving, asyncio.current_task()))
    telling = loop.create_task(_tell(leaving, on_leaving))

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
        telling.cancel()


@contextlib.contextmanager
def in_time(most_s: float = LEAVE_S) -> Iterator[Callable[[], object]]:
    """Yield what begins the time that leaving has: if this block goes on for longer, it ends the process.

    For a process that is a daemon and nothing else. What was saved is whole, and what was not is lost as in a crash.
    """
    timer = threading.Timer(most_s - LAST_S, _end, [most_s])
    timer.daemon = True
    try:
        yield timer.start
    finally:
        timer.cancel()


def _end(most_s: float) -> None:
    """End this process and its children at once. In peace for whoever asked it to go: the exit code is 0."""
    import psutil  # its import is worth nothing until then

    log.error("leaving took longer than %g s, and ends here: the next start goes on from what was saved", most_s)
    logging.shutdown()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(0)


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


async def _tell(leaving: asyncio.Event, on_leaving: Callable[[], object]) -> None:
    await leaving.wait()
    on_leaving()


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error that a person can act on, or the first."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(first_cause(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in leaves if isinstance(error, ShoalError)), leaves[0])
