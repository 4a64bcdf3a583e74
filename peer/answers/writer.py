"""Lets a model answer in threads, some prompts side by side, the others in turn, while the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

from configs.errors import ShoalError

if TYPE_CHECKING:
    from peer.fused.generate import Generation  # which imports transformers

CLOSED = "it is ending; ask again later"


class BusyError(ShoalError):
    """As many prompts are waiting as may wait. Ask again later."""


class ClosedError(ShoalError):
    """Nothing is answered any more. What was under way is cut."""


class Writer:
    """Writes so many answers `at_once`, begun in the order in which they were asked for.

    `max_waiting`: prompts that may wait beside those that are being answered.
    """

    def __init__(self, max_waiting: int, at_once: int = 1) -> None:
        self._most = max_waiting + at_once
        self.asked = 0  # prompts that are waiting or being answered
        self._turns = asyncio.Semaphore(at_once)  # it is fair
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="answer")
        self._writing: set[Answer] = set()
        self._is_closed = False

    @property
    def is_busy(self) -> bool:
        """Whether one more prompt would be refused."""
        return self.asked >= self._most

    @asynccontextmanager
    async def write(self, begin: Callable[[], Generation]) -> AsyncIterator[Answer]:
        """Yield the answer to the prompt of the generation that `begin` makes, once its turn has come.

        `begin` and the writing run in a thread. Leaving the block, or a cancellation, ends the writing at its next
        token. Raises BusyError at once, ClosedError after `close`, and whatever `begin` raises.
        """
        if self.is_busy:
            raise BusyError("it is busy with what was asked before; ask again later")
        self.asked += 1
        try:
            async with self._turns:
                if self._is_closed:
                    raise ClosedError(CLOSED)
                answer = Answer(begin, self._threads)
                self._writing.add(answer)
                try:
                    await answer.begun()
                    yield answer
                finally:
                    self._writing.discard(answer)
                    await answer.end()
        finally:
            self.asked -= 1

    def close(self) -> None:
        """Cut the answers that are being written, and refuse all that wait."""
        self._is_closed = True
        for answer in self._writing:
            answer.cut()
        self._threads.shutdown(wait=False)


class Answer:
    """An answer in the making: iterate for its pieces, one for each token. Errors of the thread are raised here."""

    generation: Generation

    def __init__(self, begin: Callable[[], Generation], threads: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()  # None is the end
        self._has_begun = asyncio.Event()  # or failed
        self._is_unwanted = threading.Event()
        self._writing = self._loop.run_in_executor(threads, self._write, begin)
        self._writing.add_done_callback(self._finish)

    async def begun(self) -> None:
        """Wait until the prompt has been taken. Raises what was wrong with it."""
        await self._has_begun.wait()
        if self._writing.done():
            self._writing.result()

    def cut(self) -> None:
        """Stop writing; who reads it gets a ClosedError."""
        self._is_unwanted.set()

    async def end(self) -> None:
        """Stop writing; return when the thread has."""
        self.cut()
        await asyncio.wait([self._writing])

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> str:
        piece = await self._pieces.get()
        if piece is None:
            self._writing.result()
            if self._is_unwanted.is_set():
                raise ClosedError(CLOSED)
            raise StopAsyncIteration
        return piece

    def _write(self, begin: Callable[[], Generation]) -> None:
        self.generation = begin()
        self._loop.call_soon_threadsafe(self._has_begun.set)
        with closing(iter(self.generation)) as pieces:  # others may wait for it to say that it reads no more
            for piece in pieces:
                if self._is_unwanted.is_set():
                    return
                self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def _finish(self, writing: asyncio.Future[None]) -> None:
        if not writing.cancelled():
            writing.exception()  # it is raised where the answer is read, if it still is
        self._pieces.put_nowait(None)
        self._has_begun.set()
