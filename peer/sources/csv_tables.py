"""Reads CSV and TSV: a header names the columns, unless there is only one; each row is a record."""

import csv
import io
import re
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import BinaryIO, cast

from peer.sources.documents import Piece, Reading
from peer.sources.fields import PAIRS, TEXT, TEXT_NAMES
from peer.sources.records import PIECES, Records
from peer.sources.skips import Reason
from peer.sources.streams import DamagedError, open_bytes
from peer.sources.text import BLOCK_BYTES, lost_bytes, utf8
from peer.sources.values import Refusal

FIELD_CHARACTERS = 16 << 20  # of a field and of a line, at most: `csv` holds four times as many bytes
DELIMITERS = ",;\t|"
HEAD_CHARACTERS = 1 << 16  # that the delimiter is told from
USUAL_SHARE = 0.8  # of the rows that have as many fields as the first
NO_DELIMITER = "\x1f"  # for a file of one column

_SAID = re.compile(r'"?sep=([,;\t|])"?\r?\n')
_UNDECODED = re.compile(r"[\udc80-\udcff]")


def read_csv(records: Records) -> Iterator[Piece]:
    """Yield the pieces of a table; marks are ordinals of rows. Raises OSError."""
    csv.field_size_limit(FIELD_CHARACTERS)  # of the process; the default is too small for documents
    with open_bytes(records.file) as raw:
        lines = _Lines(records, utf8(raw, records.file.encoding))
        delimiter = lines.said_delimiter()
        if delimiter is None and records.file.form == "tsv" and "\t" in lines.head().partition("\n")[0]:
            delimiter = "\t"
        delimiter = delimiter or delimiter_of(lines.head(), _names(records.how))
        if delimiter == "\t" and not has_quotes(lines.head()):
            rows = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
        number = 0
        header: list[str] | None = None
        while True:
            begun = lines.read_bytes
            try:
                row = next(rows, None)
            except csv.Error as error:
                is_long = "limit" in str(error)
                if is_long:
                    lines.skip_quoted()
                reason = Reason.TOO_LONG if is_long else Reason.BROKEN
                words = f"{error}; shorten the field, or close the quote that begins it"
                size = lines.read_bytes - begun
                records.skip(Refusal(reason, words), number * PIECES, size, f"line {lines.number}")
                number += 1
                continue
            if row is None:
                return
            if not row:
                continue
            if header is None:
                header, is_header = _header(row, records.how)
                if is_header:
                    continue
            mark, where = number * PIECES, f"line {lines.number}"
            number += 1
            if not records.is_before(mark + PIECES):
                yield from _row(records, header, row, mark, where)


def delimiter_of(head: str, names: Collection[str] = ()) -> str:
    """Return what separates the fields of the rows that begin so.

    That is what a header with one of the `names` has, else what gives nearly all rows as many fields.
    """
    best, most = NO_DELIMITER, 0.0
    for delimiter in DELIMITERS:
        rows = _first_rows(head, delimiter)
        if not rows or len(rows[0]) < 2:
            continue
        if any(name.strip().lower() in names for name in rows[0]):
            return delimiter
        share = _even_share(rows)
        if share > USUAL_SHARE and share * len(rows[0]) > most:
            best, most = delimiter, share * len(rows[0])
    return best


def _even_share(rows: Sequence[Sequence[str]]) -> float:
    """Return the share of rows that have as many fields as the first; 1 if there is none."""
    return sum(len(row) == len(rows[0]) for row in rows) / len(rows) if rows else 1.0


def _first_rows(head: str, delimiter: str) -> list[list[str]]:
    """Return the rows that begin a table as far as they can be read; the last may be cut off and counts if alone."""
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in csv.reader(io.StringIO(head, newline=""), delimiter=delimiter) if row)
    except csv.Error:
        return rows
    return rows[:-1] if len(rows) > 1 and not head.endswith(("\n", "\r")) else rows


def has_quotes(head: str) -> bool:
    """Return whether fields between tabs stand in quotes.

    They do if all rows can be read so, or if more fields begin and end with a quote than do either.
    """
    fields = [field for line in head.splitlines() for field in line.split("\t") if '"' in field[:1] + field[-1:]]
    is_usual = 2 * sum(len(field) > 1 and field[0] == field[-1] == '"' for field in fields) > len(fields)
    return is_usual or (any(field[0] == '"' for field in fields) and _is_quoted(head))


