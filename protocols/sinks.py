"""Where the chunks of a download go until it is whole: memory, or a partial file that survives an interruption."""

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from configs.content import CHUNK_BYTES, Buffer, hash_chunk
from configs.files import disk_errors, put_in_place


class Sink(Protocol):
    """Where checked chunks go. Both are called in threads."""

    def start(self, hashes: Sequence[bytes], size_bytes: int) -> set[int]:
        """Make room, and return the chunks that are there already."""

    def write(self, index: int, chunk: Buffer) -> None:
        """Keep a chunk."""


class MemorySink:
    """A blob in memory: `data`."""

    def __init__(self) -> None:
        self.data = bytearray()

    def start(self, hashes: Sequence[bytes], size_bytes: int) -> set[int]:
        """Allocate it; nothing is there yet."""
        self.data = bytearray(size_bytes)
        return set()

    def write(self, index: int, chunk: Buffer) -> None:
        """Copy a chunk to its place."""
        self.data[index * CHUNK_BYTES : index * CHUNK_BYTES + len(chunk)] = chunk


class PartSink:
    """`size_bytes` of a blob in memory, that begin `from_end` bytes before its end; the rest is not asked for."""

    def __init__(self, from_end: int, size_bytes: int) -> None:
        self._from_end, self._size_bytes = from_end, size_bytes
        self._chunks: dict[int, bytes] = {}
        self._begin = 0

    def start(self, hashes: Sequence[bytes], size_bytes: int) -> set[int]:
        """Find the chunks in which the part lies; all others count as there. A part beyond the blob has none."""
        self._begin = size_bytes - self._from_end
        first, last = self._begin // CHUNK_BYTES, (self._begin + self._size_bytes - 1) // CHUNK_BYTES
        return set(range(len(hashes))) - set(range(first, last + 1))

    def write(self, index: int, chunk: Buffer) -> None:
        """Keep a chunk."""
        self._chunks[index] = bytes(chunk)

    @property
    def data(self) -> bytes:
        """The part, once all of its chunks are there."""
        chunks = sorted(self._chunks)
        at = self._begin - (chunks[0] * CHUNK_BYTES if chunks else 0)
        return b"".join(self._chunks[index] for index in chunks)[at : at + self._size_bytes]


class FileSink:
    """The partial file. Chunks that are right in it count as held, so no journal is needed.

    The lock keeps a write whose download was cancelled from meeting a closed file's descriptor.
    """

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        self._partial = destination.with_name(destination.name + ".partial")
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        with disk_errors(self._partial):
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._file.close()

    def start(self, hashes: Sequence[bytes], size_bytes: int) -> set[int]:
        """Give the file its length, and return the chunks that an earlier download left, by reading it."""
        with self._lock, disk_errors(self._partial):
            self._file.truncate(size_bytes)
        return {index for index, expected in enumerate(hashes) if hash_chunk(self._read(index)) == expected}

    def write(self, index: int, chunk: Buffer) -> None:
        """Write a chunk to its place. Raises StateError, and ValueError once the file is closed."""
        with self._lock, disk_errors(self._partial):
            self._file.seek(index * CHUNK_BYTES)
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) :]

    def finish(self) -> None:
        """Make the complete file durable, then let it appear under its name."""
        with self._lock, disk_errors(self._partial):
            os.fsync(self._file.fileno())
            put_in_place(self._partial, self._destination)

    def _read(self, index: int) -> bytes:
        with self._lock, disk_errors(self._partial):
            self._file.seek(index * CHUNK_BYTES)
            return self._file.read(CHUNK_BYTES)
