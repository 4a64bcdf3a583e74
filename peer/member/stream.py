"""Fetches the shards of a remote corpus before training needs them, and lets those go that it needs no more.

The worker draws by itself, in an order that depends on the step alone (`peer/corpus/working_set.py`), and this follows
it: that order says what is in need next. So the network decides when a step is taken, and never what is in it. The
worker waits where a shard is not here yet; it is told of each that has come.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

from configs.corpus import DomainInfo, ShardInfo
from configs.errors import NetworkError, ShoalError, StateError, UsageError
from configs.files import read_model, write_json
from configs.names import Count
from configs.run import Frozen, RunSpec
from peer.corpus.data import Sampler
from peer.corpus.remote import RemoteCorpus
from peer.corpus.source import Source
from protocols.shards import OnBytes

log = logging.getLogger(__name__)

FILE = "position.json"
LOOK_S = 0.5  # between two looks at how far training is: as often as a worker says it
FIRST_RETRY_S, MOST_RETRY_S = 1.0, 60.0
MOST_HELD = 128  # shards that no other peer of this machine may remove, each an open file; those in need soonest
WAIT_S = 5.0  # for text, before it is said: a step or two of a small model
PACE_S = 1.0  # between two looks at whether a fetch that waits for its turn is still wanted


class Kept(Frozen):
    """What is in `position.json`."""

    position: Count  # steps of the data that are in what was saved


class Stream:
    """The shards of one remote corpus, as one peer trains on them. Holds open files until it is closed."""

    def __init__(self, corpus: RemoteCorpus, spec: RunSpec, folder: Path) -> None:
        """Take up the position of an earlier life from `folder`. Raises StateError if its file is damaged."""
        self._corpus, self._spec, self._path = corpus, spec, folder / FILE
        self._shards, self._cache = corpus.shards, corpus.cache()
        self._batch = spec.inner.batch_tokens // spec.model.context_length
        self.seed = 0  # of this peer's order
        self.position: Callable[[], int] = lambda: self.begun_at
        self.on_bytes: OnBytes | None = None  # hears of what arrives; a fetch waits until it returns
        self.begun_at = self._kept()  # steps of the data that were taken before this life
        self._working = asyncio.Lock()  # one fetch at a time
        self._has_begun = False
        self._followed = 0  # how often following has begun: only the last goes on
        self._failing_since: float | None = None
        self._waiting_since: float | None = None
        self._is_said = False  # in the log
        self._reason = ""  # why the last fetch failed

    def has(self, domain: DomainInfo) -> bool:
        """Return whether the shards of a domain are this corpus's."""
        return all(shard.content_id in self._shards for shard in domain.shards)

    def sources(self, domains: list[DomainInfo]) -> list[Source]:
        """Return what to sample from for these domains. Raises DataError: the cache is too small for them."""
        return self._corpus.streams(domains, self._spec.model.context_length) if domains else []

    def keep_position(self, step: int) -> None:
        """Write how many steps of the data are in what this peer has saved. Raises StateError."""
        write_json(self._path, Kept(position=step).model_dump())

    def _kept(self) -> int:
        kept = read_model(self._path, Kept, "delete it: training then goes through its text from the beginning")
        return 0 if kept is None else kept.position

    @property
    def is_waiting(self) -> bool:
        """Whether training has waited for text for so long that it is worth a word."""
        return self._waiting_since is not None and time.monotonic() - self._waiting_since > WAIT_S

    @property
    def warning(self) -> str:
        """What is wrong, in a line whose cause ends at a semicolon; nothing if nothing is."""
        reason = f": {self._reason}" if self._reason else ": the network is slower than the training"
        if self.is_waiting:
            return f"training waits for text from {self._corpus.name}{reason}; it goes on by itself when that comes"
        if self._failing_since is None:
            return ""
        since_s = time.monotonic() - self._failing_since
        return f"no text could be fetched for {since_s:.0f} s{reason}; training goes on with what is here until then"

    async def begin(self, sources: Sequence[Source]) -> None:
        """See to it that what the next step draws from is here.

        Raises DataError, UsageError, NetworkError: it cannot be had. After the first time always a NetworkError: that
        is a reason to put a change off, not to end.
        """
        sampler = self._sampler(sources)
        if sampler is None:
            return
        try:
            step = self.position()
            if step and not self._has_begun:
                log.info("training goes on at step %d of its text", step)
            wanted = self._wanted(sampler, step, only_now=True)
            for blob in wanted:
                await self._obtain(blob, [each.content_id for each in wanted], is_urgent=True)
        except UsageError as error:
            if self._has_begun:
                raise NetworkError(str(error)) from None
            raise
        self._has_begun = True

    async def follow(self, sources: Sequence[Source], arrived: Callable[[], Awaitable[None]]) -> None:
        """Keep what training needs next here, as far as there is room, until this is begun anew, for other sources.

        `arrived` is called after each shard that has come. Raises StateError on a full disk.
        """
        self._followed += 1
        begun, sampler = self._followed, self._sampler(sources)
        retry_s, due_s = FIRST_RETRY_S, 0.0
        while sampler is not None and begun == self._followed:
            step = self.position()
            wanted = self._wanted(sampler, step)
            self._cache.hold({blob.content_id for blob in wanted[:MOST_HELD]})
            missing = [blob for blob in wanted if not self._cache.has(blob)]
            is_lacking = bool(sampler.lacking(step, self._batch))
            self._note(is_lacking)
            if not missing or time.monotonic() < due_s:
                await asyncio.sleep(LOOK_S)
                continue
            try:
                keep = [blob.content_id for blob in wanted]
                has_come = await self._obtain(missing[0], keep, is_urgent=is_lacking)
            except StateError:
                raise
            except ShoalError as error:
                due_s = time.monotonic() + retry_s
                self._failed(error)
                retry_s = min(MOST_RETRY_S, 2 * retry_s)
            else:
                self._came()
                retry_s, due_s = FIRST_RETRY_S, 0.0
                await (arrived() if has_come else asyncio.sleep(LOOK_S))

    def _sampler(self, sources: Sequence[Source]) -> Sampler | None:
        if not any(source.parts for source in sources):
            return None
        return Sampler(sources, self._spec.model.context_length, self.seed)

    def _wanted(self, sampler: Sampler, step: int, *, only_now: bool = False) -> list[ShardInfo]:
        """Return the shards to have here, in the order of need: those of the next step, then as many as fit."""
        wanted: dict[str, ShardInfo] = {}
        room = self._corpus.most_bytes
        for due, part in sampler.ahead(step, self._batch):
            blob = self._shards[Path(part.path).name]
            if blob.content_id in wanted:
                continue
            room -= blob.size_bytes
            if due > step and (only_now or room < 0):
                break
            wanted[blob.content_id] = blob
        return list(wanted.values())

    async def _obtain(self, blob: ShardInfo, keep: Sequence[str], *, is_urgent: bool) -> bool:
        """Have a shard here, fetched if it is not; return whether it is.

        Others leave for it, but none of `keep`, and none that another peer of this machine holds. Where that leaves no
        room, only one that is urgent comes.
        """
        async with self._working:
            if self._cache.has(blob):
                return True
            is_here = self._cache.path(blob.content_id).exists()
            if not is_here and not self._cache.make_room(blob.size_bytes, keep) and not is_urgent:
                return False
            is_over = threading.Event()
            fetch = self._fetcher(blob, is_over)
            try:
                await _in_thread(lambda: self._cache.obtain(blob, fetch))
                return True
            finally:
                is_over.set()

    def _fetcher(self, blob: ShardInfo, is_over: threading.Event) -> Callable[[Path], None]:
        """Return what fetches a shard in a thread, no faster than it may, and only as long as it is wanted."""
        loop, on_bytes = asyncio.get_running_loop(), self.on_bytes

        def on_piece(size: int) -> None:
            waiting = None if on_bytes is None else asyncio.run_coroutine_threadsafe(_pass_on(on_bytes, size), loop)
            while True:
                if is_over.is_set():
                    raise NetworkError("the fetch was broken off; start again to go on with it")
                try:
                    return None if waiting is None else waiting.result(PACE_S)
                except FutureTimeout:
                    continue

        return lambda path: self._corpus.fetch(blob, path, on_piece)

    def _failed(self, error: ShoalError) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            log.warning("text cannot be fetched, and is asked for again and again: %s", error)
        self._reason = str(error)

    def _came(self) -> None:
        if self._failing_since is not None:
            log.info("text comes again, after %.0f s", time.monotonic() - self._failing_since)
        self._failing_since, self._reason = None, ""

    def _note(self, is_lacking: bool) -> None:
        """Remember since when training waits, and say so once if it does."""
        if not is_lacking:
            self._waiting_since = None
            self._is_said = False
        elif self._waiting_since is None:
            self._waiting_since = time.monotonic()
        elif self.is_waiting and not self._is_said:
            self._is_said = True
            log.warning("training waits for text from %s", self._corpus.name)


async def _pass_on(on_bytes: OnBytes, size: int) -> None:
    await on_bytes(size)


async def _in_thread(work: Callable[[], object]) -> None:
    """Do a work in a thread that nobody waits for at the end of the process: a store may be silent for long."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()  # who is not awaited any more ends by itself, and may still say how

    def do() -> None:
        try:
            work()
            future.set_result(None)
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, name="text", daemon=True).start()
    await asyncio.wrap_future(future)
