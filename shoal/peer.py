"""A peer in the caller's own event loop.

It is the daemon itself (`peer/daemon.py`), its rounds, its network and its status page; only signals and standard
output stay the caller's. What trains are worker processes, as everywhere: the loop is never busy for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from configs.errors import UsageError
from configs.kept import recall
from configs.load import Settings
from configs.load import load as read_settings
from shoal.events import Event, events_between

if TYPE_CHECKING:
    from peer.daemon import Come, Daemon
    from peer.http.status import Status
    from peer.workers.trainer import Trainer

MAX_EVENTS = 1024  # that wait for one reader; of more the oldest go


def load(config: str | None = None, **options: Any) -> Settings:
    """Read a preset, the environment and `options`, each over the one before; nothing is started.

    `config` is a preset's name or a TOML file; it is needed to found a run. `options` are the keys of a preset's
    section `[peer]`, such as `state_dir`, `initial_peers`, `port`, `data`. What the state directory keeps of earlier
    starts goes under them. Raises ConfigError, StateError.
    """
    return recall(read_settings(config, **options))


@asynccontextmanager
async def open_peer(settings: Settings | None = None, **options: Any) -> AsyncIterator[Peer]:
    """Take part in a run for as long as the block lasts; it begins when the peer has its first state to train.

    `settings` are what `shoal.load` returns; `options` are the same by themselves, `config` among them. Leaving the
    block leaves the run as `shoal leave` does: hands over, saves, up to a minute; so does a cancellation, and a second
    one ends it at once. If the peer fails in the meantime the block is cancelled, and its error raised.

    Holds the state directory, a libp2p process and the worker processes. Starts these from a fork of a clean process,
    so a script needs the usual `if __name__ == "__main__":`.

    Raises ShoalError in one of its kinds: a state directory that another peer holds, a port that is taken, nobody at
    an address, …
    """
    if settings is not None and options:
        raise UsageError("give open_peer either settings or options, not both: shoal.load takes the options")
    settings = settings or load(**options)
    from peer.commands.beginning import check_start

    check_start(settings)
    async with opened(settings) as peer:
        yield peer


@asynccontextmanager
async def opened(
    settings: Settings, trainer: AbstractAsyncContextManager[Trainer] | None = None, come: Come | None = None
) -> AsyncIterator[Peer]:
    """Do as `open_peer`, with another trainer than worker processes, and another way to a run, if they are given."""
    from configs.temporary import NOTE, remove_noted
    from peer.daemon import open_daemon
    from peer.ending import first_cause
    from peer.http.local import hold_state_dir
    from peer.member.entry import enter

    folder, leaving = settings.peer.state_dir, asyncio.Event()
    with hold_state_dir(folder), remove_noted(folder / NOTE):
        async with open_daemon(settings, leaving, trainer, come or enter) as daemon:
            peer = Peer(daemon, leaving)
            failed: Exception | None = None  # of the caller's block
            try:
                async with asyncio.TaskGroup() as tasks:
                    living = tasks.create_task(peer._live())
                    await peer._has_begun.wait()
                    try:
                        yield peer
                    except Exception as error:
                        failed = error
                        raise
                    finally:
                        leaving.set()
                        await asyncio.wait([living])
            except BaseExceptionGroup as group:
                raise failed or first_cause(group) from None


class Peer:
    """A peer that takes part in a run; made by `open_peer`. Its methods belong to the loop that it was opened in."""

    def __init__(self, daemon: Daemon, leaving: asyncio.Event) -> None:
        self.daemon = daemon
        self._leaving = leaving
        self._has_begun, self._has_left = asyncio.Event(), asyncio.Event()
        self._readers: set[asyncio.Queue[Event | None]] = set()
        self._last: Status | None = None

    def status(self) -> Status:
        """Return everything that `shoal status --json` shows, as it is now."""
        return self.daemon.lookout.status()

    @property
    def address(self) -> str:
        """The address by which others join, that which most of them can reach."""
        return next(iter(self.daemon.parts.place.addresses), "")

    @property
    def has_left(self) -> bool:
        """Whether the peer has left, or is leaving: the block may have ended, or somebody has said `shoal leave`."""
        return self._leaving.is_set()

    async def events(self) -> AsyncIterator[Event]:
        """Yield what happens from now on, at each tick of the run's clock, until the peer has left.

        Any number may read at a time. Who does not read for long misses the oldest of what has happened since.
        """
        queue: asyncio.Queue[Event | None] = asyncio.Queue(MAX_EVENTS)
        self._readers.add(queue)
        try:
            if self._has_left.is_set():
                return
            while (event := await queue.get()) is not None:
                yield event
        finally:
            self._readers.discard(queue)

    async def pause(self) -> None:
        """Stop training until `resume`, but go on serving; returns when the step under way is over."""
        await self.daemon.parts.control.pause()

    async def resume(self) -> None:
        """Train again."""
        await self.daemon.parts.control.resume()

    async def leave(self) -> None:
        """Leave the run: hand over, save and end; returns when that is done. Leaving the block does the same."""
        self._leaving.set()
        await self._has_left.wait()

    async def _live(self) -> None:
        try:
            await self.daemon.train(self._has_begun.set, self._look)
            self._look(self.status())
        finally:
            self._has_left.set()
            self._tell(None)

    def _look(self, status: Status) -> None:
        for event in events_between(self._last, status):
            self._tell(event)
        self._last = status

    def _tell(self, event: Event | None) -> None:
        for queue in self._readers:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(event)
