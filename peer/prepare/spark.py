"""Runs the steps of `prepare` on a Spark cluster: what goes in and comes out is what one machine would see.

A step is a pure function of an item, so Spark may run it anywhere, again after a worker has died, and twice at once.
Results come back in the order of the items. How Spark is started and ended, and what its errors mean, is in
`cluster.py`; nothing here knows what a step does.
"""

import pickle
import platform
import socket
import time
import unicodedata
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, Self, TypeVar

from configs.errors import DataError, NetworkError, ShoalError
from peer.prepare.cluster import ClusterError, job_error, open_context

START_S = 180.0  # for a cluster to run a first task
AHEAD = 3  # jobs that are under way at once: none of its cores waits for another's last task
JOB_S = 6.0  # that a job is to take, from its start to its end: Spark takes 0.2 s for each
MOST_GROWTH = 8  # of a job over the one before
MOST_HELD = 96  # results that come by way of the driver and are held there at once, at most
MOST_AT_ONCE = 512  # items of a job, at most

# Libraries that decide which bytes come out. Workers have them in the versions of the driver.
LIBRARIES = ("numpy", "tokenizers", "pyarrow", "fsspec")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Written:
    """A result that lies in the shared folder."""

    url: str


@dataclass(frozen=True)
class Failed:
    """A step refused an item. It would again, so this is a result, and Spark does not try once more."""

    error: ShoalError


Outcome = bytes | Written | Failed


@lru_cache(maxsize=1)
def _unpacked(packed: bytes) -> Callable[[Any], bytes]:
    """Return the step that `Task.of` packed. A worker keeps the last one: a tokenizer remembers words that it met."""
    step: Callable[[Any], bytes] = pickle.loads(packed)  # from the driver, as all that Spark itself sends
    return step


@dataclass(frozen=True)
class Task(Generic[Item]):
    """What is sent to a worker: a step, and what the worker must have for it."""

    packed: bytes
    toolchain: tuple[tuple[str, str], ...]  # of the driver
    folder: str | None  # which all share; None: results come by way of the driver

    @classmethod
    def of(cls, step: Callable[[Item], bytes], toolchain: tuple[tuple[str, str], ...], folder: str | None) -> Self:
        """Return the task of doing a step."""
        from pyspark import cloudpickle

        return cls(cloudpickle.dumps(step), toolchain, folder)

    def __call__(self, item: Item) -> Outcome:
        """Do the step."""
        try:
            check_toolchain(self.toolchain)
            result = _unpacked(self.packed)(item)
        except ShoalError as error:
            return Failed(error)
        return result if self.folder is None else self._write(result)

    def _write(self, result: bytes) -> Written:
        """Write a result under a name that no other try has: what a worker left half done is never read."""
        import fsspec

        url = f"{self.folder}/{uuid.uuid4().hex}"
        with fsspec.open(url, "wb") as file:
            file.write(result)
        return Written(url)


class SparkWorkers:
    """The workers of a cluster, as `open_cluster` gives them."""

    def __init__(self, context: Any, pool: ThreadPoolExecutor, folder: str | None) -> None:
        self._context, self._pool, self._folder = context, pool, folder
        self._toolchain = toolchain()

    @property
    def cores(self) -> int:
        """How many tasks run at once."""
        return int(self._context.defaultParallelism)

    def run(self, step: Callable[[Item], bytes], items: Sequence[Item]) -> Iterator[bytes]:
        """Yield what `step` makes of each item, in their order, while later ones are worked at.

        `step` is pure, and is found by its name in a module that workers have: ours, or one that is installed there.
        Closing the iterator ends what is under way. Raises what a step raises, if that is a ShoalError, and
        ClusterError for all else that ends a task four times.
        """
        task, tag = Task[Item].of(step, self._toolchain, self._folder), f"shoal-{uuid.uuid4().hex}"
        coming: deque[Future[tuple[float, Sequence[Outcome]]]] = deque()
        most = most_at_once(is_shared=self._folder is not None)
        size, start = least_at_once(self.cores, most), 0
        try:
            while coming or start < len(items):
                if start < len(items) and len(coming) < AHEAD:
                    coming.append(self._pool.submit(self._job, task, items[start : start + size], tag))
                    start += size
                    continue
                took_s, done = coming.popleft().result()
                size = next_size(len(done), took_s, self.cores, most)
                yield from map(self._take, done)
        finally:
            for job in coming:
                job.cancel()
            while coming and wait(coming, timeout=1.0).not_done:  # again: one may just have been about to begin
                self._context.cancelJobsWithTag(tag)

    def _job(self, task: Task[Item], items: Sequence[Item], tag: str) -> tuple[float, Sequence[Outcome]]:
        """Return how long it took, in seconds, and what came of each item."""
        from py4j.protocol import Py4JError

        began = time.monotonic()
        self._context.addJobTag(tag)
        try:
            # A task for each core: one costs 0.02 s, and what is free takes the next job's.
            spread = self._context.parallelize(items, min(len(items), self.cores))
            done: list[Outcome] = spread.map(task).collect()
        except Py4JError as error:
            raise job_error(str(error)) from None
        except OSError:  # the Java machine is gone, with its sockets
            raise ClusterError("Spark ended in the middle of the work; start again, it goes on from there") from None
        finally:
            with suppress(Exception):
                self._context.removeJobTag(tag)
        return time.monotonic() - began, done

    def _take(self, outcome: Outcome) -> bytes:
        if isinstance(outcome, Failed):
            raise outcome.error
        if isinstance(outcome, bytes):
            return outcome
        import fsspec

        with fsspec.open(outcome.url, "rb") as file:
            result: bytes = file.read()
        system, path = fsspec.core.url_to_fs(outcome.url)
        system.rm_file(path)
        return result


