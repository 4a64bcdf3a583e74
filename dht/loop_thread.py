"""An event loop in a thread of its own, for what has none to spare: a notebook, a training loop, a long computation."""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from configs.errors import StateError

T = TypeVar("T")
R = TypeVar("R")

HAS_ENDED = "this peer has left its run; open another one to take part again"


class LoopThread(Generic[T]):
    """Holds an async resource, such as `open_peer`, in an event loop of its own, in a thread of its own.

    `value` is what it yields. The thread never keeps a program from ending; only `close` ends it in peace.
    """

    def __init__(self, resource: AbstractAsyncContextManager[T], name: str) -> None:
        """Return when the resource is open. Raises what its opening raises; Ctrl-C closes it again."""
        self._resource = resource
        self._failure: BaseException | None = None  # why the resource ended by itself
        self._is_told = False
        self._begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = Future()
        self._opened: Future[T] = Future()
        self._ended: Future[None] = Future()
        self._closing = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        try:
            self.value = self._opened.result()
        except KeyboardInterrupt:
            self.close()
            raise
        except BaseException:
            self._is_told = True
            raise

    @property
    def is_open(self) -> bool:
        """Whether the resource is still held."""
        return not self._ended.done()

    def check(self) -> None:
        """Raise what has ended the resource, if something has."""
        if self._failure is not None:
            self._is_told = True
            raise self._failure

    def call(self, work: Coroutine[Any, Any, R]) -> R:
        """Do a work in the loop and return its result. Raises what it raises, StateError if the resource has ended."""
        loop, _ = self._begun.result()
        if self._ended.done() or loop.is_closed():
            work.close()
            self.check()
            raise StateError(HAS_ENDED)
        doing = asyncio.run_coroutine_threadsafe(work, loop)
        futures: set[Future[Any]] = {doing, self._ended}
        wait(futures, return_when=FIRST_COMPLETED)
        if doing.done() and not doing.cancelled():
            return doing.result()
        self.check()
        raise StateError(HAS_ENDED)

    def close(self) -> None:
        """Close the resource and wait for that. Raises what has ended it by itself, unless that was raised before."""
        loop, task = self._begun.result()
        if not self._ended.done():
            if self._opened.done():
                loop.call_soon_threadsafe(self._closing.set)
            elif task is not None:
                loop.call_soon_threadsafe(task.cancel)
        self._thread.join()
        if not self._is_told:
            self.check()

    def _run(self) -> None:
        import uvloop

        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._hold())
        except BaseException as error:
            self._failure = self._failure or error
        finally:
            self._ended.set_result(None)

    async def _hold(self) -> None:
        self._begun.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        try:
            async with self._resource as value:
                self._opened.set_result(value)
                await self._closing.wait()
        except BaseException as error:
            self._failure = error
            if not self._opened.done():
                self._opened.set_exception(error)
