"""Reads Parquet and Arrow files: only the columns that count, some rows at a time."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from peer.sources.documents import Piece
from peer.sources.fields import Kind, kind_of
from peer.sources.records import PIECES, Records
from peer.sources.skips import Reason
from peer.sources.streams import DamagedError, open_bytes
from peer.sources.text import lost_bytes
from peer.sources.values import Refusal, column_in, strings_size

BATCH_BYTES = 8 << 20  # of rows that are read at once, about
BATCH_ROWS = 1024
READ_BYTES = 1 << 20  # of a column, that are read from a file at once
ARROW_FILE = b"ARROW1"  # how the format begins that can seek; else it is a stream


def read_parquet(records: Records) -> Iterator[Piece]:
    """Yield the pieces of a Parquet file; marks are ordinals of rows, and row groups before `since` are passed over.

    A row group that is damaged is counted, and the next is read. Raises OSError: it cannot be opened.
    """
    import pyarrow
    import pyarrow.parquet

    with open_bytes(records.file) as stream:
        try:
            file = pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=READ_BYTES)
            first = _first_row(file)
            wanted = None if first is None else _wanted(records, first, file.schema_arrow.names)
        except (pyarrow.ArrowException, OSError, DamagedError) as error:
            _damaged(records, error, 0, records.file.size_bytes)
            return
        end = 0
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            row, end = end, end + about.num_rows
            if records.is_before(end * PIECES):
                continue
            size = max(1, min(BATCH_ROWS, BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)))
            try:
                for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=wanted):
                    yield from _rows(records, batch, row)
                    row += batch.num_rows
            except (pyarrow.ArrowException, OSError, DamagedError) as error:
                lost = records.file.size_bytes * (end - row) // file.metadata.num_rows
                _damaged(records, error, row, lost)


def _first_row(file: Any) -> Any:
    """Return the first row that can be read, as a batch; None if there is none."""
    import pyarrow

    for group in range(file.num_row_groups):
        try:
            for batch in file.iter_batches(batch_size=1, row_groups=[group]):
                return batch
        except (pyarrow.ArrowException, OSError):  # whoever reads all of it counts that
            continue
    return None


def read_arrow(records: Records) -> Iterator[Piece]:
    """Yield the pieces of an Arrow file or stream; marks are ordinals of rows. Raises OSError: it cannot be opened."""
    import pyarrow

    row = read_bytes = 0
    columns: list[str] | None = None
    with open_bytes(records.file) as stream:
        try:
            for batch in _batches(stream):
                _check(batch)
                read_bytes += batch.nbytes
                if row == 0 and batch.num_rows:
                    columns = _wanted(records, batch, batch.schema.names)
                if batch.num_rows and not records.is_before((row + batch.num_rows) * PIECES):
                    batch = batch if columns is None else batch.select(columns)
                    size = max(1, min(BATCH_ROWS, BATCH_BYTES * batch.num_rows // max(1, batch.nbytes)))
                    for start in range(0, batch.num_rows, size):
                        yield from _rows(records, batch.slice(start, size), row + start)
                row += batch.num_rows
        except (pyarrow.ArrowException, OSError, DamagedError) as error:
            _damaged(records, error, row, lost_bytes(records.file, read_bytes))


def _batches(stream: BinaryIO) -> Iterator[Any]:
    from pyarrow import ipc

    head = stream.read(len(ARROW_FILE))
    stream.seek(0)
    if head == ARROW_FILE:
        with ipc.open_file(stream) as file:
            for number in range(file.num_record_batches):
                yield file.get_batch(number)
    elif head:
        with ipc.open_stream(stream) as batches:
            yield from batches


def _wanted(records: Records, batch: Any, names: list[str]) -> list[str] | None:
    """Return the columns to read, None for all: the first record says which, if it can be used."""
    first = _records_of(batch.slice(0, 1))[0]
    if isinstance(first, Refusal):
        return None
    kind = kind_of({name: "" if value is None else value for name, value in first.items()}, records.how)
    if not isinstance(kind, Kind):
        return None
    return [
        name for name in dict.fromkeys(column_in(column, names) for column in kind.columns) if name in names
    ] or None


def _rows(records: Records, batch: Any, row: int) -> Iterator[Piece]:
    for number, record in enumerate(_records_of(batch), start=row):
        mark, where = number * PIECES, f"row {number + 1}"
        if isinstance(record, Refusal):
            records.skip(record, mark, 0, where)
        elif not records.is_before(mark + PIECES):
            yield from records.pieces(record, mark, strings_size(record), where)


def _records_of(batch: Any) -> list[dict[str, Any] | Refusal]:
    """Return the records of some rows; of one whose text is not UTF-8, which nobody has checked so far, why."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as error:
        if batch.num_rows > 1:
            return [record for row in range(batch.num_rows) for record in _records_of(batch.slice(row, 1))]
        words = f"holds text that is not UTF-8 ({error.reason}); write the file again"
        return [Refusal(Reason.ENCODING, words, _text_bytes(batch))]


def _text_bytes(batch: Any) -> int:
    """Return the bytes of all texts in some rows, whatever they say."""
    import pyarrow
    from pyarrow import compute

    texts = [column for column in batch.columns if pyarrow.types.is_string(column.type)]
    texts += [column for column in batch.columns if pyarrow.types.is_large_string(column.type)]
    return sum(compute.sum(compute.binary_length(column)).as_py() or 0 for column in texts)


def _check(batch: Any) -> None:
    """Raise ArrowInvalid if a damaged batch points outside of itself; bytes that are no UTF-8 do no harm."""
    import pyarrow

    try:
        batch.validate(full=True)
    except pyarrow.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        for column in batch.columns:
            if pyarrow.types.is_string(column.type):
                column = column.view(pyarrow.binary())
            elif pyarrow.types.is_large_string(column.type):
                column = column.view(pyarrow.large_binary())
            column.validate(full=True)


def _damaged(records: Records, error: Exception, row: int, lost_bytes: int) -> None:
    """Count what cannot be read after so many rows."""
    words = str(error).splitlines()[0].removesuffix("; fetch it again") if str(error) else type(error).__name__
    records.skip_rest(Reason.DAMAGED, f"{words}, after {row} rows; fetch it again", lost_bytes)
