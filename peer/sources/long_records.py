"""Reads records of JSON that are too long to be held in memory: of a text of a gigabyte, a megabyte at a time.

A record is read twice: once for its short columns, the kind that they say and whether all of it is sound, then again
for its text, which leaves as pieces. Examples that are so long are not used.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from peer.sources.documents import Piece, Reading
from peer.sources.fields import Found, Kind, kind_of
from peer.sources.json_scan import BrokenError, Cursor, Long, LongText, columns, text_parts
from peer.sources.records import Records
from peer.sources.skips import Reason
from peer.sources.text import cut_stream
from peer.sources.values import Refusal

SHORT_BYTES = 1 << 16  # of what a column says, at most, for it to be kept
KEPT_COLUMNS = 1024  # of those; more than 64 MB are never held

_PLACEHOLDER = "…"  # what a long text is called while the kind of its record is found


class Extent(NamedTuple):
    """Where a record lies in a stream that can seek."""

    stream: BinaryIO
    begin: int
    end: int


class _Survey(NamedTuple):
    """What one reading of a record has shown."""

    record: Any  # its short columns; a placeholder for each long text
    long: dict[str, Refusal | int]  # its long columns: the bytes of a text, or why it is none


def read_long(records: Records, extent: Extent, mark: int, where: str) -> Iterator[Piece]:
    """Yield the pieces of a long record; the first has this mark, each one after it one more."""
    size = extent.end - extent.begin
    if records.is_before(mark + size):
        return
    try:
        survey = _survey(extent, _inside(records.how))
    except BrokenError as error:
        records.skip(Refusal(error.reason, f"{error.words}; repair or remove it"), mark, size, where)
        return
    kind = records.kind or kind_of(survey.record, records.how)
    if isinstance(kind, Refusal):
        records.skip(kind, mark, size, where)
        return
    column = kind.text_column if isinstance(survey.record, dict) else ""
    if not any(name in survey.long for name in (*kind.columns, column)):  # the long ones are of no interest
        yield from records.pieces(survey.record, mark, size, where)
        return
    read = _sound(survey, kind, column)
    if isinstance(read, Refusal):
        records.skip(read, mark, size, where)
        return
    records.kind = kind
    number = 0
    passages = cut_stream(_long_text(extent, column, _inside(records.how)), records.how.piece_characters)
    for number, (passage, is_last) in enumerate(passages, start=1):
        if mark + number > records.since:
            yield Piece(passage, mark + number - 1, read.domain, read.split or records.split, is_last)
    if not number:
        records.skip(Refusal(Reason.BLANK, f"'{column}' is empty", 0), mark, size, where)


def _sound(survey: _Survey, kind: Kind, column: str | None) -> Found | Refusal:
    """Return the labels of a record whose long text can be used, or why it cannot be."""
    overlong = [name for name in kind.columns if name in survey.long and name != column]
    if overlong:
        words = f"'{overlong[0]}' is longer than {SHORT_BYTES} bytes in a record that is longer than may be held"
        return Refusal(Reason.TOO_LONG, f"{words}; shorten it, or split the record")
    assert column is not None  # else it were among those
    text = survey.long[column]
    if isinstance(text, Refusal):
        return text
    read = kind.read(survey.record)
    return read._replace(size_bytes=text) if isinstance(read, Refusal) else read


def _inside(how: Reading) -> frozenset[str]:
    """Return the columns that options look into: a, and a.b, for a.b.c."""
    named = (how.text_column, how.domain_column, how.split_column, how.input_column, how.target_column)
    parts = [name.split(".") for name in named if name is not None]
    return frozenset(".".join(each[:end]) for each in parts for end in range(1, len(each)))


def _survey(extent: Extent, inside: frozenset[str]) -> _Survey:
    """Go through all of a record. Raises BrokenError."""
    cursor = Cursor(*extent)
    record: dict[str, Any] = {}
    long: dict[str, Refusal | int] = {}
    if cursor.peek() == b'"':
        long[""] = _measure(text_parts(cursor), "")
        record_or_text: Any = _PLACEHOLDER
    elif cursor.peek() == b"{":
        record_or_text = record
        for name, value in columns(cursor, inside, SHORT_BYTES):
            if isinstance(value, LongText):
                long[name] = _measure(value.parts, name)
                value = _PLACEHOLDER
            elif isinstance(value, Long):
                long[name] = Refusal(Reason.TYPE, f"'{name}' holds {value.size_bytes} bytes and no text")
                value = []
            if len(record) < KEPT_COLUMNS:
                _put(record, name, value, inside)
    else:
        raise BrokenError(Reason.TYPE, "no record where one should be")
    if found := cursor.peek():
        raise cursor.broken(f"{found.decode(errors='replace')!r} follows", False)
    return _Survey(record_or_text, long)


def _put(record: dict[str, Any], name: str, value: object, inside: frozenset[str]) -> None:
    """Put a column where it was: `a.b` into a if that was looked into."""
    first, _, rest = name.partition(".")
    if rest and first in inside and isinstance(within := record.setdefault(first, {}), dict):
        _put(within, rest, value, frozenset(each.partition(".")[2] for each in inside if each.startswith(f"{first}.")))
    else:
        record[name] = value


def _measure(parts: Iterator[str], name: str) -> int | Refusal:
    """Return the bytes of a text, or why it cannot be used."""
    size, wrong = 0, ""
    for part in parts:
        try:
            size += len(part.encode())
        except UnicodeEncodeError:
            size += len(part.encode(errors="surrogatepass"))
            wrong = "half a character"
        if "\0" in part:
            wrong = "the control character 0"
    return Refusal(Reason.TYPE, f"'{name or 'the text'}' has {wrong}", size) if wrong else size


def _long_text(extent: Extent, column: str | None, inside: frozenset[str]) -> Iterator[str]:
    """Yield the parts of a long text."""
    cursor = Cursor(*extent)
    if not column:
        cursor.peek()
        yield from text_parts(cursor)
        return
    for name, value in columns(cursor, inside, SHORT_BYTES):
        if name == column and isinstance(value, LongText):
            yield from value.parts
            return
