"""Blobs by content id, from several peers at once: data shards, tokenizers, blocks' states.

Whoever has a blob serves it (`Shards`). A download trusts nobody: the chunk hashes must add up to the content id, and
each chunk to its hash, so the peers need not agree nor be honest. The pieces that are there survive an interruption.
"""

import asyncio
import itertools
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from configs.content import (
    CHUNK_BYTES,
    HASH_BYTES,
    Buffer,
    chunk_of,
    content_id,
    hash_chunk,
    num_chunks,
    split_hashes,
)
from configs.errors import NetworkError, PeerError, StateError
from configs.names import Digest
from protocols.sinks import FileSink, MemorySink, PartSink, Sink
from protocols.traffic import Cause, Traffic
from protocols.wire import (
    FRAME_BYTES,
    FRAME_S,
    Frame,
    Frames,
    Message,
    call,
    each_frame,
    end_of_stream,
    frames_of,
    read_stream,
)

log = logging.getLogger(__name__)

SIZE_BYTES = 8  # of the size, in a manifest
RUN_CHUNKS = 16  # chunks that one source is asked for at a time
LANES = 2  # streams from one source: one flows while the other is being opened, which is slow on a long link
MAX_STREAMS = 16  # at the same time; peers beyond are spare
ATTEMPTS = 3  # for a source that fails without lying
RETRY_S = 0.5
MAX_MANIFESTS = 256  # kept by a server, least recently used first out

assert CHUNK_BYTES <= FRAME_BYTES  # a chunk travels as one frame

Blob = Path | memoryview
OnBytes = Callable[[int], Awaitable[None]]  # hears of what arrives; nothing more is read until it returns
Index = Annotated[int, Field(ge=0, lt=2**32)]


class ManifestRequest(Message):
    """«What does this blob consist of?» The answer is a stream: its size in 8 bytes, and its chunk hashes, 32 each."""

    content_id: Digest


class ChunkRequest(Message):
    """«Send me these chunks of that blob, in their order.» Each comes as one frame."""

    content_id: Digest
    first: Index
    count: Annotated[int, Field(ge=1, le=RUN_CHUNKS)]


class Shards(ServicerBase):  # type: ignore[misc]
    """Serves the blobs that `lookup` finds: a file, or memory that does not change; None for what is not here."""

    def __init__(
        self,
        lookup: Callable[[str], Blob | None],
        traffic: Traffic,
        on_fetch: Callable[[str], object] = lambda peer_id: None,  # a peer is about to get a piece of a blob
        cause_of: Callable[[str], Cause] = lambda content_id: "states",  # what a blob is, for who counts bytes
    ) -> None:
        self._lookup, self._on_fetch, self._cause_of = lookup, on_fetch, cause_of
        self._traffic = traffic
        self._manifests: OrderedDict[str, bytes] = OrderedDict()
        self._hashing = asyncio.Lock()  # one blob at a time, however many ask

    async def rpc_manifest(self, request: ManifestRequest, context: P2PContext) -> Frames:
        """Answer with the manifest of a blob; with nothing when it is not here."""
        async for frame in frames_of(await self._manifest(request.content_id)):
            yield frame

    async def rpc_chunks(self, request: ChunkRequest, context: P2PContext) -> Frames:
        """Answer with chunks of a blob; ends early at the blob's end, or at once when it is not here."""
        blob = self._lookup(request.content_id)
        is_file = isinstance(blob, Path)
        if blob is not None:
            self._on_fetch(str(context.remote_id))
        with self._traffic.lane(str(context.remote_id), self._cause_of(request.content_id)) as lane:
            for index in range(request.first, request.first + request.count):
                chunk = await asyncio.to_thread(_read_chunk, blob, index) if is_file else _read_chunk(blob, index)
                if not chunk:
                    break
                await lane.sent(len(chunk))
                yield Frame(chunk)
        async for frame in end_of_stream():
            yield frame

    async def _manifest(self, wanted: str) -> bytes:
        blob = self._lookup(wanted)
        if blob is None:
            return b""
        if wanted not in self._manifests:
            async with self._hashing:
                if wanted not in self._manifests:
                    self._manifests[wanted] = await asyncio.to_thread(_manifest_of, wanted, blob)
                    if len(self._manifests) > MAX_MANIFESTS:
                        self._manifests.popitem(last=False)
        self._manifests.move_to_end(wanted)
        return self._manifests[wanted]


