"""Opens whatever a source is: a local file, what fsspec reads, a member of a ZIP archive, compressed or not.

What is compressed is read as a stream, member after member. Where it is cut off or damaged, all that stands before
comes first, then DamagedError.
"""

import io
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import IO, Any, BinaryIO, Protocol, cast

from configs.errors import DataError
from configs.outlets import is_url
from configs.text import clean
from peer.corpus.stores import filesystem_of
from peer.sources.documents import Compression, SourceFile

BLOCK_BYTES = 1 << 18  # that are read or decompressed at once
SPOOLED_BYTES = 1 << 24  # of a compressed table that are kept in memory; more is on disk while it is read
ZSTD_WINDOW_LOG = 31  # what `zstd --long=31` makes, as large dumps are
TABLES = ("parquet", "arrow")  # are read from several places at once
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


class DamagedError(DataError):
    """A file is cut off or damaged; all that could be read of it came before."""


@contextmanager
def open_bytes(file: SourceFile) -> Iterator[BinaryIO]:
    """Open what is in a file, decompressed.

    Tables and what is neither compressed nor in an archive can be sought in. Raises OSError as `open` does, DataError
    if fsspec cannot read such URLs; reading raises DamagedError.
    """
    with ExitStack() as held:
        stream = held.enter_context(open_url(file.url))
        if file.compression is not None:
            stream = unpacked(stream, file.compression)
        if file.form in TABLES and isinstance(stream, _Parts):
            spool = held.enter_context(tempfile.SpooledTemporaryFile(SPOOLED_BYTES))
            shutil.copyfileobj(stream, spool, BLOCK_BYTES)
            spool.seek(0)
            stream = cast(BinaryIO, spool)
        yield stream


@contextmanager
def open_url(url: str) -> Iterator[BinaryIO]:
    """Open a path, a URL or `zip://MEMBER::PATH` as it is, compressed or not. Raises as `open_bytes`."""
    if not is_url(url):
        # A Path for each of many small files would cost as much as reading them.
        with open(url, "rb", buffering=BLOCK_BYTES >> 2) as local:  # noqa: PTH123
            yield local
    elif url.startswith("zip://"):
        member, _, archive = url.removeprefix("zip://").rpartition("::")
        with held_archive(archive) as opened:
            try:
                inside = opened.open(member)
            except KeyError:
                raise FileNotFoundError(2, "no such file in the archive", member) from None
            except ZIP_ERRORS as error:
                raise DamagedError(f"cannot be unpacked: {clean(str(error))}; fetch it again") from None
            with inside:
                yield _stream(_unpacked(inside))
    else:
        fs, path = filesystem_of(url)
        with fs.open(path, "rb") as remote:
            yield io.BufferedReader(_Remote(remote), BLOCK_BYTES)


@contextmanager
def held_archive(url: str) -> Iterator[zipfile.ZipFile]:
    """Give an archive that stays open for its other members. Raises OSError, or DamagedError if it is none."""
    stamp: tuple[int, ...] = ()
    if not is_url(url):
        status = os.stat(url)  # noqa: PTH116
        stamp = (status.st_mtime_ns, status.st_size)
    # A forked process must not share the place where its parent reads.
    yield _archive(url, stamp, os.getpid())


def begin(head: bytes, compression: Compression, most: int) -> bytes:
    """Return up to `most` bytes of what is compressed in the bytes `head`, however they end.

    Raises DamagedError if there are none.
    """
    return unpacked(io.BytesIO(head), compression).read(most)


def unpacked(stream: BinaryIO, compression: Compression | None) -> BinaryIO:
    """Return the stream of what another holds compressed."""
    return stream if compression is None else _stream(_decompressed(stream, compression))


