"""Reads JSON files: lists of records or texts, objects around such lists, and records one after the other.

A list goes by element by element. What stands beside the lists of an object says something about them and is no text.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import BinaryIO, NamedTuple

from peer.sources.documents import Piece, Reading, Split
from peer.sources.fields import SPLITS, is_record
from peer.sources.json_scan import BrokenError, Cursor, Long, loads, raw_value
from peer.sources.long_records import SHORT_BYTES, Extent, read_long
from peer.sources.records import LONG_RECORD, PIECES, Records, open_spool, parse
from peer.sources.skips import Reason
from peer.sources.streams import DamagedError, open_bytes
from peer.sources.text import BLOCK_BYTES, BYTE_ORDER_MARK, lost_bytes, utf8
from peer.sources.values import Refusal, strings_size

DATA = "data"  # the column of an object that holds its records, if there are several lists


class _Item(NamedTuple):
    """A record of a file, or where it lies if it is long."""

    value: object
    size_bytes: int
    split: Split | None = None


def read_json(records: Records) -> Iterator[Piece]:
    """Yield the pieces of a JSON file; marks are ordinals of records. Raises OSError."""
    with open_bytes(records.file) as raw:
        stream = utf8(raw, records.file.encoding)
        is_spooled = stream is not raw or not raw.seekable()
        source = _spooled(records, stream) if is_spooled else raw
        try:
            yield from _read(records, source)
        finally:
            if is_spooled:
                source.close()


def _read(records: Records, source: BinaryIO) -> Iterator[Piece]:
    end = source.seek(0, 2)
    source.seek(0)
    begin = len(BYTE_ORDER_MARK) if source.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK else 0
    cursor = Cursor(source, begin, end)
    number = 0
    try:
        for item in _items(cursor, records.how):
            mark, where = number * PIECES, f"record {number + 1}"
            number += 1
            records.split = item.split
            if isinstance(item.value, Extent):
                yield from read_long(records, item.value, mark, where)
            elif isinstance(item.value, Refusal):
                records.skip(item.value, mark, item.size_bytes, where)
            elif not records.is_before(mark + PIECES):
                yield from records.pieces(item.value, mark, item.size_bytes, where)
    except BrokenError as error:
        words = f"after {number} records: {error.words}; what follows is not read, mend it or fetch it again"
        records.skip_rest(error.reason, words, end - cursor.done)


def _items(cursor: Cursor, how: Reading) -> Iterator[_Item]:
    """Yield the records of all values of a file, which are one as a rule. Raises BrokenError."""
    while found := cursor.peek():
        if found == b"[":
            cursor.at += 1
            yield from _elements(cursor, how, None)
            continue
        begin = cursor.offset
        raw = raw_value(cursor, LONG_RECORD, goes_on=False)
        if isinstance(raw, Long):
            cursor.go_to(begin)
            if found == b"{" and _is_keyed(cursor, how):
                cursor.take(b"{")
                yield from _elements(cursor, how, None, b"}")
            elif found == b"{":
                yield from _large_object(cursor, how)
            else:
                raw_value(cursor, 0)
                yield _Item(Extent(cursor.stream, begin, cursor.offset), cursor.offset - begin)
            cursor.done = cursor.offset
            continue
        value = loads(raw, cursor)
        yield from _records_in(value, how) if isinstance(value, Mapping) else [_Item(value, len(raw))]
        cursor.done = cursor.offset


def _elements(cursor: Cursor, how: Reading, split: Split | None, end: bytes = b"]") -> Iterator[_Item]:
    """Yield the elements of a list, or the columns of an object, whose bracket is behind. Raises BrokenError."""
    while (found := cursor.peek()) != end:
        if end == b"}":
            _short(raw_value(cursor, SHORT_BYTES))
            cursor.take(b":")
            found = cursor.peek()
        begin = cursor.offset
        raw = raw_value(cursor, LONG_RECORD)
        if not raw:
            raise cursor.broken(f"a record was expected, not {found.decode(errors='replace')!r}", False)
        if isinstance(raw, Long):
            yield _Item(Extent(cursor.stream, begin, cursor.offset), raw.size_bytes, split)
        else:
            value = parse(raw)
            questions = _questions(value)
            yield from (_Item(each, strings_size(each), split) for each in questions or ())
            if questions is None:
                yield _Item(value, len(raw), split)
        cursor.done = cursor.offset
        if (after := cursor.peek()) == b",":
            cursor.at += 1
        elif after != end:
            raise cursor.broken(f"a comma or {end.decode()} was expected", not after)
    cursor.at += 1
    cursor.done = cursor.offset


def _is_keyed(cursor: Cursor, how: Reading) -> bool:
    """Return whether an object holds a record for each key, as its first two do. The cursor stays where it is."""
    begin = cursor.offset
    cursor.take(b"{")
    first: list[_Item] = []
    with suppress(BrokenError):  # whoever reads all of it says so
        first += islice(_elements(cursor, how, None, b"}"), 2)
    cursor.go_to(begin)
    return len(first) == 2 and all(is_record(item.value, how) for item in first)


def _large_object(cursor: Cursor, how: Reading) -> Iterator[_Item]:
    """Yield the records of the lists in an object, or where it lies if it is a record itself. Raises BrokenError."""
    begin, is_wrapper = cursor.offset, False
    seen: dict[str, object] = {}
    cursor.take(b"{")
    while cursor.peek() != b"}":
        name = str(loads(_short(raw_value(cursor, SHORT_BYTES)), cursor))
        cursor.take(b":")
        at, is_list = cursor.offset, cursor.peek() == b"["
        if is_list and not is_record(seen, how):
            cursor.at += 1
            if cursor.peek() == b"{" or (name == DATA and cursor.peek() == b'"'):
                is_wrapper = True
                yield from _elements(cursor, how, SPLITS.get(name.lower()))
                is_list = False
            else:
                cursor.go_to(at)
                is_list = True
        if is_list or cursor.peek() not in (b",", b"}"):
            kind = cursor.peek()
            raw = raw_value(cursor, SHORT_BYTES)
            seen[name] = loads(raw, cursor) if isinstance(raw, bytes) else "…" if kind == b'"' else []
        if is_record(seen, how) and not is_wrapper:
            break
        if (after := cursor.peek()) == b",":
            cursor.at += 1
        elif after != b"}":
            raise cursor.broken("a comma or } was expected", not after)
    if is_wrapper:
        cursor.at += 1
        return
    cursor.go_to(begin)
    raw_value(cursor, 0)
    yield _Item(Extent(cursor.stream, begin, cursor.offset), cursor.offset - begin)


def _short(raw: bytes | Long) -> bytes:
    if isinstance(raw, Long):
        raise BrokenError(Reason.TOO_LONG, f"the name of a column has {raw.size_bytes} bytes")
    return raw


def _records_in(value: Mapping[str, object], how: Reading) -> Iterator[_Item]:
    """Yield the records of an object: itself, or those of the lists in it."""
    if (questions := _questions(value)) is not None:
        yield from (_Item(each, strings_size(each)) for each in questions)
        return
    lists = {} if is_record(value, how) else _lists(value)
    if not lists:
        yield from (_Item(each, strings_size(each)) for each in _keyed(value, how) or [value])
    for name, elements in lists.items():
        for each in elements:
            for record in [each] if (inner := _questions(each)) is None else inner:
                yield _Item(record, strings_size(record), SPLITS.get(name.lower()))


def _keyed(value: Mapping[str, object], how: Reading) -> list[object]:
    """Return the records of an object that has one for each key; nothing if it is itself one, or none."""
    inside = list(value.values())
    are_records = len(inside) > 1 and all(isinstance(each, Mapping) for each in inside)
    return inside if are_records and not is_record(value, how) and is_record(inside[0], how) else []


def _lists(value: Mapping[str, object]) -> dict[str, list[object]]:
    """Return the lists of an object that hold records or, if none does, texts; one called `data` before all others."""
    for kind in (Mapping, str):
        lists = {
            name: each
            for name, each in value.items()
            if isinstance(each, list) and each and all(isinstance(element, kind) for element in each)
        }
        if lists:
            return {DATA: lists[DATA]} if DATA in lists else lists
    return {}


def _questions(value: object) -> list[dict[str, object]] | None:
    """Return the questions of an article as SQuAD has it, each with its context; None if it is none."""
    paragraphs = value.get("paragraphs") if isinstance(value, Mapping) else None
    if not isinstance(paragraphs, list) or not all(isinstance(each, Mapping) and "qas" in each for each in paragraphs):
        return None
    return [
        {**question, "context": paragraph.get("context")}
        for paragraph in paragraphs
        for question in paragraph["qas"]
        if isinstance(question, Mapping)
    ]


def _spooled(records: Records, stream: BinaryIO) -> BinaryIO:
    """Copy a stream that cannot seek to a temporary file, as far as it is sound."""
    copy = open_spool()
    try:
        while data := stream.read(BLOCK_BYTES):
            copy.write(data)
    except DamagedError as error:
        at = copy.tell()
        records.skip_rest(Reason.DAMAGED, str(error), lost_bytes(records.file, at))
    return copy
