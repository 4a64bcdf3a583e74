"""What a folder holds: each file is read as what it is, or counted; what is named by itself is read or an error."""

import bz2
import gc
import gzip
import json
import lzma
import os
import shutil
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from folders import RECORDS, TEXT, UMLAUTS, counts, fill, find, refusal

from peer.sources.skips import Reason, SkipError
from peer.sources.streams import open_bytes


def test_all_kinds_are_found_compressed_or_not(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "b.md.gz", "c.rst.bz2", "d.jsonl.xz", "e.ndjson", "f.html", "g.py", "h.txt.xz")
    fill(tmp_path, "i.csv", content="text\nfish\n")
    fill(tmp_path, "j.json", content='[{"text": "a"}]')
    fill(tmp_path, "k.json", content=RECORDS)
    fill(tmp_path, "l.tsv.gz", content="text\tkind\nfish\tx\n")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "m.parquet")
    files, skips = find(tmp_path, extensions=("py",))
    assert [(file.url[-5:], file.form, file.compression) for file in files] == [
        ("a.txt", "text", None),
        ("md.gz", "text", "gzip"),
        ("t.bz2", "text", "bz2"),
        ("nl.xz", "json_lines", "xz"),
        ("djson", "json_lines", None),
        (".html", "html", None),
        ("/g.py", "code", None),
        ("xt.xz", "text", "xz"),
        ("i.csv", "csv", None),
        (".json", "json", None),
        (".json", "json_lines", None),
        ("sv.gz", "tsv", "gzip"),
        ("rquet", "parquet", None),
    ]
    assert counts(skips) == {} and {file.domain for file in files} == {tmp_path.name[:64]}
    assert all(file.size_bytes == Path(file.url).stat().st_size and not file.is_named for file in files)