class _Remote(io.RawIOBase):
    """A file of fsspec, of which some read line ends byte by byte: what is read of it goes through a buffer."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self.file.seekable()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.file.seek(offset, whence)
        return self.file.tell()

    def tell(self) -> int:
        return self.file.tell()

    def readinto(self, buffer: Any, /) -> int:
        block = self.file.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


def _stream(blocks: Iterator[bytes]) -> BinaryIO:
    return cast(BinaryIO, _Parts(blocks))


class _Parts(io.BufferedIOBase):
    """A stream of blocks. What their iterator raises is raised after all that came before it was read."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.blocks = blocks
        self.block = b""
        self.at = 0  # what of the block is read
        self.error: Exception | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, fewer only at the end; or all, or raise."""
        wanted = -1 if size is None else size
        parts: list[bytes] = []
        while wanted and self._has_more(bool(parts) and wanted > 0):
            part = self.block[self.at : self.at + wanted] if wanted > 0 else self.block[self.at :]
            self.at += len(part)
            wanted -= len(part) if wanted > 0 else 0
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int = -1, /) -> bytes:
        """Read what is there, at most `size` bytes."""
        if not size or not self._has_more(False):
            return b""
        part = self.block[self.at : self.at + size] if size > 0 else self.block[self.at :]
        self.at += len(part)
        return part

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read to the end of a line, at most `size` bytes."""
        wanted = -1 if size is None else size
        parts: list[bytes] = []
        while wanted and self._has_more(bool(parts)):
            end = self.block.find(b"\n", self.at) + 1 or len(self.block)
            part = self.block[self.at : end if wanted < 0 else min(end, self.at + wanted)]
            self.at += len(part)
            wanted -= len(part) if wanted > 0 else 0
            parts.append(part)
            if part.endswith(b"\n"):
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _has_more(self, may_wait: bool) -> bool:
        """Have bytes in the block. `may_wait`: what is wrong is raised at the next call, for there is something now."""
        while self.at == len(self.block):
            if self.error is None:
                try:
                    self.block, self.at = next(self.blocks), 0
                    continue
                except StopIteration:
                    return False
                except (DamagedError, OSError) as error:
                    self.error = error
            if may_wait:
                return False
            raise self.error
        return True


class _Decompressor(Protocol):
    """What bz2, lzma and zstd have in common: one member, decompressed bit by bit."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """One member of a gzip file, as the other libraries have it."""

    def __init__(self) -> None:
        self.inflater = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self.inflater.eof

    @property
    def unused_data(self) -> bytes:
        return self.inflater.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        block = self.inflater.decompress(self.inflater.unconsumed_tail + data, max_length)
        self.needs_input = not self.inflater.unconsumed_tail and len(block) < max_length
        return block


def _library(compression: Compression) -> tuple[Callable[[], _Decompressor], tuple[type[Exception], ...]]:
    """Return what decompresses a member, and what it raises if that is damaged."""
    if compression == "gzip":
        return _Gzip, (zlib.error,)
    if compression == "bz2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, ValueError)
    if compression == "xz":
        import lzma

        return lzma.LZMADecompressor, (lzma.LZMAError,)
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    options = {int(zstd.DecompressionParameter.window_log_max): ZSTD_WINDOW_LOG}
    return lambda: zstd.ZstdDecompressor(options=options), (zstd.ZstdError,)


def _decompressed(source: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Yield what all members of a compressed file hold, in blocks of at most BLOCK_BYTES."""
    start, errors = _library(compression)
    member: _Decompressor | None = None
    rest, done_bytes = b"", 0
    while True:
        if not rest and (member is None or member.needs_input):
            rest = source.read(BLOCK_BYTES)
            if not rest:
                break
        if member is None:
            rest = rest.lstrip(b"\0")  # between and after members, as tapes and xz pad them
            if not rest:
                continue
            member = start()
        try:
            block = member.decompress(rest, BLOCK_BYTES)
        except errors as error:
            raise DamagedError(f"is damaged {_where(done_bytes)}: {clean(str(error))}; fetch it again") from None
        rest = b""
        if member.eof:
            rest, member = member.unused_data, None
        done_bytes += len(block)
        if block:
            yield block
    if member is not None:
        raise DamagedError(f"is cut off {_where(done_bytes)}; fetch it again")


def _where(done_bytes: int) -> str:
    return f"after {done_bytes:,} bytes of what is in it" if done_bytes else "at its beginning"


def _unpacked(inside: IO[bytes]) -> Iterator[bytes]:
    """Yield what a member of a ZIP archive holds, in blocks."""
    done_bytes = 0
    while True:
        try:
            block = inside.read(BLOCK_BYTES)
        except ZIP_ERRORS as error:
            raise DamagedError(f"is damaged {_where(done_bytes)}: {clean(str(error))}; fetch it again") from None
        if not block:
            return
        done_bytes += len(block)
        yield block


@lru_cache(maxsize=8)
def _archive(url: str, stamp: tuple[int, ...], process: int) -> zipfile.ZipFile:
    """Open an archive. `stamp`, `process`: what it must be opened again for."""
    try:
        if not is_url(url):
            return zipfile.ZipFile(url)
        fs, path = filesystem_of(url)
        return zipfile.ZipFile(fs.open(path, "rb"))
    except ZIP_ERRORS as error:
        raise DamagedError(f"cannot be unpacked: {clean(str(error))}; fetch it again") from None
