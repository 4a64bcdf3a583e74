"""Goes through JSON block by block: what is in it is found without holding more of it than what is asked for.

For JSON of any size. What fits into memory is better parsed at once, and is: values come as bytes for `json.loads`.
"""

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, NamedTuple

from peer.sources.skips import Reason
from peer.sources.text import BLOCK_BYTES, whole_characters

_STRING = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+')  # whole escapes only
_HIGH = re.compile(rb"\\u[dD][89abAB][0-9A-Fa-f]{2}\Z")  # the first half of a character
_ESCAPE_BYTES = 6  # of the longest escape
# To a bracket, or a string that goes on in the next block. What is in strings is not looked at.
_INSIDE = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
_ANYTHING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)  # of a string
_SCALAR = re.compile(rb"[^\s,\]}\[{\"]*+")
_SPACE = re.compile(rb"[ \t\r\n]*+")


class BrokenError(Exception):
    """This is no JSON, or not UTF-8, or it is cut off. Never leaves the readers."""

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.reason, self.words = reason, words


class Long(NamedTuple):
    """Stands for a value, no text, that is longer than what is kept."""

    size_bytes: int


class LongText(NamedTuple):
    """A long text; its parts must be taken before the next column is looked for."""

    parts: Iterator[str]


class Cursor:
    """A place in a stretch of a stream, and the block around it."""

    def __init__(self, stream: BinaryIO, begin: int, end: int) -> None:
        self.stream, self._next, self._end = stream, begin, end
        self.buffer, self.at = b"", 0
        self.done = begin  # byte offset up to which all has been given out

    @property
    def offset(self) -> int:
        """Where this is in the stream, bytes."""
        return self._next - len(self.buffer) + self.at

    def go_to(self, offset: int) -> None:
        """Go to another byte of the stream."""
        self._next, self.buffer, self.at = offset, b"", 0

    def more(self) -> bool:
        """Drop what lies behind and read another block; return whether there was one."""
        self.stream.seek(self._next)  # others may have read from it meanwhile
        data = self.stream.read(min(BLOCK_BYTES, self._end - self._next))
        self._next += len(data)
        self.buffer, self.at = self.buffer[self.at :] + data, 0
        return bool(data)

    def peek(self) -> bytes:
        """Skip white space and return the next byte; none at the end."""
        while True:
            self.at = _SPACE.match(self.buffer, self.at).end()  # type: ignore[union-attr]  # it matches everything
            if self.at < len(self.buffer):
                return self.buffer[self.at : self.at + 1]
            if not self.more():
                return b""

    def take(self, expected: bytes) -> None:
        """Go past a byte that must come next."""
        if (found := self.peek()) != expected:
            raise self.broken(f"{expected.decode()} was expected, not {found.decode(errors='replace')!r}", not found)
        self.at += 1

    def broken(self, words: str, is_cut_off: bool) -> BrokenError:
        """Return the error that says what is wrong here."""
        if is_cut_off:
            return BrokenError(Reason.DAMAGED, f"JSON that is cut off at byte {self.offset}")
        return BrokenError(Reason.BROKEN, f"broken JSON at byte {self.offset}: {words}")


def raw_value(cursor: Cursor, longest: int, goes_on: bool = True) -> bytes | Long:
    """Go past a value and return its bytes, which may be broken inside.

    Of a longer one `Long` is returned; unless it `goes_on`, the cursor is then in its middle. Raises BrokenError.
    """
    kept, size, depth, is_text = bytearray(), 0, 0, False
    if not cursor.peek():
        raise cursor.broken("", True)
    while True:
        begin = cursor.at
        pattern = _ANYTHING if is_text else _INSIDE if depth else _SCALAR
        end = pattern.match(cursor.buffer, begin).end()  # type: ignore[union-attr]  # it matches everything
        found = cursor.buffer[end : end + 1]
        is_done = needs_more = False
        if found == b'"':
            is_text, end = not is_text, end + 1
            is_done = not is_text and not depth
        elif is_text or not found:
            needs_more = True  # the block ends, perhaps inside of an escape
        elif found in (b"{", b"["):
            depth, end = depth + 1, end + 1
        elif depth and found in (b"}", b"]"):
            depth, end = depth - 1, end + 1
            is_done = not depth
        else:
            is_done = True  # what ends a number or a word is not a part of it
        size += end - begin
        if size <= longest:
            kept += cursor.buffer[begin:end]
        cursor.at = end
        if needs_more and not cursor.more():
            if is_text or depth:
                raise cursor.broken("", True)
            is_done = True
        if is_done or (size > longest and not goes_on):
            return bytes(kept) if size <= longest else Long(size)


