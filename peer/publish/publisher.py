"""Pushes a peer's checkpoint every so often, behind its training: no round waits for it, and no failure ends it."""

import asyncio
import logging
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from configs.errors import ShoalError
from configs.machine import PeerConfig
from configs.outlets import Every, read_every, read_target
from peer.block.store import BlockStore
from peer.member.chronicle import Chronicle
from peer.member.library import Library
from peer.publish.checkpoint import SCRATCH, Pushed, push_checkpoint, snapshot_of
from peer.publish.opening import open_place
from peer.publish.places import Pace
from protocols.traffic import Traffic

log = logging.getLogger(__name__)

RETRY_S = 60.0  # after a failure
UPLINK = "publishing"  # what it is called among those who share the uplink

T = TypeVar("T")


@dataclass(frozen=True)
class Mark:
    """When something was pushed last."""

    at: float  # seconds
    rounds: int  # of this peer, by then


def is_due(every: Every, now: float, rounds: int, last: Mark | None) -> bool:
    """Whether to push: at first as soon as there is a round of one's own, then as often as it was said."""
    if last is None:
        return rounds > 0
    if every.unit == "rounds":
        return rounds - last.rounds >= every.count
    return now - last.at >= 60 * every.count


class Publisher:
    """Pushes what `snapshot_of` finds to the target of the configuration, if it has one."""

    def __init__(self, config: PeerConfig, me: str, store: BlockStore, library: Library, chronicle: Chronicle) -> None:
        """`chronicle` counts the rounds, and is told what becomes of the pushes."""
        self._me, self._store, self._library, self._chronicle = me, store, library, chronicle
        self._folder = config.state_dir
        for left in self._folder.glob(f"{SCRATCH}*"):  # by a daemon that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._target = None if config.publish is None else read_target(config.publish).below(library.spec.run_id, me)
        self._every = read_every(config.publish_every)
        self._last: Mark | None = None
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None
        self._failure = ""

    @property
    def warning(self) -> str:
        """What is wrong, and since when nothing was pushed; nothing while all is well."""
        return f"no checkpoint is published: {self._failure}; tried again in a minute" if self._failure else ""

    def consider(self, now: float, traffic: Traffic, tasks: asyncio.TaskGroup) -> None:
        """Begin to push if it is due, and not under way. `now` in wall-clock seconds."""
        if self._target is None or (self._task is not None and not self._task.done()) or now < self._not_before:
            return
        if is_due(self._every, now, self._chronicle.rounds, self._last):
            self._task = tasks.create_task(self._publish(now, traffic))

    async def _publish(self, now: float, traffic: Traffic) -> None:
        assert self._target is not None
        rounds, target, folder = self._chronicle.rounds, self._target, self._folder
        is_local = target.kind == "folder"
        snapshot = snapshot_of(folder, self._me, self._library, self._store)  # in the event loop: nothing changes in it

        def push(pace: Pace) -> Pushed:
            place = open_place(target, None if is_local else pace)
            return push_checkpoint(place, snapshot, now, folder)

        try:
            pushed = await _in_a_thread_of_its_own(push, traffic)
        except (ShoalError, OSError) as error:
            self._not_before = now + RETRY_S
            if not self._failure:
                log.warning("no checkpoint is published: %s", error)
                self._chronicle.happened(f"no checkpoint is published: {error}")
            self._failure = str(error)
        except Exception as error:  # a client's own mistake must not end the daemon
            self._not_before = now + RETRY_S
            self._failure = f"{type(error).__name__}: {error}"
            self._chronicle.failed(f"publishing: {self._failure}", error)
        else:
            self._last, self._failure = Mark(now, rounds), ""
            if pushed.is_new:
                text = (
                    f"published {target}: {pushed.sent_bytes / 1e6:.1f} of {pushed.total_bytes / 1e6:.1f} MB were new"
                )
                log.info("%s", text)
                self._chronicle.happened(text)


class _Ended(Exception):
    """Nobody waits for this transfer any more."""


async def _in_a_thread_of_its_own(work: Callable[[Pace], T], traffic: Traffic) -> T:
    """Do a work that may wait for a network in a thread that keeps no process from ending.

    What it sends takes its turn among what goes to the peers. A cancellation does not wait for it: it ends before the
    next of what it sends.
    """
    loop, is_ended = asyncio.get_running_loop(), threading.Event()
    result: asyncio.Future[T] = loop.create_future()

    def pace(count: int) -> None:
        if is_ended.is_set():
            raise _Ended
        asyncio.run_coroutine_threadsafe(traffic.sent(count, "checkpoints"), loop).result()

    def settle(value: T | None, error: BaseException | None) -> None:
        if not result.done():
            if error is None:
                result.set_result(value)  # type: ignore[arg-type]
            else:
                result.set_exception(error)

    def run() -> None:
        value, failure = None, None
        try:
            value = work(pace)
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, name=UPLINK, daemon=True).start()
    try:
        return await result
    finally:
        is_ended.set()
