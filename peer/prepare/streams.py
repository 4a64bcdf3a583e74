"""Opens files as streams of bytes, decompressed. (A small version for the readers' tests.)"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from configs.errors import DataError
from peer.prepare.documents import SourceFile


class DamagedError(DataError):
    """A compressed stream is broken or cut off."""


@contextmanager
def open_bytes(file: SourceFile) -> Iterator[BinaryIO]:
    """Open a file, decompressed. Raises OSError; reading raises DamagedError."""
    with Path(file.url).open("rb") as raw:
        yield cast(BinaryIO, _Unpacked(raw)) if file.compression == "gzip" else raw


class _Unpacked:
    """A gzip stream whose errors say what they are."""

    def __init__(self, raw: BinaryIO) -> None:
        self._stream = gzip.GzipFile(fileobj=raw)

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read1(size) if size > 0 else self._stream.read(size)
        except (EOFError, OSError, zlib.error) as error:
            raise DamagedError(str(error)) from None

    def seekable(self) -> bool:
        return False
