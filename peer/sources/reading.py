"""Reads a file of any form as pieces of documents.

What is wrong with a record, a line or a file is counted and the rest goes on. Only a file that was named by itself and
gives nothing at all is an error. How each form is read has a module: `text`, `pages`, `json_lines`, `json_files`,
`csv_tables` and `columnar`; the last four give their records to `records`, which asks `fields` what of them counts.
"""

from collections.abc import Iterator

from configs.errors import DataError
from peer.sources.columnar import read_arrow, read_parquet
from peer.sources.csv_tables import read_csv
from peer.sources.documents import Piece, Reading, SourceFile
from peer.sources.json_files import read_json
from peer.sources.json_lines import read_json_lines
from peer.sources.pages import read_page
from peer.sources.records import Records
from peer.sources.skips import Reason, SkipError, Skips
from peer.sources.streams import DamagedError
from peer.sources.text import read_text

# What to do about a named file of which nothing could be used; elsewhere the place of a skip says it.
_REMEDIES = {
    Reason.UNREADABLE: "check the file and its permissions",
    Reason.ENCODING: "say its encoding with --encoding, or convert it to UTF-8",
    Reason.TYPE: "give a file of text",
    Reason.BLANK: "fill it or leave it out",
}
_RECORDS = {
    "json_lines": read_json_lines,
    "json": read_json,
    "csv": read_csv,
    "tsv": read_csv,
    "parquet": read_parquet,
    "arrow": read_arrow,
}


def read(file: SourceFile, how: Reading, skips: Skips, since: int = 0) -> Iterator[Piece]:
    """Yield the pieces of a file, from the one whose mark is `since`; count in `skips` what cannot be used.

    Memory is bounded whatever is in the file; only a cell of Parquet or Arrow is held as a whole. Raises SkipError: the
    file was named by itself, it is read from its beginning, and nothing in it can be used.
    """
    own = Skips()
    is_used = False
    try:
        for piece in _pieces(file, how, own, since):
            is_used = True
            yield piece
    except DamagedError as error:
        own.add(Reason.DAMAGED, f"{file.url}: {error}", file.size_bytes)
    except (OSError, DataError) as error:
        words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        own.add(Reason.UNREADABLE, f"{file.url}: {words}", file.size_bytes)
    finally:
        if not is_used and not own.by_reason and not since:
            own.add(Reason.BLANK, f"{file.url}: holds no text", 0)
        skips.take(own)
    if file.is_named and not is_used and not since:
        raise _nothing(own)


def _pieces(file: SourceFile, how: Reading, skips: Skips, since: int) -> Iterator[Piece]:
    if file.form in ("text", "code"):
        return read_text(file, how, skips, since)
    if file.form == "html":
        return read_page(file, how, skips, since)
    return _RECORDS[file.form](Records(file, how, skips, since))


def _nothing(skips: Skips) -> SkipError:
    """Return the error that tells what was wrong first, bad things before those that were left out on purpose."""
    reason, skipped = min(skips.by_reason.items(), key=lambda each: not each[0].is_bad)
    remedy = _REMEDIES.get(reason, "")
    place = skipped.places[0]
    return SkipError(f"{place}; {remedy}" if remedy and ";" not in place else place)
