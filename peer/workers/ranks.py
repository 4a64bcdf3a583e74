"""The processes of one generation of workers, and the daemon's end of their sockets.

What is said over them is `supervisor.py`'s.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import TYPE_CHECKING

from configs.temporary import take_short_folder
from peer.train.channel import MAX_MESSAGE_BYTES, PREFIX_BYTES, packed, unpacked
from peer.train.launch import MODULES, Setup
from peer.train.messages import Answer, Answered, Asked, Failed, Message, Refused, Request

if TYPE_CHECKING:
    from torch import Tensor


END_S = 10.0  # seconds that a killed process has to end, after which it is left to the kernel


def preload() -> list[Path]:
    """Start the fork server, which imports what workers need; returns at once its temporary folders.

    Workers are forked from this clean, single-threaded process: the first step comes a tenth of a second after
    a start. Call it before the daemon's own imports, so that both import side by side. Raises UsageError: there is no
    folder for its socket.
    """
    take_short_folder()
    multiprocessing.get_context("forkserver").set_forkserver_preload(MODULES)
    if threading.current_thread() is threading.main_thread():
        # A Ctrl-C reaches the whole process group; the fork server ends with the daemon, never by itself.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGINT, handler)
    else:  # where nothing can be said about signals
        forkserver.ensure_running()
    return [Path(get_temp_dir())]


def run(sock: socket.socket, setup: Setup, snapshot: Tensor, anchor: Tensor) -> None:
    """Be one rank, in its own process, until the daemon closes the socket."""
    from peer.train.worker import work

    work(sock, setup, snapshot, anchor)


class RankDiedError(Exception):
    """A rank has ended."""

    def __init__(self, rank: Rank) -> None:
        super().__init__(rank.name)
        self.rank = rank


@dataclass
class Rank:
    """One worker process and the daemon's end of its socket."""

    name: str
    process: BaseProcess
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: dict[int, asyncio.Future[Answer]] = field(default_factory=dict)  # a request's number → its answer
    asked: int = 0  # requests so far
    failure: Failed | None = None  # why it ends: what it said itself, or that it was silent
    is_ended: bool = False
    is_given_up: bool = False  # it was silent for too long

    async def messages(self) -> AsyncIterator[Message]:
        """Yield what the rank says until it ends."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                (size,) = struct.unpack(">I", await self.reader.readexactly(PREFIX_BYTES))
                yield unpacked(await self.reader.readexactly(min(size, MAX_MESSAGE_BYTES)))

    @contextmanager
    def asking(self, request: Request) -> Iterator[asyncio.Future[Answer]]:
        """Ask; yield the future answer. It raises RankDiedError when the rank ends."""
        if self.is_ended:
            raise RankDiedError(self)
        self.asked += 1
        number = self.asked
        future = self.waiting[number] = asyncio.get_running_loop().create_future()
        self.writer.write(packed(Asked(id=number, request=request)))
        try:
            yield future
        finally:
            del self.waiting[number]
            if not future.cancel() and not future.cancelled():
                future.exception()  # that another rank ended, too, is no news

    def answered(self, message: Answered) -> None:
        """Hand an answer to who waits for it, unless that was given up."""
        future = self.waiting.get(message.id)
        if future is not None and not future.done():
            future.set_result(message.answer)

    def ended(self) -> None:
        """Let nobody wait any longer."""
        self.is_ended = True
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(RankDiedError(self))

    def give_up(self, reason: str) -> None:
        """Kill a process that is silent, and hear no more of it: one that hangs in a driver may outlive its kill."""
        self.is_given_up = True
        self.failure = Failed(kind="other", reason=reason)
        self.process.kill()
        self.writer.transport.abort()

    def why_ended(self) -> str:
        """Say how the process ended. Blocks until it has."""
        self.process.join(5)
        code = self.process.exitcode
        if code is not None and code < 0:
            return f"{self.name} was ended by {signal.Signals(-code).name}"
        return f"{self.name} ended with exit code {code}"


async def ask_all(ranks: Sequence[Rank], request: Request, patience_s: float) -> Answer:
    """Ask all ranks; return the first one's answer. Raises RankDiedError, or the error that a rank refuses with.

    Ranks that have not answered after `patience_s` are killed.
    """
    with ExitStack() as stack:
        futures = [stack.enter_context(rank.asking(request)) for rank in ranks]
        try:
            async with asyncio.timeout(patience_s):
                answers = await asyncio.gather(*futures)
        except TimeoutError:
            silent = [rank for rank, future in zip(ranks, futures, strict=True) if future.cancelled()]
            names = " and ".join(rank.name for rank in silent)
            for rank in silent:
                rank.give_up(f"{names} did not answer for {patience_s:.0f} s and was ended")
            raise RankDiedError(silent[0]) from None
    for answer in answers:
        if isinstance(answer, Refused):
            raise answer.error()
    return answers[0]


@asynccontextmanager
async def open_ranks(setup: Setup, snapshot: Tensor, anchor: Tensor) -> AsyncIterator[list[Rank]]:
    """Hold one process for each device. At the end all are killed: nothing of worth is in them but the anchor's."""
    context = multiprocessing.get_context("forkserver")
    ranks: list[Rank] = []
    try:
        for index, device in enumerate(setup.devices):
            ours, theirs = socket.socketpair()
            arguments = (theirs, replace(setup, rank=index), snapshot, anchor)
            process = context.Process(target=run, args=arguments, name=f"shoal-worker-{index}", daemon=True)
            reader, writer = await asyncio.open_connection(sock=ours)
            with theirs:
                ranks.append(Rank(f"the worker on {device}", process, reader, writer))
                await asyncio.to_thread(process.start)  # waits for the fork server's imports, the first time
        yield ranks
    finally:
        for rank in ranks:
            rank.writer.close()
            if rank.process.pid is not None:
                rank.process.kill()
        for rank in ranks:
            if rank.process.pid is not None:
                await asyncio.to_thread(rank.process.join, END_S)
