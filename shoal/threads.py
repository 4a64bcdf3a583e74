"""A peer beside a program that has no event loop to spare: a notebook, a script, a training loop.

A notebook already runs a loop, and a training loop must not wait for one; so the peer's loop runs in a thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from configs.errors import StateError, UsageError
from configs.load import Settings
from shoal.events import Event
from shoal.peer import Peer, load, open_peer

if TYPE_CHECKING:
    from types import TracebackType

    from peer.http.status import Status

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


class SyncPeer:
    """A peer for programs without an event loop, notebooks above all; `leave` or the end of its `with` ends it.

    Its loop runs in a thread of its own. The peer is lost, as by a power cut, when the program ends before `leave`: it
    comes back with the same `state_dir`.
    """

    def __init__(self, settings: Settings | None = None, **options: Any) -> None:
        """Open a peer and return when it has begun; the arguments, and the errors, are those of `open_peer`."""
        if settings is not None and options:
            raise UsageError("give SyncPeer either settings or options, not both: shoal.load takes the options")
        self._loop = LoopThread(open_peer(settings or load(**options)), "shoal-peer")
        self._peer: Peer = self._loop.value

    @property
    def address(self) -> str:
        """The address by which others join, that which most of them can reach."""
        return self._peer.address

    def status(self) -> Status:
        """Return everything that `shoal status --json` shows, as it is now."""
        return self._loop.call(self._look())

    def events(self, seconds: float, count: int = 1) -> list[Event]:
        """Wait until `count` events have happened, or so many seconds, or until the peer has left; return them."""
        return self._loop.call(_first(self._peer, seconds, count))

    def pause(self) -> None:
        """Stop training until `resume`, but go on serving."""
        self._loop.call(self._peer.pause())

    def resume(self) -> None:
        """Train again."""
        self._loop.call(self._peer.resume())

    def leave(self) -> None:
        """Leave the run: hand over, save and end; returns when that is done. The second time it does nothing."""
        self._loop.close()

    def __enter__(self) -> SyncPeer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def _look(self) -> Status:
        return self._peer.status()


async def _first(peer: Peer, seconds: float, count: int) -> list[Event]:
    found: list[Event] = []
    try:
        async with asyncio.timeout(seconds):
            async for event in peer.events():
                found.append(event)
                if len(found) >= count:
                    break
    except TimeoutError:
        pass
    return found
