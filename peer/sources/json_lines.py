"""Reads JSON lines: each line is a record, and a long one is never held in memory."""

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from peer.sources.documents import Piece, SourceFile
from peer.sources.fields import Kind
from peer.sources.long_records import Extent, read_long
from peer.sources.records import LONG_RECORD, Records, open_spool, parse
from peer.sources.skips import Reason, Skips
from peer.sources.streams import DamagedError, open_bytes
from peer.sources.text import BLOCK_BYTES, BYTE_ORDER_MARK, lost_bytes, skip_to, utf8
from peer.sources.values import Refusal


class _Line(NamedTuple):
    """A line of a file, without its end."""

    at: int  # byte offset
    data: bytes
    is_ended: bool = True  # False: nothing follows it, not even a line end
    extent: Extent | None = None  # of a long one, where it lies


def read_json_lines(records: Records) -> Iterator[Piece]:
    """Yield the pieces of JSON lines; marks are byte offsets, of the line and one more for each further piece of it.

    Of what is compressed or not UTF-8 they are those of its text as UTF-8. Raises OSError.
    """
    start = _line_at(records.file, records.since) if records.since else 0
    if start:
        records.kind = _first_kind(records)
    for number, line in enumerate(_lines(records, start), start=1):
        where = f"byte {line.at}" if start else f"line {number}"
        if line.extent is not None:
            yield from read_long(records, line.extent, line.at, where)
        elif records.is_before(line.at + len(line.data)) or not line.data or line.data.isspace():
            continue
        else:
            record, size = parse(line.data), len(line.data.strip())
            if not isinstance(record, Refusal):
                yield from records.pieces(record, line.at, size, where)
                continue
            if record.reason is Reason.BROKEN and not line.is_ended:
                record = Refusal(Reason.DAMAGED, "the last line is cut off; fetch the file again")
            records.skip(record, line.at, size, where)


def _line_at(file: SourceFile, since: int) -> int:
    """Return where the line begins that a mark lies in, 0 if the file cannot be begun in its middle."""
    with open_bytes(file) as raw:
        if utf8(raw, file.encoding) is not raw or not raw.seekable():
            return 0
        while since > 0:
            begin = max(0, since - BLOCK_BYTES)
            raw.seek(begin)
            data = raw.read(since - begin)
            if (found := data.rfind(b"\n")) >= 0:
                return begin + found + 1
            since = begin
    return 0


def _first_kind(records: Records) -> Kind | None:
    """Return the kind that the file's first records say."""
    first = Records(records.file, records.how, Skips(), 0)
    next(read_json_lines(first), None)
    return first.kind


def _lines(records: Records, start: int) -> Iterator[_Line]:
    file = records.file
    with open_bytes(file) as raw:
        stream = utf8(raw, file.encoding)
        may_seek = stream is raw and raw.seekable()
        if start:
            skip_to(stream, start)
        pending, at = b"", start
        while True:
            try:
                data = stream.read(BLOCK_BYTES)
            except DamagedError as error:
                records.skip_rest(Reason.DAMAGED, str(error), lost_bytes(file, at + len(pending)))
                data = b""
            if at == 0 and not pending and data.startswith(BYTE_ORDER_MARK):
                data, at = data[3:], 3
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                yield _Line(at, line) if len(line) <= LONG_RECORD else _Line(at, b"", True, _extent(line))
                at += len(line) + 1
            if not data:
                if pending:
                    yield _Line(at, pending, False, _extent(pending) if len(pending) > LONG_RECORD else None)
                return
            if len(pending) > LONG_RECORD:
                if may_seek:
                    extent, pending = Extent(raw, at, _line_end(raw, at)), b""
                else:
                    extent, pending = _copied(stream, pending)
                yield _Line(at, b"", True, extent)
                at += extent.end - extent.begin + 1
                if may_seek:
                    raw.seek(at)
                else:
                    extent.stream.close()


def _extent(line: bytes) -> Extent:
    return Extent(io.BytesIO(line), 0, len(line))


def _line_end(stream: BinaryIO, begin: int) -> int:
    """Return where the line ends that begins there: at its line end, or where the stream ends."""
    stream.seek(begin)
    while data := stream.read(BLOCK_BYTES):
        if (found := data.find(b"\n")) >= 0:
            return begin + found
        begin += len(data)
    return begin


def _copied(stream: BinaryIO, head: bytes) -> tuple[Extent, bytes]:
    """Copy a line to a temporary file, from its `head` on; return it and what was read of the next lines."""
    copy, size, rest = open_spool(), 0, b""
    while head:
        line, end, rest = head.partition(b"\n")
        size += copy.write(line)
        if end:
            break
        try:
            head = stream.read(BLOCK_BYTES)
        except DamagedError:  # the next read says so again
            break
    return Extent(copy, 0, size), rest
