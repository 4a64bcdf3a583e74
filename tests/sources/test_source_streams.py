"""Streams: all that is in a file comes out, and where it is damaged, all that stands before."""

import bz2
import gzip
import importlib
import io
import lzma
import random
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow
import pyarrow.parquet
import pytest

from configs.errors import ConfigError
from peer.corpus.stores import filesystem_of
from peer.sources.documents import Compression, Form, SourceFile
from peer.sources.streams import (
    BLOCK_BYTES,
    DamagedError,
    open_bytes,
)

zstd = importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")

Compress = Callable[[bytes], bytes]
COMPRESS: dict[Compression, Compress] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda text: zstd.compress(text, options={int(zstd.CompressionParameter.checksum_flag): 1}),
}
TEXT = "".join(f"line {number} of a text that is longer than a block, grüße 海\n" for number in range(20_000)).encode()


def source(url: str | Path, compression: Compression | None = None, form: Form = "text") -> SourceFile:
    return SourceFile(str(url), 0, form, "domain", compression)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read_until_error(file: SourceFile, size: int) -> tuple[bytes, str]:
    """Return what can be read in parts of `size`, and what is then said."""
    parts = []
    with pytest.raises(DamagedError) as caught, open_bytes(file) as stream:
        while part := stream.read(size):
            parts.append(part)
    return b"".join(parts), str(caught.value)


@pytest.mark.parametrize("compression", COMPRESS)
def test_all_members_of_a_compressed_file_are_read(tmp_path: Path, compression: Compression) -> None:
    pack = COMPRESS[compression]
    cut = len(TEXT) // 3
    packed = pack(TEXT[:cut]) + pack(b"") + pack(TEXT[cut:])
    file = source(written(tmp_path / "text", packed), compression)
    with open_bytes(file) as stream:
        assert stream.read() == TEXT
    with open_bytes(file) as stream:
        assert list(stream) == TEXT.splitlines(keepends=True)
    with open_bytes(file) as stream:
        assert stream.readline(10) + stream.read(BLOCK_BYTES) == TEXT[: 10 + BLOCK_BYTES]
        assert io.TextIOWrapper(stream, encoding="utf-8").read().endswith("grüße 海\n")  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", COMPRESS)
def test_of_a_cut_off_file_all_that_is_there_is_read_then_it_is_said(tmp_path: Path, compression: Compression) -> None:
    noise = random.Random(1)
    text = bytes(noise.choices(b"abcdefgh \n", k=2_000_000))
    packed = COMPRESS[compression](text)
    file = source(written(tmp_path / "text", packed[: len(packed) * 2 // 3]), compression)
    for size in (1 << 10, BLOCK_BYTES, 1 << 30):
        begun, said = read_until_error(file, size)
        assert text.startswith(begun) and len(begun) > len(text) // 3
        assert "cut off after" in said
    lines: list[bytes] = []
    with pytest.raises(DamagedError), open_bytes(file) as stream:
        for line in stream:
            lines.append(line)
    assert b"".join(lines) == begun
    with pytest.raises(DamagedError), open_bytes(file) as stream:
        stream.read()  # that half of it is all would be a lie


@pytest.mark.parametrize("compression", COMPRESS)
def test_damage_is_found(tmp_path: Path, compression: Compression) -> None:
    packed = bytearray(COMPRESS[compression](random.Random(1).randbytes(300_000)))
    packed[len(packed) // 2] ^= 0xFF
    begun, said = read_until_error(source(written(tmp_path / "a", bytes(packed)), compression), 1 << 12)
    assert len(begun) <= 300_000 and ("damaged" in said or "cut off" in said)
    begun, said = read_until_error(
        source(written(tmp_path / "b", COMPRESS[compression](b"x") + b"junk"), compression), 9
    )
    assert begun == b"x"


def test_padding_between_members_is_passed_over(tmp_path: Path) -> None:
    packed = gzip.compress(b"one ") + b"\0" * 512 + gzip.compress(b"two") + b"\0" * 1024
    with open_bytes(source(written(tmp_path / "a.gz", packed), "gzip")) as stream:
        assert stream.read() == b"one two"


@pytest.mark.parametrize("compression", COMPRESS)
def test_what_expands_a_thousand_times_is_read_bit_by_bit(tmp_path: Path, compression: Compression) -> None:
    file = source(written(tmp_path / "zeros", COMPRESS[compression](b"\0" * (32 << 20))), compression)
    tracemalloc.start()
    with open_bytes(file) as stream:
        size = sum(len(part) for part in iter(lambda: stream.read(BLOCK_BYTES), b""))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 32 << 20 and peak < 16 << 20


def test_members_of_an_archive_are_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/a.txt", TEXT)
        archive.writestr("b.jsonl.gz", gzip.compress(TEXT))
    with open_bytes(source(f"zip://deep/a.txt::{tmp_path}/a.zip")) as stream:
        assert stream.read(BLOCK_BYTES) + stream.read() == TEXT
    with open_bytes(source(f"zip://b.jsonl.gz::{tmp_path}/a.zip", "gzip")) as stream:
        assert stream.read() == TEXT
    with pytest.raises(FileNotFoundError), open_bytes(source(f"zip://c.txt::{tmp_path}/a.zip")):
        pass
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:  # the same path, another archive
        archive.writestr("c.txt", b"new")
    with open_bytes(source(f"zip://c.txt::{tmp_path}/a.zip")) as stream:
        assert stream.read() == b"new"


def test_a_damaged_member_is_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", b"x" * 1000)
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    raw[500] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(raw)
    assert "damaged" in read_until_error(source(f"zip://a.txt::{tmp_path}/a.zip"), 100)[1]
    (tmp_path / "b.zip").write_bytes(raw[:700])
    with pytest.raises(DamagedError, match="cannot be unpacked"), open_bytes(source(f"zip://a.txt::{tmp_path}/b.zip")):
        pass


def test_tables_can_be_sought_in_even_if_they_are_compressed(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"row {number}" for number in range(100)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    packed = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(packed))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.parquet", packed)
    for url, compression in (
        ("a.parquet", None),
        ("a.parquet.gz", "gzip"),
        (f"zip://a.parquet::{tmp_path}/a.zip", None),
    ):
        path = url if "://" in url else str(tmp_path / url)
        with open_bytes(source(path, compression, "parquet")) as stream:  # type: ignore[arg-type]
            assert pyarrow.parquet.read_table(stream) == table


def test_remote_files_are_read_through_fsspec() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/streams/a.txt.gz", gzip.compress(TEXT))
    with open_bytes(source("memory://streams/a.txt.gz", "gzip")) as stream:
        assert stream.read() == TEXT
    with pytest.raises(ConfigError, match="is no place that is known"):
        filesystem_of("nothing://a")
