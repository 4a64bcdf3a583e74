"""Stand-in."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peer.prepare import old_documents
from peer.prepare.documents import DocumentUnit, SourceFile
from peer.prepare.skips import Skips


@dataclass(frozen=True)
class Listing:
    """Options."""

    extensions: tuple[str, ...] = ()
    heldout: tuple[str, ...] = ()
    unit: DocumentUnit | None = None
    encoding: str | None = None
    has_domain_column: bool = False
    may_share_names: bool = False


def find_files(sources: Sequence[str], options: Listing, skips: Skips) -> list[SourceFile]:
    """Find."""
    found = old_documents.find_files([Path(source) for source in sources], options.may_share_names)
    return [
        SourceFile(
            str(path),
            path.stat().st_size,
            "json_lines" if "json" in path.suffix else "parquet" if "parq" in path.suffix else "text",
            name,
        )
        for name, path in found
    ]
