"""A peer beside a program that has no event loop to spare: a notebook, a script, a training loop.

A notebook already runs a loop, and a training loop must not wait for one; so the peer's loop runs in a thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from configs.errors import UsageError
from configs.load import Settings
from dht.loop_thread import LoopThread
from shoal.events import Event
from shoal.peer import Peer, load, open_peer

if TYPE_CHECKING:
    from types import TracebackType

    from peer.http.status import Status


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
