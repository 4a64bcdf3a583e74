"""Looks into the beginning of each file: what it holds, compressed how, in which encoding, if there is any text at all.

A pure decision on the first bytes, with what a user says; `heads` reads those, of many remote files at once.
"""

import codecs
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import BinaryIO, NamedTuple

from configs.errors import DataError
from configs.outlets import is_url
from peer.corpus.stores import filesystem_of
from peer.sources.documents import Compression, Form
from peer.sources.encodings import detect_encoding, given_encoding, likely_encodings
from peer.sources.formats import (
    HEAD_BYTES,
    POINTER,
    Kind,
    compression_of,
    form_of_json,
    sniffed,
)
from peer.sources.skips import Reason
from peer.sources.streams import TABLES, DamagedError, begin, open_url, unpacked
from peer.sources.walking import Entry, trouble

TEXT_BYTES = HEAD_BYTES[None]  # of a file's text that are looked at
JSON_LINE_BYTES = 1 << 24  # within which the first line of a .json must end to be taken for JSON lines
POINTER_BYTES = 1024  # Git LFS writes fewer
MAGIC_BYTES = 64
AT_ONCE = 16  # requests to a remote server
BATCH = 256  # files whose beginnings are in memory at once


Opened = Callable[[], AbstractContextManager[BinaryIO]]


class Looked(NamedTuple):
    """What a file holds."""

    form: Form
    compression: Compression | None
    encoding: str
    text: str  # its beginning; nothing of tables


class Unused(NamedTuple):
    """Why a file is not used."""

    reason: Reason
    advice: str | Callable[[], str]  # what is wrong and what to do, after the file's name; found only if it is shown

    def said(self) -> str:
        """Return what is wrong and what to do."""
        return self.advice if isinstance(self.advice, str) else self.advice()


def look(kind: Kind, size_bytes: int, head: bytes, encoding: str | None, opened: Opened) -> Looked | Unused:
    """Return what a file of `size_bytes` that begins with `head` holds, or why it is not used.

    `encoding`: what the user says. `opened`: opens the file, if it is one of the few of which the head is not enough.
    Raises what reading those does.
    """
    if not head and not size_bytes:
        return Unused(Reason.BLANK, "holds no text; fill it or leave it out")
    if head.startswith(POINTER):
        return Unused(Reason.UNREADABLE, "is only a pointer to the file, of Git LFS; fetch the file with: git lfs pull")
    asked = HEAD_BYTES[kind.compression]
    is_whole = size_bytes <= len(head) < asked  # of some addresses the size is not known
    compression = compression_of(head)
    if compression is not None:
        needed = HEAD_BYTES[compression]
        if not is_whole and len(head) < needed:
            with opened() as stream:
                head = stream.read(needed)
            is_whole = size_bytes <= len(head) < needed
        try:
            head = begin(head, compression, TEXT_BYTES)
        except DamagedError as error:
            return Unused(Reason.DAMAGED, str(error))
        is_whole = is_whole and len(head) < TEXT_BYTES
    if kind.form in TABLES and (head.startswith((b"PAR1", b"ARROW1")) or kind.compression == compression):
        return Looked(kind.form, compression, "utf-8", "")
    return _look_at_text(kind, compression, head, is_whole, encoding, opened)


def _look_at_text(
    kind: Kind,
    compression: Compression | None,
    head: bytes,
    is_whole: bool,
    encoding: str | None,
    opened: Opened,
) -> Looked | Unused:
    if is_whole and not head.strip(b"\0 \t\r\n\f\v\xef\xbb\xbf\xff\xfe"):
        return Unused(Reason.BLANK, "holds no text; fill it or leave it out")
    if encoding is not None and not is_whole and head.isascii():
        head, is_whole = _first_foreign(head, compression, opened)
    detected = given_encoding(head, is_whole, encoding) if encoding else detect_encoding(head, is_whole)
    text = codecs.getincrementaldecoder(detected)("ignore").decode(head) if detected else None
    form = kind.form or sniffed(head, text)
    if form is None:
        advice = "say what it holds in its name, such as NAME.txt or NAME.csv; an archive must be unpacked first"
        return Unused(Reason.KIND, f"does not show what it holds; {advice}")
    if form in TABLES:
        return Looked(form, compression, "utf-8", "")
    if detected is None or text is None:
        if kind.compression is not None and compression is None:
            return Unused(Reason.DAMAGED, f"is no {kind.compression} file; fetch it again")
        return Unused(Reason.ENCODING, partial(_encoding_advice, head, is_whole, encoding))
    if form == "json":
        said = form_of_json(text)
        if said is None and not is_whole:
            with opened() as stream:
                longer = unpacked(stream, compression).read(JSON_LINE_BYTES)
            said = form_of_json(codecs.getincrementaldecoder(detected)("ignore").decode(longer))
        form = said or "json"
    return Looked(form, compression, detected, text)


