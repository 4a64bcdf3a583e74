"""Stand-in."""

from collections.abc import Iterator
from pathlib import Path

from peer.prepare import old_documents
from peer.prepare.documents import Content, Piece, Reading, SourceFile, cut_text
from peer.prepare.skips import Skips


def read(file: SourceFile, how: Reading, skips: Skips, since: int = 0) -> Iterator[Piece]:
    """Read."""
    columns = old_documents.Columns(how.text_column or "text", how.domain_column)
    mark = 0
    for domain, content in old_documents.read_documents(Path(file.url), columns):
        cut: list[Content] = [*cut_text(content, how.piece_characters)] if isinstance(content, str) else [content]
        for at, each in enumerate(cut):
            if mark >= since:
                yield Piece(each, mark, domain, is_last=at == len(cut) - 1)
            mark += 1
