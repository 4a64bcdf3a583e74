"""Tests that are coroutines: each in an event loop of its own, of the kind that the daemon has."""

import functools
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        uvloop.run(test(**given))

    return run