def _encoding_advice(head: bytes, is_whole: bool, given: str | None) -> str:
    likely = [name for name in likely_encodings(head, is_whole) if name != given]
    said = "is in no encoding that is sure" if given is None else f"is not in {given}"
    if not likely:
        return f"{said}, and seems to be no text; leave it out, or convert it to UTF-8"
    others = f", or {' or '.join(likely[1:])}" if likely[1:] else ""
    return f"{said}; say it with --encoding {likely[0]}{others}, and see that the text is right"


def _first_foreign(head: bytes, compression: Compression | None, opened: Opened) -> tuple[bytes, bool]:
    """Return the passage with the first bytes that are not ASCII, for they decide, and if nothing follows it.

    It is `head`, if there are none.
    """
    with opened() as stream:
        text = unpacked(stream, compression)
        try:
            while block := text.read(TEXT_BYTES):
                if not block.isascii():
                    return block + text.readline(TEXT_BYTES), False
        except DamagedError:  # the reader says so, after what stands before
            pass
    return head, False


def heads(entries: Sequence[Entry], kinds: Sequence[Kind]) -> Iterator[bytes | OSError | DataError]:
    """Yield the first bytes of each file, or why they cannot be read, in order."""
    for start in range(0, len(entries), BATCH):
        batch = entries[start : start + BATCH]
        lengths = [_needed(entry, kind) for entry, kind in zip(batch, kinds[start : start + BATCH], strict=True)]
        if any(is_url(entry.url) and not entry.url.startswith("zip://") for entry in batch):
            with ThreadPoolExecutor(AT_ONCE) as pool:
                yield from pool.map(read_head, (entry.url for entry in batch), lengths)
        else:
            yield from (read_head(entry.url, length) for entry, length in zip(batch, lengths, strict=True))


def _needed(entry: Entry, kind: Kind) -> int:
    """Return how many first bytes of a file say what it holds."""
    if kind.form not in TABLES or kind.compression is not None or entry.size_bytes < POINTER_BYTES:
        return HEAD_BYTES[kind.compression]
    return 0 if is_url(entry.url) else MAGIC_BYTES  # a table says the rest to its reader: no request for that


def read_head(url: str, length: int) -> bytes | OSError | DataError:
    """Return the first bytes of a file, or why they cannot be read."""
    if not length:
        return b""
    try:
        if not is_url(url):
            # Without Python's buffers: there may be very many, and very small ones.
            file = os.open(url, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                return os.read(file, length)
            finally:
                os.close(file)
        if url.startswith("zip://"):
            with open_url(url) as stream:
                return stream.read(length)
        fs, path = filesystem_of(url)
        if fs.async_impl:  # those would read far ahead
            return bytes(fs.cat_file(path, end=length))
        with fs.open(path, "rb") as remote:
            return bytes(remote.read(length))
    except (OSError, DataError) as error:
        return error
    except Exception as error:  # each file system has some of its own
        return OSError(str(error))


def why_unreadable(error: OSError | DataError) -> Unused:
    """Return why a file is not used whose first bytes could not be read."""
    if isinstance(error, DataError):
        return Unused(Reason.DAMAGED, str(error))
    return Unused(Reason.UNREADABLE, f"cannot be read: {trouble(error)}; check it and its permissions")