def test_everything_else_in_a_folder_is_counted_by_reason(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "README.md", "LICENSE", ".gitattributes", ".git/config", "sub/__MACOSX/a.txt")
    fill(tmp_path, "logo.png", "notes.docx", "old.tar.gz", "table.xlsx")
    fill(tmp_path, "empty.txt", "blank.md", "blank.txt.gz", content="")
    fill(tmp_path, "blank.txt", content=" \n\n\t\n")
    fill(tmp_path, "cp1252.txt", content=UMLAUTS)
    fill(tmp_path, "picture.txt", content=b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8)
    fill(
        tmp_path, "pointer.parquet", content="version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    )
    fill(tmp_path, "cut.zip", content=b"PK\x03\x04 and no more")
    fill(tmp_path, "broken.txt.gz", content="x")
    (tmp_path / "broken.txt.gz").write_bytes(b"\x1f\x8b\x08\x00 and no more")
    (tmp_path / "nowhere.txt").symlink_to(tmp_path / "gone.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    files, skips = find(tmp_path)
    assert [Path(file.url).name for file in files] == ["a.txt"]
    assert counts(skips) == {
        Reason.ABOUT: 2,
        Reason.HIDDEN: 3,
        Reason.KIND: 5,
        Reason.BLANK: 4,
        Reason.ENCODING: 2,
        Reason.UNREADABLE: 2,
        Reason.DAMAGED: 2,
    }
    assert skips.by_reason[Reason.ABOUT].size_bytes == 2 * len(TEXT)
    said = " ".join(place for skipped in skips.by_reason.values() for place in skipped.places)
    assert "git lfs pull" in said and "--encoding cp1252" in said and "leads nowhere" in said
    assert str(tmp_path / "notes.docx") in said or str(tmp_path / "logo.png") in said


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.docx", b"PK\x03\x04\0", "its name must end in .txt"),
        ("notes.log", b"plain text", "--ext .log"),
        ("a.tar.gz", b"\x1f\x8b", "unpack it"),
        ("a.txt", b"", "holds no text"),
        ("a.txt", b" \n\n", "holds no text"),
        ("a.txt.gz", gzip.compress(b"\n", mtime=0), "holds no text"),
        ("a.txt", UMLAUTS, "--encoding cp1252"),
        ("a.zip", b"PK", "cannot be unpacked"),
        ("a.txt.gz", b"\xfd\x00\x00\x81\xff", "is no gzip file"),
        ("Makefile", bytes(range(256)), "does not show what it holds"),
        ("corpus.gz", gzip.compress(b"a,b\n1,2\n3,4\n", mtime=0), "NAME.csv"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_what_is_named_by_itself_and_cannot_be_used_is_an_error(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    fill(tmp_path, "good.txt")
    with pytest.raises(SkipError) as caught:
        find(tmp_path / "good.txt", path)
    assert words in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "no text was given" in refusal()
    assert "no such file or folder" in refusal(tmp_path / "nowhere.txt")
    assert "no such file or folder" in refusal("memory://nowhere/at/all")
    (tmp_path / "empty").mkdir()
    assert "holds no text; it needs files that end in .txt" in refusal(tmp_path / "empty")
    fill(tmp_path / "odd", "a.xyz")
    assert "a.xyz is of a kind that holds no text" in refusal(tmp_path / "odd")
    fill(tmp_path / "blank", "a.txt", content="\n")
    assert "a.txt is empty" in refusal(tmp_path / "blank")
    assert "no such encoding" in refusal(fill(tmp_path / "good", "a.txt"), encoding="klingon")


def test_the_advice_works(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(UMLAUTS)
    fill(tmp_path, "notes.log", "corpus.txt.gz")
    assert find(tmp_path / "a.txt", encoding="cp1252")[0][0].encoding == "cp1252"
    assert find(tmp_path / "notes.log", extensions=(".log",))[0][0].form == "code"
    fill(tmp_path, "utf8.txt", content="Grüße")
    found = {Path(file.url).name: file.encoding for file in find(tmp_path, encoding="cp1252")[0]}
    assert found["utf8.txt"] == "utf-8" and found["a.txt"] == "cp1252"
    assert "is not in latin-1" in refusal(
        fill(tmp_path, "q.txt", content="“”".encode("cp1252")) / "q.txt", encoding="latin-1"
    )


def test_a_given_encoding_does_not_spoil_unicode_that_begins_plainly(tmp_path: Path) -> None:
    plain = "plain text, line after line\n" * 20_000
    (tmp_path / "a.txt").write_bytes((plain + "Grüße").encode() + b"\n")
    (tmp_path / "b.txt").write_bytes(plain.encode() + UMLAUTS)
    (tmp_path / "c.txt").write_bytes(plain.encode())
    files, _ = find(tmp_path, encoding="cp1252")
    assert [file.encoding for file in files] == ["utf-8", "cp1252", "cp1252"]


def test_contents_count_where_names_lie(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(RECORDS.encode()))
    (tmp_path / "b.txt.gz").write_bytes(TEXT.encode())
    (tmp_path / "c.txt").write_bytes(bz2.compress(os.urandom(300_000).hex().encode()))
    (tmp_path / "corpus.gz").write_bytes(gzip.compress(RECORDS.encode()))
    (tmp_path / "part-00000").write_bytes(TEXT.encode())
    (tmp_path / "part-00001.xz").write_bytes(lzma.compress(b'[{"text": "a"}]'))
    found = {Path(file.url).name: (file.form, file.compression) for file in find(tmp_path)[0]}
    assert found == {
        "a.jsonl": ("json_lines", "gzip"),
        "b.txt.gz": ("text", None),
        "c.txt": ("text", "bz2"),
        "corpus.gz": ("json_lines", "gzip"),
        "part-00000": ("text", None),
        "part-00001.xz": ("json", "xz"),
    }


def test_json_with_long_lines_is_told_apart(tmp_path: Path) -> None:
    long = json.dumps({"text": "x" * 200_000})
    fill(tmp_path, "a.json", content=f"{long}\n{long}\n")
    fill(tmp_path, "b.json", content=long)
    fill(tmp_path, "c.json.gz", content=f"{long}\n{long}\n")
    assert [file.form for file in find(tmp_path)[0]] == ["json_lines", "json", "json_lines"]


def test_the_unit_is_that_of_all_files_of_a_domain(tmp_path: Path) -> None:
    lines = "\n".join(f"Sentence {number} says something of its own, whatever it is." for number in range(200))
    fill(tmp_path / "t", "lines/a.txt", "lines/b.txt", content=lines)
    fill(tmp_path / "t", "paragraphs/a.txt", content="\n\n".join([TEXT] * 50))
    fill(tmp_path / "t", *(f"files/{number}.txt" for number in range(25)))
    files, _ = find(tmp_path / "t")
    assert {(file.domain, file.unit) for file in files} == {("lines", "line"), ("paragraphs", "paragraph")} | {
        ("files", "file")
    }
    assert {file.unit for file in find(tmp_path / "t", unit="paragraph")[0]} == {"paragraph"}


def test_a_domain_column_needs_columns(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "b.txt")
    assert "use JSON lines or Parquet" in refusal(tmp_path / "b.txt", has_domain_column=True)
    files, skips = find(tmp_path, has_domain_column=True)
    assert len(files) == 1 and counts(skips) == {Reason.COLUMN: 1}


def test_very_many_small_files_cost_little(tmp_path: Path) -> None:
    for number in range(4000):
        folder = tmp_path / str(number // 500)
        folder.mkdir(exist_ok=True)
        (folder / f"article-{number}.txt").write_text(TEXT * 100)
    find(tmp_path)
    gc.collect()
    gc.freeze()  # what other tests have left is not looked through for garbage on this one's account
    try:
        begun = time.process_time()
        for _ in range(10):
            read = [path.read_bytes() for path in tmp_path.rglob("*.txt")]
        reading_s, begun = (time.process_time() - begun) / 10, time.process_time()
        files, _ = find(tmp_path)
        finding_s = time.process_time() - begun
    finally:
        gc.unfreeze()
    assert len(files) == len(read) == 4000
    assert finding_s < 8 * reading_s, f"{finding_s:.2f} s to find what takes {reading_s:.2f} s to read"
    shutil.rmtree(tmp_path)


def test_tables_are_known_by_their_first_bytes_too(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"row {number}" for number in range(2000)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    raw = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(gzip.compress(raw))
    (tmp_path / "c.parquet.gz").write_bytes(gzip.compress(raw))
    (tmp_path / "d.parquet.gz").write_bytes(raw)
    (tmp_path / "part-00001").write_bytes(raw)
    files, skips = find(tmp_path)
    assert [(file.form, file.compression) for file in files] == [
        ("parquet", None),
        ("parquet", "gzip"),
        ("parquet", "gzip"),
        ("parquet", None),
        ("parquet", None),
    ]
    for file in files:
        with open_bytes(file) as stream:
            assert pyarrow.parquet.read_table(stream) == table
    assert counts(skips) == {}


def test_names_that_are_no_unicode_are_read_and_shown(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    with open(odd, "wb") as file:  # noqa: PTH123
        file.write(TEXT.encode())
    with open(odd.replace(b".txt", b".docx"), "wb") as file:  # noqa: PTH123
        file.write(b"x")
    files, skips = find(tmp_path)
    with open_bytes(files[0]) as stream:
        assert stream.read() == TEXT.encode()
    assert skips.by_reason[Reason.KIND].places[0].isprintable()