def _is_quoted(head: str) -> bool:
    """Return whether all rows but an open one at the end can be read with quotes, and have as many fields each."""
    reader = csv.reader(io.StringIO(head, newline=""), delimiter="\t", strict=True)
    rows, lines = [], 0
    try:
        for row in reader:
            rows.append(row)
            lines = reader.line_num
    except csv.Error:
        # A quote that nothing closes takes all that follows for one field.
        is_cut_off = len(head) >= HEAD_CHARACTERS and lines > reader.line_num / 2
        return is_cut_off and reader.line_num >= len(head.splitlines()) and _even_share(rows) > USUAL_SHARE
    return _even_share(rows) > USUAL_SHARE


def _names(how: Reading) -> set[str]:
    """Return what columns may be called, in small letters, so that a header is known by it."""
    said = (how.text_column, how.domain_column, how.split_column, how.input_column, how.target_column)
    return {TEXT, *TEXT_NAMES, *(name for pair in PAIRS for name in pair), *(name.lower() for name in said if name)}


def _header(row: list[str], how: Reading) -> tuple[list[str], bool]:
    """Return the names of the columns, and whether the first row says them; one column may have none."""
    names = [name.strip() for name in row]
    if len(row) > 1 or names[0].lower() in (TEXT, *TEXT_NAMES) or names[0] == how.text_column:
        return names, True
    return [how.text_column or TEXT], False


def _row(records: Records, header: list[str], row: list[str], mark: int, where: str) -> Iterator[Piece]:
    size = sum(len(field.strip().encode(errors="surrogateescape")) for field in row)
    if len(row) != len(header):
        words = f"has {len(row)} fields and the header {len(header)}; mend the row"
        records.skip(Refusal(Reason.COLUMN, words), mark, size, where)
    elif any(not field.isascii() and _UNDECODED.search(field) for field in row):
        words = f"is not {records.file.encoding}; say which it is with --encoding, or convert the file"
        records.skip(Refusal(Reason.ENCODING, words), mark, size, where)
    else:
        yield from records.pieces(dict(zip(header, row, strict=True)), mark, size, where)


class _Lines:
    """The lines of a table, with their ends, as `csv` reads them; those that are too long are counted and left out."""

    def __init__(self, records: Records, stream: BinaryIO) -> None:
        self.number, self.read_bytes = 0, 0
        self._records = records
        self._text = io.TextIOWrapper(
            cast(BinaryIO, io.BufferedReader(_Raw(records, stream), BLOCK_BYTES)),
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
        )
        self._waiting: deque[str] = deque()

    def head(self) -> str:
        """Return the first lines, which are read again."""
        size = sum(map(len, self._waiting))
        while size < HEAD_CHARACTERS and (line := self._text.readline(FIELD_CHARACTERS)):
            self._waiting.append(line)
            size += len(line)
        return "".join(self._waiting)[:HEAD_CHARACTERS]

    def said_delimiter(self) -> str | None:
        """Go past a first line that says what separates the fields, as spreadsheets write it, and return that."""
        said = _SAID.match(self.head())
        if said is None:
            return None
        self._waiting.popleft()
        self.number += 1
        return said[1]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while line := self._line():
            self.number += 1
            self.read_bytes += len(line.encode(errors="surrogateescape"))
            if line.endswith(("\n", "\r")) or len(line) < FIELD_CHARACTERS:
                return line
            size = len(line.encode(errors="surrogateescape"))
            while line and not line.endswith(("\n", "\r")):
                line = self._line()
                size += len(line.encode(errors="surrogateescape"))
            words = f"has {size} bytes; shorten it, or write JSON lines, which may be of any length"
            self._records.skip_rest(Reason.TOO_LONG, f"line {self.number} {words}", size)
        raise StopIteration

    def skip_quoted(self) -> None:
        """Go past the lines up to one that ends a quoted field."""
        for line in self:
            if line.count('"') % 2:
                return

    def _line(self) -> str:
        return self._waiting.popleft() if self._waiting else self._text.readline(FIELD_CHARACTERS)


class _Raw(io.RawIOBase):
    """A stream as `io` wants it, which ends where it is damaged."""

    def __init__(self, records: Records, stream: BinaryIO) -> None:
        self._records, self._stream = records, stream
        self._pending, self._read_bytes = b"", 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # any buffer will do
        try:
            data = self._pending or self._stream.read(len(buffer))
        except DamagedError as error:
            file = self._records.file
            self._records.skip_rest(Reason.DAMAGED, str(error), lost_bytes(file, self._read_bytes))
            return 0
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        self._pending = data[count:]
        self._read_bytes += count
        return count