def columns(
    cursor: Cursor, inside: frozenset[str], longest: int, prefix: str = ""
) -> Iterator[tuple[str, object | Long | LongText]]:
    """Yield each column of an object with what it says; objects that are named in `inside` as columns `a.b`.

    Raises BrokenError.
    """
    cursor.take(b"{")
    while (found := cursor.peek()) != b"}":
        if found == b",":
            cursor.at += 1
        name = prefix + _name(cursor, longest)
        cursor.take(b":")
        if cursor.peek() == b'"':
            yield name, (text := _text(cursor, longest))
            if isinstance(text, LongText):
                for _ in text.parts:  # those that nobody wanted
                    pass
        elif cursor.peek() == b"{" and name in inside:
            yield from columns(cursor, inside, longest, f"{name}.")
        else:
            raw = raw_value(cursor, longest)
            yield name, raw if isinstance(raw, Long) else loads(raw, cursor)
        if (after := cursor.peek()) not in (b",", b"}"):
            raise cursor.broken("a comma or } was expected", not after)
    cursor.at += 1


def text_parts(cursor: Cursor) -> Iterator[str]:
    """Go past a string and yield it in parts, decoded. Raises BrokenError."""
    for part in _raw_parts(cursor):
        yield str(loads(b'"' + part + b'"', cursor))


def loads(data: bytes, cursor: Cursor) -> object:
    """Parse a value that ends where the cursor is. Raises BrokenError."""
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError:
        raise BrokenError(Reason.ENCODING, f"is not UTF-8 before byte {cursor.offset}") from None
    except (ValueError, RecursionError) as error:
        raise cursor.broken(str(error), False) from None


def _name(cursor: Cursor, longest: int) -> str:
    if (found := cursor.peek()) != b'"':
        raise cursor.broken("the name of a column was expected", not found)
    name = _text(cursor, longest)
    if isinstance(name, LongText):
        raise BrokenError(Reason.TOO_LONG, f"the name of a column has more than {longest} characters")
    return name


def _text(cursor: Cursor, longest: int) -> str | LongText:
    parts = text_parts(cursor)
    head = ""
    for part in parts:
        head += part
        if len(head) > longest:
            return LongText(chain((head,), parts))
    return head


def _raw_parts(cursor: Cursor) -> Iterator[bytes]:
    """Go past a string and yield what stands between its quotes; no part ends inside of a character."""
    cursor.at += 1
    while True:
        buffer, begin = cursor.buffer, cursor.at
        end = _STRING.match(buffer, begin).end()  # type: ignore[union-attr]  # it matches everything
        if buffer[end : end + 1] == b'"':
            cursor.at = end + 1
            yield buffer[begin:end]
            return
        if len(buffer) - end >= _ESCAPE_BYTES:
            cursor.at = end
            raise cursor.broken("this may not stand in a text", False)
        end = begin + whole_characters(buffer[begin:end]) if end > begin else end
        if high := _HIGH.search(buffer, max(begin, end - _ESCAPE_BYTES), end):
            before = buffer[begin : high.start()]
            if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:  # else that backslash is one itself
                end = high.start()
        cursor.at = end
        if end > begin:
            yield buffer[begin:end]
        if not cursor.more():
            raise cursor.broken("", True)
