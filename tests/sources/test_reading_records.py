"""JSON lines, JSON, CSV, Parquet and Arrow as pieces: the same from any mark, and what is wrong counted, not raised."""

import gzip
import io
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

import peer.sources.columnar as columnar
import peer.sources.csv_tables as csv_tables
from peer.corpus.examples import Example
from peer.sources.csv_tables import delimiter_of
from peer.sources.documents import Form, Piece, Reading, SourceFile
from peer.sources.reading import read
from peer.sources.skips import Reason, SkipError, Skips

LONG = "a long text of many words " * 4000  # several pieces
TEXTS = ["first", "second é", LONG, "", "fifth", "海" * 20_000 + " end", "last"]


def source(path: Path, data: bytes, form: Form, **more: object) -> SourceFile:
    path.write_bytes(data)
    return SourceFile(str(path), len(data), form, "d", **more)  # type: ignore[arg-type]


def pieces(file: SourceFile, how: Reading = Reading(), since: int = 0) -> tuple[list[Piece], Skips]:  # noqa: B008
    skips = Skips()
    return list(read(file, how, skips, since)), skips


def contents(file: SourceFile, how: Reading = Reading()) -> list[object]:  # noqa: B008
    return [piece.content for piece in pieces(file, how)[0]]


def documents(found: list[Piece]) -> list[str]:
    whole, document = [], ""
    for piece in found:
        document += str(piece.content)
        if piece.is_last:
            whole.append(document)
            document = ""
    assert not document
    return whole


def json_lines(records: list[Any]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def parquet(rows: list[dict[str, Any]], **more: Any) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out, **more)
    return out.getvalue()


