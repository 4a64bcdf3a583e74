"""Writes files that need a library: tables, saved datasets, archives, links, what lies in memory."""

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
from odd_entries import Write, put

INFO = json.dumps({"features": {"text": {"dtype": "string", "_type": "Value"}}})


def table(rows: Iterable[Sequence[str]], delimiter: str = ",", ends: str = "\r\n") -> str:
    """Return rows as Python writes CSV."""
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=ends).writerows(rows)
    return out.getvalue()


def parquet(name: str, columns: dict[str, Any], **options: Any) -> Write:
    """Return what writes a table."""

    def write(place: Path) -> None:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)

    return write


def table_of(texts: Sequence[str], rows: int = 100) -> bytes:
    """Return a Parquet file, not compressed inside."""
    sink = io.BytesIO()
    columns = pyarrow.table({"text": list(texts)})
    pyarrow.parquet.write_table(columns, sink, row_group_size=rows, compression="none", use_dictionary=False)
    return sink.getvalue()


def spoilt(raw: bytes, at: int, length: int = 64) -> bytes:
    """Return a file with other bytes in its middle."""
    return raw[:at] + b"\xff" * length + raw[at + length :]


def saved(name: str, texts: Sequence[str], shards: int = 1) -> Write:
    """Return what writes a dataset as `save_to_disk` of the library `datasets` does."""

    def write(place: Path) -> None:
        names = [f"data-{at:05}-of-{shards:05}.arrow" for at in range(shards)]
        for at, file in enumerate(names):
            part = pyarrow.table({"text": list(texts[at::shards]), "n": list(range(len(texts[at::shards])))})
            path = put(place / name / file, b"")
            with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, part.schema) as stream:
                stream.write_table(part, max_chunksize=7)
        put(place / name / "state.json", state_of(names))
        put(place / name / "dataset_info.json", INFO)

    return write


def state_of(names: Sequence[str]) -> str:
    """Return what a saved dataset has in its state.json."""
    return json.dumps({"_data_files": [{"filename": file} for file in names], "_fingerprint": "1f", "_split": None})


def archive(members: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return out.getvalue()


def linked(link: str, target: str) -> Write:
    """Return what makes a symbolic link."""

    def write(place: Path) -> None:
        (place / link).parent.mkdir(parents=True, exist_ok=True)
        (place / link).symlink_to(target)

    return write


def in_memory(files: Mapping[str, str | bytes]) -> Write:
    """Return what writes files to the file system of fsspec that lies in memory."""

    def write(place: Path) -> None:
        memory = fsspec.filesystem("memory")
        if memory.exists("/odd"):
            memory.rm("/odd", recursive=True)
        for name, content in files.items():
            memory.pipe(f"/odd/{name}", content.encode() if isinstance(content, str) else content)

    return write