@contextmanager
def open_cluster(
    master: str, settings: Mapping[str, str] | None = None, *, folder: str | None = None, start_s: float = START_S
) -> Iterator[SparkWorkers]:
    """Start an application on the cluster of `master` and yield its workers; in the end nothing of it is left.

    `settings` are Spark's own. `folder`, a path or URL that the driver and all workers can write, is where results lie
    until they are taken; without it they come by way of the driver's memory.
    Raises UsageError (no PySpark, no Java, no such master), NetworkError (no master answers, or no worker takes a task
    within `start_s`) or DataError (a worker lacks what it needs, or cannot write `folder`).
    """
    with open_context(master, settings or {}) as context, _pool() as pool, _folder(folder, context) as place:
        workers = SparkWorkers(context, pool, place)
        first = pool.submit(lambda: list(workers.run(probe, range(workers.cores))))
        try:
            first.result(start_s)
        except FutureTimeoutError:
            context.cancelAllJobs()
            raise NetworkError(
                f"no worker of {master} took a task within {start_s:g} s; see on its page whether there are workers "
                "with a free core, and with the memory that spark.executor.memory asks for (1g by itself)"
            ) from None
        yield workers


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(AHEAD + 1, thread_name_prefix="spark")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _folder(folder: str | None, context: Any) -> Iterator[str | None]:
    """Make a folder of our own in the shared one, and remove it in the end, with what tries left behind."""
    if folder is None:
        yield None
        return
    import fsspec

    place = f"{folder.rstrip('/')}/.{context.applicationId}"
    system, path = fsspec.core.url_to_fs(place)
    try:
        system.makedirs(path, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from None
    try:
        yield place
    finally:
        with suppress(OSError):
            system.rm(path, recursive=True)


def most_at_once(is_shared: bool) -> int:
    """Return how many items go into a job, at most: the driver holds the results of all jobs that are under way.

    Those that lie in a shared folder are only named.
    """
    return MOST_AT_ONCE if is_shared else MOST_HELD // AHEAD


def least_at_once(cores: int, most: int) -> int:
    """Return how many items go into a job, at least, so that `AHEAD` of them keep all cores busy."""
    return min(2 * cores, most)


def next_size(done: int, took_s: float, cores: int, most: int) -> int:
    """Return how many items the next job has, after one of `done` took so long: what a kill loses is some seconds'."""
    return max(least_at_once(cores, most), min(int(done * JOB_S / took_s), done * MOST_GROWTH, most))


def probe(item: int) -> bytes:
    """Do nothing, on a worker that has all that it needs."""
    return b""


def toolchain() -> tuple[tuple[str, str], ...]:
    """Return what decides the bytes that come out, with its versions; '' is the version of what is missing."""

    def found(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return ""

    python = ".".join(platform.python_version_tuple()[:2])
    return (
        ("Python", python),
        ("Unicode", unicodedata.unidata_version),
        *((name, found(name)) for name in LIBRARIES),
    )


_checked: set[tuple[tuple[str, str], ...]] = set()  # by this worker's process


def check_toolchain(wanted: tuple[tuple[str, str], ...]) -> None:
    """Raise DataError if this worker's libraries are not those of the driver, so that its bytes may not be, either."""
    if wanted in _checked:
        return
    for (name, there), (_, here) in zip(wanted, toolchain(), strict=True):
        if there != here:
            has = f"has {name} {here}" if here else f"lacks {name}"
            raise DataError(
                f"the worker {socket.gethostname()} {has}, and the driver has {there or 'none'}; install the same "
                "Shoal with the same constraints.txt on both, or let PYSPARK_PYTHON name the Python that has it"
            )
    _checked.add(wanted)