async def download(
    stub: Callable[[str], Any],
    peers: Sequence[str],
    wanted: str,
    max_bytes: int,
    destination: Path,
    *,
    deadline_s: float,
    on_bytes: OnBytes | None = None,
) -> None:
    """Fetch the blob `wanted`, of at most `max_bytes`, into the file `destination`, which appears at once and whole.

    `stub` makes a `Shards` stub for a peer; `on_bytes` hears of what arrives. What is there survives a failure or a
    cancellation in `<destination>.partial`, and the next call goes on from it. One download for one destination.

    Raises NetworkError (nobody could send it, or not in time: names each peer's reason), StateError (the disk).
    """
    with FileSink(destination) as sink:
        await _fetch(_Download(stub, wanted, max_bytes, sink, on_bytes), peers, deadline_s)
        await asyncio.to_thread(sink.finish)


async def download_bytes(
    stub: Callable[[str], Any],
    peers: Sequence[str],
    wanted: str,
    max_bytes: int,
    *,
    deadline_s: float,
    on_bytes: OnBytes | None = None,
) -> bytearray:
    """Fetch the blob `wanted`, of at most `max_bytes`, into memory. Raises NetworkError as `download` does."""
    sink = MemorySink()
    await _fetch(_Download(stub, wanted, max_bytes, sink, on_bytes), peers, deadline_s)
    return sink.data


async def download_part(
    stub: Callable[[str], Any],
    peer: str,
    wanted: str,
    max_bytes: int,
    *,
    from_end: int,
    size_bytes: int,
    deadline_s: float,
) -> bytes:
    """Fetch from one peer `size_bytes` of the blob `wanted` that begin `from_end` bytes before its end.

    Raises NetworkError as `download` does.
    """
    sink = PartSink(from_end, size_bytes)
    await _fetch(_Download(stub, wanted, max_bytes, sink, None), [peer], deadline_s)
    return sink.data


