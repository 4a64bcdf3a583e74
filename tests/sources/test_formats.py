"""What names and first bytes say of a file, and what is one document in it; on real text where it is there."""

import json
from pathlib import Path

import pytest

from peer.sources.documents import Compression, DocumentUnit, Form
from peer.sources.formats import form_of_json, is_about, is_packed, kind_of, may_be_sniffed, sniffed, stem_of, unit_of

SHARED = Path("../shared/data")  # real text, beside the repository
PROSE = (
    "It was in July, and the speaker was well known to all who came to her house in the evening. She had had a cough "
    "for some days, and so she wrote notes in French and sent them by a servant in red, all alike and all polite. "
)


@pytest.mark.parametrize(
    ("name", "form", "compression"),
    [
        ("a.txt", "text", None),
        ("A.TXT", "text", None),
        ("a.b.md.gz", "text", "gzip"),
        ("train-00000-of-00042.parquet", "parquet", None),
        ("part-0003.jsonl.zst", "json_lines", "zstd"),
        ("a.ndjson.bz2", "json_lines", "bz2"),
        ("a.csv.xz", "csv", "xz"),
        ("page.xhtml", "html", None),
        ("main.c", "code", None),
        ("main.c.gz", "code", "gzip"),
        ("corpus.gz", None, "gzip"),
        (".txt", None, None),
        ("notes.docx", None, None),
        ("notes", None, None),
    ],
)
def test_a_name_says_what_is_in_a_file(name: str, form: Form | None, compression: Compression | None) -> None:
    assert kind_of(name, (".c",)) == (form, compression)


def test_names_without_what_they_say() -> None:
    names = {"a.txt": "a", "a.b.jsonl.gz": "a.b", "corpus.gz": "corpus", "part-00000": "part-00000", "x.zip": "x"}
    assert {name: stem_of(name) for name in names} == names
    assert is_packed("a.tar.gz") and is_packed("a.tgz") and not is_packed("target.txt")
    for name in ("part-00000", "part-r-00001", "wiki_00", "51060"):
        assert may_be_sniffed(name, None)
    assert may_be_sniffed("corpus.gz", "gzip")
    assert not may_be_sniffed("Makefile", None) and not may_be_sniffed("a.tar.gz", "gzip")


def test_what_is_about_the_text_is_none() -> None:
    for name in (
        "README.md",
        "README",
        "readme.txt",
        "LICENSE",
        "LICENCE.txt",
        "COPYING",
        "CITATION.cff",
        "data_card.md",
    ):
        assert is_about(name, kind_of(name).form), name
    for name in ("readers.txt", "license_texts.jsonl", "citation.parquet", "unreadme.txt", "Changelogs of war.txt"):
        assert not is_about(name, kind_of(name).form), name
    assert is_about("dataset_info.json", "json")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('[{"text": "a"}]', "json"),
        ('{"text": "a"}', None),  # no line end: more must be read, or there is only one
        ('{"text": "a"}\n', "json"),
        ('{"text": "a"}\n{"text": "b"}\n', "json_lines"),
        ('{"text": "a"}\r\n\r\n{"text": "b', "json_lines"),
        ('{\n  "data": [\n {"a": {}\n}', "json"),
        ('\ufeff{"text": "a"}\n{', "json_lines"),
        ("", "json"),
    ],
)
def test_json_is_told_from_json_lines(text: str, form: Form | None) -> None:
    assert form_of_json(text) == form


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"a": 1}\n{"a": 2}\n', "json_lines"),
        ('[{"a": 1}]', "json"),
        ("<!DOCTYPE html>\n<html>", "html"),
        (PROSE, "text"),
        ("[Chorus]\nla la la\n", "text"),
        ("a,b\n1,2\n3,4\n", None),  # text or a table: its name must say
        ("a\tb\n1\t2\n", None),
    ],
)
def test_what_has_no_name_shows_what_it_is_or_is_not_guessed(text: str, form: Form | None) -> None:
    assert sniffed(text.encode(), text) == form
    assert sniffed(b"PAR1...", None) == "parquet" and sniffed(b"\x89PNG", None) is None
    assert sniffed(b"a.txt".ljust(257, b"\0") + b"ustar", "a") is None


REAL: list[tuple[str, DocumentUnit]] = [
    (f"lm/{name}/train.txt", "paragraph")
    for name in (
        *("bible", "cli_help", "dialogue", "history_zh", "law_de", "law_en", "novel", "poetry_zh", "science"),
        *("shakespeare", "tech_pep", "wiki"),
    )
]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the texts beside the repository")
@pytest.mark.parametrize(("name", "unit"), REAL)
def test_real_text_is_in_paragraphs(name: str, unit: DocumentUnit) -> None:
    with (SHARED / name).open("rb") as file:
        head = file.read(1 << 16).decode(errors="ignore")
    assert unit_of([head]) == unit
    assert unit_of([head[:8000], head[20_000:28_000]]) == unit


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the texts beside the repository")
@pytest.mark.parametrize("task", ["mt_en_de", "mt_en_zh", "qa_trivia_en", "mt_classical_modern_zh"])
@pytest.mark.parametrize("field", ["input", "target"])
def test_real_sentences_one_a_line_are_told(task: str, field: str) -> None:
    with (SHARED / "tasks" / task / "train.jsonl").open() as file:
        lines = [json.loads(line)[field].replace("\n", " ") for line, _ in zip(file, range(500), strict=False)]
    assert unit_of(["\n".join(lines)[: 1 << 16]]) == "line"
    assert unit_of(["\n".join(lines) + "\n"] * 3, 3, 1 << 20) == "line"


def wrapped(width: int) -> str:
    lines, line = [], ""
    for word in (PROSE * 40).split():
        if len(line) + len(word) >= width:
            lines.append(line)
            line = ""
        line = f"{line} {word}".strip()
    return "\n".join(lines)


def test_prose_wrapped_by_hand_is_no_list_of_documents() -> None:
    for width in (60, 72, 80):
        assert unit_of([wrapped(width)]) == "file"
        assert unit_of([wrapped(width) + "\n\n" + wrapped(width)]) in ("paragraph", "file")


def test_small_files_are_a_document_each() -> None:
    lines = "\n".join(f"Line {number} says something of its own." for number in range(100))
    assert unit_of([lines + "\n\n" + lines] * 8, 300, 5000) == "file"
    assert unit_of([lines] * 8, 300, 1 << 20) == "line"
    assert unit_of(["\n".join(lines.split("\n")[:20])] * 6, 6, 900) == "file"
    assert unit_of([lines] * 3, 3, 5000) == "line"


def test_what_says_little_is_one_document() -> None:
    assert unit_of(["only one passage"]) == "file"
    assert unit_of(["word " * 10_000]) == "file"
    assert unit_of([]) == "paragraph"
    assert unit_of(["a\n\nb"]) == "paragraph"
    assert unit_of(["a\n" * 3 + "\n"] * 2) == "file"  # where one file ends and the next begins is no blank line
