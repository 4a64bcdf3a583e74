"""Event loops for tests: of the kind that the daemon has, and one by whose clock no machine is too slow."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine, in an event loop of its own."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        uvloop.run(test(**given))

    return run


class Skips(selectors.SelectSelector):
    """Waits for files only where nobody waits for a time; else the time is over at once."""

    def __init__(self, skip: Callable[[float], None]) -> None:
        super().__init__()
        self.skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select()
        self.skip(max(0.0, timeout))
        return super().select(0)


class FakeTime(asyncio.SelectorEventLoop):
    """Its clock goes on only when all are asleep, and then at once: what is counted by it is the same everywhere."""

    def __init__(self, waiting: type[Skips] = Skips) -> None:
        self._now = 0.0
        super().__init__(waiting(self._skip))

    def time(self) -> float:
        return self._now

    def _skip(self, seconds: float) -> None:
        self._now += seconds