def arrow(rows: list[dict[str, Any]], is_stream: bool = True) -> bytes:
    table, out = pyarrow.Table.from_pylist(rows), io.BytesIO()
    kind = pyarrow.ipc.new_stream if is_stream else pyarrow.ipc.new_file
    with kind(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return out.getvalue()


def csv_of(rows: list[list[str]], delimiter: str = ",") -> bytes:
    return "\r\n".join(delimiter.join('"' + field.replace('"', '""') + '"' for field in row) for row in rows).encode()


def forms(path: Path) -> Iterator[SourceFile]:
    """Write the same seven texts in every form."""
    rows = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
    table = [["id", "text"], *([str(number), text] for number, text in enumerate(TEXTS))]
    lines = json_lines(rows)
    yield source(path / "a.jsonl", lines, "json_lines")
    yield source(path / "b.jsonl", b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n"), "json_lines")
    yield source(path / "a.jsonl.gz", gzip.compress(lines), "json_lines", compression="gzip")
    yield source(path / "16.jsonl", lines.decode().encode("utf-16"), "json_lines", encoding="utf-16")
    yield source(path / "a.json", json.dumps(rows).encode(), "json")
    yield source(path / "indented.json", json.dumps(rows, indent=2, ensure_ascii=False).encode(), "json")
    yield source(path / "wrapped.json", json.dumps({"version": "1", "data": rows}).encode(), "json")
    yield source(path / "texts.json", json.dumps(TEXTS).encode(), "json")
    yield source(path / "lines.json", lines, "json")
    yield source(path / "a.json.gz", gzip.compress(json.dumps(rows).encode()), "json", compression="gzip")
    yield source(path / "a.csv", csv_of(table), "csv")
    yield source(path / "b.csv", csv_of(table, ";"), "csv")
    yield source(path / "a.tsv", csv_of(table, "\t"), "tsv")
    yield source(path / "a.parquet", parquet(rows), "parquet")
    yield source(path / "b.parquet", parquet(rows, row_group_size=2), "parquet")
    yield source(path / "a.arrow", arrow(rows), "arrow")
    yield source(path / "b.arrow", arrow(rows, is_stream=False), "arrow")


def test_every_form_gives_the_same_documents_and_from_every_mark_the_rest(tmp_path: Path) -> None:
    for file in forms(tmp_path):
        found, skips = pieces(file)
        assert documents(found) == [text for text in TEXTS if text], file.url
        assert {reason: (each.count, each.size_bytes) for reason, each in skips.by_reason.items()} == {
            Reason.BLANK: (1, 0)
        }, file.url
        marks = [piece.mark for piece in found]
        assert marks == sorted(set(marks))
        for number, piece in enumerate(found):
            assert pieces(file, since=piece.mark)[0] == found[number:], (file.url, number)


def test_broken_lines_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = json_lines([{"text": "good"}])
    bad = [b'{"text": "b"\n', b'{"text": "\xe4"}\n', b'{"text": "\\ud800"}\n', b"[1]\n", b'{"body": "abc"}\n', b"\n"]
    file = source(tmp_path / "a.jsonl", good + b"".join(bad) + good + b'{"text": "cut o', "json_lines")
    found, skips = pieces(file)
    assert [piece.content for piece in found] == ["good", "good"]
    counted = {reason: each.count for reason, each in skips.by_reason.items()}
    assert counted == {Reason.BROKEN: 1, Reason.ENCODING: 1, Reason.TYPE: 2, Reason.COLUMN: 1, Reason.DAMAGED: 1}
    assert skips.by_reason[Reason.BROKEN].size_bytes == len(bad[0]) - 1
    assert skips.by_reason[Reason.BROKEN].places[0].startswith(f"{file.url}, line 2: broken JSON")
    assert skips.by_reason[Reason.DAMAGED].size_bytes == len(b'{"text": "cut o')
    assert "cut off" in skips.by_reason[Reason.DAMAGED].places[0]
    sizes = sum(each.size_bytes for each in skips.by_reason.values())
    known = len("\\ud800") - 3 + len('{"text": ""}')  # of one the text is known: it counts, not its line
    assert sizes + known + 2 * len(good.strip()) == sum(len(line.strip()) for line in file_lines(file))


def file_lines(file: SourceFile) -> list[bytes]:
    return Path(file.url).read_bytes().split(b"\n")


def test_a_named_file_that_gives_nothing_says_why(tmp_path: Path) -> None:
    file = source(tmp_path / "a.jsonl", json_lines([{"one": "a", "two": "b"}] * 3), "json_lines", is_named=True)
    with pytest.raises(
        SkipError, match="line 1: which column is the text is not clear; name it with --text-column, one of: one, two"
    ):
        pieces(file)
    assert contents(file, Reading(text_column="two")) == ["b"] * 3
    with pytest.raises(SkipError, match="no column 'three'; the columns are: one, two; name one with --text-column"):
        pieces(file, Reading(text_column="three"))
    with pytest.raises(SkipError, match="line 1: broken JSON"):
        pieces(source(tmp_path / "a.jsonl", b"{\n", "json_lines", is_named=True))
    with pytest.raises(SkipError, match="fetch it again"):
        pieces(source(tmp_path / "a.parquet", b"PAR0", "parquet", is_named=True))
    with pytest.raises(SkipError, match="holds no text; fill it or leave it out"):
        pieces(source(tmp_path / "a.json", b"[]", "json", is_named=True))


def test_the_first_good_record_says_the_kind(tmp_path: Path) -> None:
    records = [
        {"x": 1},
        {"input": "a", "target": "b"},
        {"text": "abc"},
        {"input": "abcd"},
        {"input": "c", "target": "d"},
    ]
    file = source(tmp_path / "a.jsonl", json_lines(records), "json_lines")
    found, skips = pieces(file)
    assert [piece.content for piece in found] == [Example("a", "b", ("b",)), Example("c", "d", ("d",))]
    assert pieces(file, since=found[1].mark)[0] == found[1:]
    assert {reason: each.count for reason, each in skips.by_reason.items()} == {Reason.COLUMN: 2, Reason.INCOMPLETE: 1}


def test_labels_come_with_every_piece(tmp_path: Path) -> None:
    rows = [{"text": LONG, "kind": "sea fish", "split": "dev"}, {"text": "b", "kind": "bird", "split": "train"}]
    how = Reading(domain_column="kind")
    for file in (
        source(tmp_path / "a.jsonl", json_lines(rows), "json_lines"),
        source(tmp_path / "a.parquet", parquet(rows), "parquet"),
    ):
        found, _ = pieces(file, how)
        assert {(piece.domain, piece.split) for piece in found[:-1]} == {("sea-fish", "heldout")}
        assert found[-1][2:4] == ("bird", "train")


def test_squad_and_lists_by_split(tmp_path: Path) -> None:
    squad = {
        "version": "v2.0",
        "data": [
            {
                "title": "t",
                "paragraphs": [
                    {
                        "context": "c",
                        "qas": [{"question": "q", "answers": [{"text": "a"}]}, {"question": "r", "answers": []}],
                    }
                ],
            }
        ],
    }
    file = source(tmp_path / "a.json", json.dumps(squad).encode(), "json")
    found, skips = pieces(file)
    assert [piece.content for piece in found] == [Example("c\n\nq", "a", ("a",))]
    assert skips.by_reason[Reason.BLANK].places[0].endswith("the question has no answer")
    parts = {"train": [{"text": "a"}], "validation": [{"text": "b"}]}
    found, _ = pieces(source(tmp_path / "b.json", json.dumps(parts).encode(), "json"))
    assert [(piece.content, piece.split) for piece in found] == [("a", "train"), ("b", "heldout")]
    large = {"about": "x" * 100, "train": [{"text": "a" * 3000}] * 1000, "test": [{"text": "b" * 3000}] * 1000}
    found, skips = pieces(source(tmp_path / "c.json", json.dumps(large).encode(), "json"))
    assert [piece.split for piece in found] == ["train"] * 1000 + ["heldout"] * 1000 and not skips.by_reason
    found, _ = pieces(source(tmp_path / "d.json", b'{"id": 1, "tags": ["x", "y"], "text": "one"}', "json"))
    assert [piece.content for piece in found] == ["one"]


def test_json_that_is_broken_in_one_place(tmp_path: Path) -> None:
    data = b'[{"text": "a"}, {"text": "b" "c"}, {"text": "raw\nline"}, 5, {"text": "d"}]'
    found, skips = pieces(source(tmp_path / "a.json", data, "json"))
    assert [piece.content for piece in found] == ["a", "d"]
    assert {reason: each.count for reason, each in skips.by_reason.items()} == {Reason.BROKEN: 2, Reason.TYPE: 1}
    cut = b'[{"text": "a"}, {"text": "b"}, {"text": "c'
    found, skips = pieces(source(tmp_path / "b.json", cut, "json"))
    assert [piece.content for piece in found] == ["a", "b"]
    assert skips.by_reason[Reason.DAMAGED].size_bytes == len(b', {"text": "c')
    for data in (b"nonsense", b"{", b"[,]", b'{"a" 1}', b"\xe4"):
        found, skips = pieces(source(tmp_path / "c.json", data, "json"))
        assert not found and sum(each.size_bytes for each in skips.by_reason.values()) == len(data), data


def test_tables_with_odd_rows(tmp_path: Path) -> None:
    data = b'id,text\n1,"two\nlines, ""quoted"""\n2\n3,a,b\n\n4,b\xe4d\n5,fine\n'
    found, skips = pieces(source(tmp_path / "a.csv", data, "csv"))
    assert [piece.content for piece in found] == ['two\nlines, "quoted"', "fine"]
    assert {reason: each.count for reason, each in skips.by_reason.items()} == {Reason.COLUMN: 2, Reason.ENCODING: 1}
    assert "has 1 fields and the header 2" in skips.by_reason[Reason.COLUMN].places[0]
    assert contents(source(tmp_path / "b.csv", b"text\nHello, world\nYes, you, there\n", "csv")) == [
        "Hello, world",
        "Yes, you, there",
    ]
    assert contents(source(tmp_path / "c.csv", b"Only one column\nof lines\n", "csv")) == [
        "Only one column",
        "of lines",
    ]
    assert contents(source(tmp_path / "a.tsv", b'text\tn\n"Stop," he said\t1\nhe said "no"\t2\n', "tsv")) == [
        '"Stop," he said',
        'he said "no"',
    ]
    file = source(tmp_path / "d.csv", "text;n\ncaf\u00e9;1\n".encode("cp1252"), "csv", encoding="cp1252")
    assert contents(file) == ["caf\u00e9"]


def test_a_field_without_end_and_a_field_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_tables, "FIELD_CHARACTERS", 1000)
    rows = [["id", "text"], ["1", "a"], ["2", "word\n" * 500], ["3", "b"], ["4", "x" * 2000], ["5", "c"]]
    found, skips = pieces(source(tmp_path / "a.csv", csv_of(rows), "csv"))
    assert [piece.content for piece in found] == ["a", "b", "c"]
    assert skips.by_reason[Reason.TOO_LONG].count == 2
    assert 4500 < skips.by_reason[Reason.TOO_LONG].size_bytes < 4600
    found, skips = pieces(source(tmp_path / "b.csv", b'id,text\n1,a\n2,"never closed\n3,b\n', "csv"))
    assert [piece.content for piece in found] == ["a"]
    assert skips.by_reason[Reason.BROKEN].size_bytes == len(b'2,"never closed\n3,b\n')
    assert "close the quote" in skips.by_reason[Reason.BROKEN].places[0]


@pytest.mark.parametrize(
    ("head", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2\n", ";"),
        ("a\tb\n1\t2", "\t"),
        ("a|b|c\n1|2|3", "|"),
        ("just words\nhere", "\x1f"),
    ],
)
def test_delimiters(head: str, delimiter: str) -> None:
    assert delimiter_of(head) == delimiter


def test_tables_without_rows_and_damaged_ones(tmp_path: Path) -> None:
    found, skips = pieces(source(tmp_path / "a.parquet", _empty_parquet(), "parquet"))
    assert not found and {reason: each.size_bytes for reason, each in skips.by_reason.items()} == {Reason.BLANK: 0}
    rows = [{"text": f"text number {number}"} for number in range(9000)]
    whole = parquet(rows, row_group_size=1000, compression="none")
    found, _ = pieces(source(tmp_path / "b.parquet", whole, "parquet"))
    assert len(found) == 9000
    broken = bytearray(whole)
    middle = len(broken) // 2
    broken[middle : middle + 4000] = b"\xff" * 4000
    some, skips = pieces(source(tmp_path / "c.parquet", bytes(broken), "parquet"))
    assert set(some) < set(found) and some[-1] == found[-1] and 7000 <= len(some) < 9000  # the other groups are sound
    assert (
        skips.by_reason[Reason.DAMAGED].count == 1 and 0 < skips.by_reason[Reason.DAMAGED].size_bytes < len(whole) // 5
    )
    _, skips = pieces(source(tmp_path / "d.parquet", whole[: len(whole) // 2], "parquet"))
    assert skips.by_reason[Reason.DAMAGED].size_bytes == len(whole) // 2
    stream = arrow(rows[:90])
    some, skips = pieces(source(tmp_path / "a.arrow", stream[: len(stream) // 2], "arrow"))
    assert 0 < len(some) < 90 and skips.by_reason[Reason.DAMAGED].count == 1
    _, skips = pieces(source(tmp_path / "b.arrow", b"no arrow at all", "arrow"))
    assert skips.by_reason[Reason.DAMAGED].size_bytes == 15


def _empty_parquet() -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), out)
    return out.getvalue()


def test_only_needed_columns_and_row_groups_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"text": f"text {number}", "vector": [0.5] * 100, "split": "train"} for number in range(100)]
    file = source(tmp_path / "a.parquet", parquet(rows, row_group_size=10), "parquet")
    seen: list[tuple[list[str], int]] = []
    rows_of = columnar._rows

    def spy(records: Any, batch: Any, row: int) -> Iterator[Piece]:
        seen.append((batch.schema.names, row))
        return rows_of(records, batch, row)

    monkeypatch.setattr(columnar, "_rows", spy)
    found, _ = pieces(file)
    assert len(found) == 100 and {tuple(names) for names, _ in seen} == {("text", "split")}
    seen.clear()
    assert pieces(file, since=found[95].mark)[0] == found[95:]
    assert [row for _, row in seen if row >= 10] == [90]


def test_a_compressed_file_of_lines_that_is_cut_off(tmp_path: Path) -> None:
    lines = json_lines([{"text": f"text {number} {number**5}"} for number in range(5000)])
    packed = gzip.compress(lines)
    found, skips = pieces(source(tmp_path / "a.gz", packed[: len(packed) // 2], "json_lines", compression="gzip"))
    assert 1000 < len(found) < 4500
    assert skips.by_reason[Reason.DAMAGED].count >= 1


@pytest.mark.parametrize("seed", range(12))
def test_damage_anywhere_is_counted_and_never_raised(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    (tmp_path / "good").mkdir()
    for file in forms(tmp_path / "good"):
        data = bytearray(Path(file.url).read_bytes())
        for _ in range(chance.randint(1, 20)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 3)] = chance.choice([b"", b"\0", b'"', b"\\", b"\xff", b"{", b"]", b"\n"])
        damaged = replace(file, url=str(tmp_path / "damaged"), size_bytes=len(data))
        Path(damaged.url).write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        found, skips = pieces(damaged)
        assert found or skips.by_reason
        for number in chance.sample(range(len(found)), min(3, len(found))):
            assert pieces(damaged, since=found[number].mark)[0] == found[number:], file.url
