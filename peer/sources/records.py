"""Turns the records of a file into pieces and counts those that cannot be used.

Which of a record's columns count is `fields.py`'s. JSON lines, JSON files, tables and records that are too long to be
held in memory are read by modules of their own, which give what they read to `Records`.
"""

import codecs
import json
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from peer.corpus.examples import Example
from peer.sources.documents import Piece, Reading, SourceFile, Split, cut_text
from peer.sources.fields import Kind, kind_of
from peer.sources.skips import Reason, Skips
from peer.sources.values import Refusal

LONG_RECORD = 4 << 20  # bytes of a record, at most, that is held in memory
PIECES = 1 << 20  # of one record, at most: where marks are ordinals, record n has those from n * PIECES


class Records:
    """Turns the records of one file into pieces, and counts those that cannot be used.

    The first that can be used says of which kind all are. What lies before the mark `since` is not counted.
    """

    def __init__(self, file: SourceFile, how: Reading, skips: Skips, since: int) -> None:
        self.file, self.how, self.since = file, how, since
        self.kind: Kind | None = None
        self.split: Split | None = None  # of what is read now, where no column says it
        self._skips = skips

    def is_before(self, end: int) -> bool:
        """Return whether a record whose marks lie below `end` need not be looked at: the kind is known."""
        return self.kind is not None and end <= self.since

    def pieces(self, record: object, mark: int, size_bytes: int, where: str) -> Iterator[Piece]:
        """Yield the pieces of a record whose first one has this mark; `where` it is, such as 'line 3'."""
        kind = self.kind
        if kind is None:
            found = kind_of(record, self.how)
            if isinstance(found, Refusal):
                self.skip(found, mark, size_bytes, where)
                return
            kind = found
        read = kind.read(record)
        if isinstance(read, Refusal):
            self.skip(read, mark, size_bytes, where)
            return
        self.kind = kind
        content, domain, split = read.content, read.domain, read.split or self.split
        if isinstance(content, Example) or len(content) <= self.how.piece_characters:
            if mark >= self.since:
                yield Piece(content, mark, domain, split)
            return
        passages = list(cut_text(content, self.how.piece_characters))
        for number, passage in enumerate(passages, start=1):
            if mark + number > self.since:
                yield Piece(passage, mark + number - 1, domain, split, number == len(passages))

    def skip(self, refusal: Refusal, mark: int, size_bytes: int, where: str) -> None:
        """Count a record that is not used; `size_bytes` is that of all of it."""
        if mark >= self.since:
            reason, words, text_bytes = refusal
            self._skips.add(
                reason, f"{self.file.url}, {where}: {words}", size_bytes if text_bytes is None else text_bytes
            )

    def skip_rest(self, reason: Reason, words: str, size_bytes: int) -> None:
        """Count what follows of a file that cannot be read on."""
        self._skips.add(reason, f"{self.file.url}: {words}", size_bytes)


def parse(data: bytes) -> object:
    """Return what JSON says, or why it cannot be read."""
    try:
        # Files that are put together have marks between them.
        return json.loads(data.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        return Refusal(
            Reason.ENCODING, f"is not UTF-8 at its byte {error.start}; convert it or remove it", len(data.strip())
        )
    except (ValueError, RecursionError) as error:
        return Refusal(Reason.BROKEN, f"broken JSON ({error}); repair or remove it", len(data.strip()))


def open_spool() -> BinaryIO:
    """Open a temporary file that nobody else sees."""
    return cast(BinaryIO, tempfile.TemporaryFile())
