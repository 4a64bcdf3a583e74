"""Folders to find text in, and what is found."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest

from configs.errors import DataError
from peer.sources.documents import SourceFile
from peer.sources.listing import Listing, find_files
from peer.sources.skips import Reason, Skips

TEXT = "A text that fills a file.\n\nWith a second paragraph.\n"
RECORDS = '{"text": "one"}\n{"text": "two"}\n'
UMLAUTS = "Die Bäume grünen, und die Straße führt über die Höhe.\n".encode("cp1252")


def fill(root: Path, *names: str, content: str | bytes | None = None) -> Path:
    """Make files with what their names say they hold."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = content if content is not None else RECORDS if ".json" in name else TEXT
        raw = raw.encode() if isinstance(raw, str) else raw
        packs = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
        path.write_bytes(packs.get(path.suffix, bytes)(raw))
    return root


def find(*sources: Path | str, **options: object) -> tuple[list[SourceFile], Skips]:
    skips = Skips()
    return find_files([str(source) for source in sources], Listing(**options), skips), skips  # type: ignore[arg-type]


def layout(*sources: Path | str, **options: object) -> dict[str, str]:
    """Return file name → domain, and its split if it has one."""
    files, _ = find(*sources, **options)
    return {file.url.rpartition("/")[2]: f"{file.domain} {file.split or ''}".strip() for file in files}


def refusal(*sources: Path | str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        find(*sources, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def counts(skips: Skips) -> dict[Reason, int]:
    return {reason: skipped.count for reason, skipped in skips.by_reason.items()}