class _Download:
    """One blob on its way: what is missing, who is fetching which chunks, and why sources were dropped."""

    def __init__(
        self,
        stub: Callable[[str], Any],
        wanted: str,
        max_bytes: int,
        sink: Sink,
        on_bytes: OnBytes | None,
    ) -> None:
        self.wanted = wanted
        self.missing: set[int] | None = None  # None: the manifest is not known yet
        self.num_chunks = 0
        self.failures: dict[str, str] = {}
        self._max_bytes = max_bytes
        self._stub = stub
        self._sink = sink
        self._on_bytes = on_bytes
        self._hashes: list[bytes] = []
        self._fetchers: dict[int, list[str]] = {}  # chunk → the sources that are at it; one at least
        self._next = 0  # chunk below which all are there or being fetched
        self._starting = asyncio.Lock()

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is there."""
        return self.missing is not None and not self.missing

    async def draw(self, peer: str) -> None:
        """Fetch from one source until nothing is missing; drop it when it lies or fails too often."""
        for attempt in range(ATTEMPTS):
            try:
                if attempt:
                    await asyncio.sleep(RETRY_S)
                await self._start(peer)
                while run := self._claim(peer):
                    await self._fetch_run(peer, run)
            except StateError:
                raise
            except PeerError as error:
                self.failures[peer] = str(error)
                log.warning("content %s: %s: %s", self.wanted[:12], peer, error)
                return
            except NetworkError as error:
                self.failures[peer] = str(error)
                log.debug("content %s: %s: %s", self.wanted[:12], peer, error)
            except Exception:  # a mistake of ours: it costs this source, and asking again would not mend it
                self.failures[peer] = "it could not be asked; see the log"
                log.exception("content %s: %s could not be asked", self.wanted[:12], peer)
                return
            else:
                return

    async def _start(self, peer: str) -> None:
        """Let a source show that it has the blob; the first one that does tells size and chunk hashes."""
        stream = await call(self._stub(peer).rpc_manifest, ManifestRequest(content_id=self.wanted), FRAME_S)
        limit = SIZE_BYTES + HASH_BYTES * num_chunks(self._max_bytes)
        manifest = await read_stream(stream, limit, FRAME_S)
        if not manifest:
            raise NetworkError("it does not have it")  # yet: it is asked again
        size_bytes = int.from_bytes(manifest[:SIZE_BYTES], "big")
        hashes = split_hashes(manifest[SIZE_BYTES:])
        if size_bytes > self._max_bytes or len(hashes) != num_chunks(size_bytes):
            raise PeerError(f"it tells of {size_bytes} bytes in {len(hashes)} chunks; {self._max_bytes} are allowed")
        if content_id(hashes, size_bytes) != self.wanted:
            raise PeerError("its chunk hashes do not add up to the content id")
        async with self._starting:
            if self.missing is None:
                held = await asyncio.to_thread(self._sink.start, hashes, size_bytes)
                self._hashes, self.num_chunks = hashes, len(hashes)
                self.missing = set(range(len(hashes))) - held

    def _claim(self, peer: str) -> range | None:
        """Choose the next run of missing chunks; near the end, one that only slower sources are still fetching."""
        while self._next < self.num_chunks and not self._is_free(self._next):
            self._next += 1
        first = end = self._next
        if first == self.num_chunks:  # what is missing is being fetched, so it is not much
            others = (index for index in self.missing or () if peer not in self._fetchers[index])
            first = min(others, key=lambda index: (len(self._fetchers[index]), -index), default=-1)
            return None if first < 0 else self._held_by(peer, range(first, first + 1))
        while end < first + RUN_CHUNKS and self._is_free(end):
            end += 1
        return self._held_by(peer, range(first, end))

    def _is_free(self, index: int) -> bool:
        return index in (self.missing or ()) and index not in self._fetchers

    def _held_by(self, peer: str, run: range) -> range:
        for index in run:
            self._fetchers.setdefault(index, []).append(peer)
        return run

    def _release(self, peer: str, run: range) -> None:
        """Let others have what `peer` has not fetched of its run."""
        for index in run:
            self._fetchers[index].remove(peer)
            if not self._fetchers[index]:
                del self._fetchers[index]
        self._next = min([self._next, *filter(self._is_free, run)])

    async def _fetch_run(self, peer: str, run: range) -> None:
        request = ChunkRequest(content_id=self.wanted, first=run.start, count=len(run))
        try:
            stream = await call(self._stub(peer).rpc_chunks, request, FRAME_S)
            async with aclosing(each_frame(stream, FRAME_S)) as frames:  # type: ignore[type-var]
                for index in run:
                    frame = await anext(frames, None)
                    if frame is None:
                        raise PeerError(f"it has no chunk {index} of {self.num_chunks}")
                    await self._take(index, frame.data)
        finally:
            self._release(peer, run)

    async def _take(self, index: int, chunk: Buffer) -> None:
        if self._on_bytes is not None:
            await self._on_bytes(len(chunk))
        if index not in (self.missing or ()):  # a faster source was first
            return
        if not await asyncio.to_thread(self._keep, index, chunk):
            raise PeerError(f"it sent a wrong chunk {index} of {self.num_chunks}")
        if self.missing is not None:
            self.missing.discard(index)

    def _keep(self, index: int, chunk: Buffer) -> bool:
        is_right = hash_chunk(chunk) == self._hashes[index]
        if is_right:
            self._sink.write(index, chunk)
        return is_right


async def _fetch(job: _Download, peers: Sequence[str], deadline_s: float) -> None:
    """Draw from several peers side by side until everything is there; those beyond the limit are spare."""
    spare = deque([*dict.fromkeys(peers)] * LANES)
    tasks: list[asyncio.Task[None]] = []

    async def work() -> None:
        while spare and not job.is_complete:
            peer = spare.popleft()
            if peer not in job.failures:
                await job.draw(peer)
        if job.is_complete:  # whoever still fetches what is there already need not go on
            for task in tasks:
                task.cancel()

    why = ""
    try:
        async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
            tasks += [group.create_task(work()) for _ in range(min(MAX_STREAMS, len(spare)))]
    except TimeoutError:
        why = f"not complete after {deadline_s:.0f} s; "
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None  # the disk, whichever source met it
    finally:
        tasks.clear()  # a cancelled one's traceback holds the list, and all that was downloaded
    if job.is_complete:
        return
    have = 0 if job.missing is None else job.num_chunks - len(job.missing)
    reasons = "; ".join(f"{peer}: {reason}" for peer, reason in job.failures.items()) or "no peer is known to have it"
    raise NetworkError(
        f"content {job.wanted[:12]} ({have} of {job.num_chunks} chunks are here): {why}{reasons}; try again later"
    )


def _read_chunk(blob: Blob | None, index: int) -> Buffer:
    """Return a chunk; nothing beyond the end, or of what is not here, or no longer."""
    if blob is None:
        return b""
    if isinstance(blob, memoryview):
        return chunk_of(blob, index)
    try:
        with blob.open("rb") as file:
            file.seek(index * CHUNK_BYTES)
            return file.read(CHUNK_BYTES)
    except FileNotFoundError:
        return b""


def _manifest_of(wanted: str, blob: Blob) -> bytes:
    """Return the size and the chunk hashes of a blob; nothing if it is damaged."""
    hashes, size_bytes = [], 0
    for index in itertools.count():
        chunk = _read_chunk(blob, index)
        if not chunk:
            break
        hashes.append(hash_chunk(chunk))
        size_bytes += len(chunk)
    if content_id(hashes, size_bytes) != wanted:
        log.warning("content %s is damaged here and is not served", wanted[:12])
        return b""
    return size_bytes.to_bytes(SIZE_BYTES, "big") + b"".join(hashes)
