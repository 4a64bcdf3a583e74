"""An event loop whose time jumps to the next timer when nothing is ready, and whose threads are none.

What takes an hour in a swarm takes as long here as it takes to compute. Functions for a thread run at once, in place,
so that no thread outruns the clock. A loop that has nothing ready and no timer would wait for ever: an error.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from loop import FakeTime, Skips


class _Nothing(Skips):
    """Waits for no file: moves the loop's clock instead."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing is ready and nothing is to come: the swarm hangs")
        self.skip(max(0.0, timeout))
        return []


class JumpingLoop(FakeTime):
    def __init__(self) -> None:
        self.in_thread = False  # what runs now would run in a thread of its own
        super().__init__(_Nothing)
        self._clock_resolution = 1e-9
        self.faults: list[dict[str, Any]] = []  # what would be printed as an exception that nobody retrieved
        self.set_exception_handler(lambda loop, context: self.faults.append(context))

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        done: asyncio.Future[Any] = self.create_future()
        self.in_thread = True
        try:
            result = func(*args)
        except Exception as error:
            self.call_soon(lambda error=error: done.cancelled() or done.set_exception(error))
        else:
            self.call_soon(lambda: done.cancelled() or done.set_result(result))
        finally:
            self.in_thread = False
        return done
