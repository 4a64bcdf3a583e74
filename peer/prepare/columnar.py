"""Reads Parquet and Arrow files: only the columns that count, some rows at a time."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from peer.prepare.documents import Piece
from peer.prepare.fields import Kind, kind_of
from peer.prepare.records import PIECES, Records
from peer.prepare.skips import Reason
from peer.prepare.streams import DamagedError, open_bytes
from peer.prepare.values import column_in, strings_size

BATCH_BYTES = 8 << 20  # of rows that are read at once, about
BATCH_ROWS = 1024
ARROW_FILE = b"ARROW1"  # how the format begins that can seek; else it is a stream


def read_parquet(records: Records) -> Iterator[Piece]:
    """Yield the pieces of a Parquet file; marks are ordinals of rows, and row groups before `since` are passed over.

    Raises OSError: it cannot be opened.
    """
    import pyarrow
    import pyarrow.parquet

    row, total = 0, 0
    with open_bytes(records.file) as stream:
        try:
            with pyarrow.parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20) as file:
                total = file.metadata.num_rows
                first = next(file.iter_batches(batch_size=1), None) if total else None
                names = file.schema_arrow.names
                wanted = _wanted(records, None if first is None else _records_of(first)[0], names)
                for group in range(file.num_row_groups):
                    about = file.metadata.row_group(group)
                    if records.is_before((row + about.num_rows) * PIECES):
                        row += about.num_rows
                        continue
                    size = max(1, min(BATCH_ROWS, BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)))
                    for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=wanted):
                        yield from _rows(records, batch, row)
                        row += batch.num_rows
        except (pyarrow.ArrowException, OSError, DamagedError) as error:
            _damaged(records, error, row, total)


def read_arrow(records: Records) -> Iterator[Piece]:
    """Yield the pieces of an Arrow file or stream; marks are ordinals of rows. Raises OSError: it cannot be opened."""
    import pyarrow

    row = 0
    columns: list[str] | None = None
    with open_bytes(records.file) as stream:
        try:
            for batch in _batches(stream):
                if row == 0 and batch.num_rows:
                    columns = _wanted(records, _records_of(batch.slice(0, 1))[0], batch.schema.names)
                if batch.num_rows and not records.is_before((row + batch.num_rows) * PIECES):
                    batch = batch if columns is None else batch.select(columns)
                    size = max(1, min(BATCH_ROWS, BATCH_BYTES * batch.num_rows // max(1, batch.nbytes)))
                    for start in range(0, batch.num_rows, size):
                        yield from _rows(records, batch.slice(start, size), row + start)
                row += batch.num_rows
        except (pyarrow.ArrowException, OSError, DamagedError) as error:
            _damaged(records, error, row, 0)


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


def _wanted(records: Records, first: dict[str, Any] | None, names: list[str]) -> list[str] | None:
    """Return the columns to read, None for all: the first record says which, if it can be used."""
    if first is None:
        return None
    kind = kind_of({name: "" if value is None else value for name, value in first.items()}, records.how)
    if not isinstance(kind, Kind):
        return None
    return [
        name for name in dict.fromkeys(column_in(column, names) for column in kind.columns) if name in names
    ] or None


def _rows(records: Records, batch: Any, row: int) -> Iterator[Piece]:
    for number, record in enumerate(_records_of(batch), start=row):
        mark = number * PIECES
        if not records.is_before(mark + PIECES):
            yield from records.pieces(record, mark, strings_size(record), f"row {number + 1}")


def _records_of(batch: Any) -> list[dict[str, Any]]:
    return list(batch.to_pylist())


def _damaged(records: Records, error: Exception, row: int, total: int) -> None:
    """Count what cannot be read: of a file whose rows are known, the share of those that are left."""
    size = records.file.size_bytes
    lost = size if not row else size * (total - row) // total if total else 0
    words = f"{str(error).splitlines()[0] if str(error) else type(error).__name__}, after {row} rows; fetch it again"
    records.skip_rest(Reason.DAMAGED, words, lost)
