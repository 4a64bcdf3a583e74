"""Records that are too long to be held: the same pieces as if they were, and never much memory."""

import gzip
import io
import json
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import peer.sources.json_files as json_files
import peer.sources.json_lines as json_lines
import peer.sources.json_scan as json_scan
import peer.sources.long_records as long_records
import peer.sources.text as text_module
from peer.sources.documents import Form, Piece, Reading, SourceFile
from peer.sources.json_scan import BrokenError, Cursor, Long, raw_value, text_parts
from peer.sources.reading import read
from peer.sources.skips import Reason, Skips

TOKENS = ["word ", "é", "海", "🐟", "\n", '"', "\\", "\\ud83d", "\t", " " * 50, "x" * 300, "/", "\x7f"]
MEMORY_MB = 300  # more than an interpreter that has read nothing


def source(path: Path, data: bytes, form: Form = "json_lines", **more: object) -> SourceFile:
    path.write_bytes(data)
    return SourceFile(str(path), len(data), form, "d", **more)  # type: ignore[arg-type]


def pieces(file: SourceFile, how: Reading = Reading(), since: int = 0) -> tuple[list[Piece], Skips]:  # noqa: B008
    skips = Skips()
    return list(read(file, how, skips, since)), skips


def text_of(seed: int, tokens: int) -> str:
    chance = random.Random(seed)
    return "".join(chance.choice(TOKENS) for _ in range(tokens))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make everything long, and blocks short."""
    for module in (json_lines, json_files):
        monkeypatch.setattr(module, "LONG_RECORD", 1000)
    for module in (json_lines, json_scan, text_module):
        monkeypatch.setattr(module, "BLOCK_BYTES", 77)
    monkeypatch.setattr(long_records, "SHORT_BYTES", 100)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("is_ascii", [True, False])
def test_the_pieces_are_those_of_short_records(
    seed: int, is_ascii: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "a": {"b": [1, {"c": "}]"}]}, "text": text_of(seed, 3000), "kind": "sea fish", "split": "dev"},
        {"text": "short", "kind": "bird", "split": "train"},
        {"more": text_of(seed, 90), "text": "short beside long", "kind": "bird", "split": "train"},
        {"kind": "last", "text": text_of(seed + 100, 2000), "split": "train"},
    ]
    how = Reading(domain_column="kind")
    lines = "\n".join(json.dumps(row, ensure_ascii=is_ascii) for row in rows).encode()
    array = json.dumps(rows, ensure_ascii=is_ascii, indent=1).encode()
    files = [
        source(tmp_path / "a.jsonl", lines),
        source(tmp_path / "a.jsonl.gz", gzip.compress(lines), compression="gzip"),
        source(tmp_path / "a.json", array, "json"),
        source(tmp_path / "b.json", b'{"about": [1], "data": ' + array + b"}", "json"),
        source(tmp_path / "a.json.gz", gzip.compress(array), "json", compression="gzip"),
    ]
    wanted = [pieces(file, how) for file in files]
    assert all(not skips.by_reason for _, skips in wanted)
    request.getfixturevalue("small")
    for file, (want, _) in zip(files, wanted, strict=True):
        found, skips = pieces(file, how)
        assert found == want and not skips.by_reason, file.url
        for number, piece in enumerate(found):
            assert pieces(file, how, piece.mark)[0] == found[number:]


@pytest.mark.usefixtures("small")
def test_a_column_in_another_and_a_single_record(tmp_path: Path) -> None:
    text = text_of(1, 3000)
    record = {"z": {"y": 1}, "a": {"x": "no", "b": {"c": text}}, "text": "not this"}
    for form, tail in (("json_lines", b"\n"), ("json", b"")):
        file = source(tmp_path / "a", json.dumps(record).encode() + tail, form)  # type: ignore[arg-type]
        found, skips = pieces(file, Reading(text_column="a.b.c"))
        assert "".join(str(piece.content) for piece in found) == text and not skips.by_reason
    file = source(tmp_path / "b", json.dumps([text, "short"]).encode(), "json")
    found, _ = pieces(file)
    assert "".join(str(piece.content) for piece in found[:-1]) == text and found[-1].content == "short"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "LONG\\ud800LONG"}', Reason.TYPE),
        ('{"text": "LONG\\u0000LONG"}', Reason.TYPE),
        ('{"text": "LONG\x01LONG"}', Reason.BROKEN),
        ('{"text": "LONG\\xLONG"}', Reason.BROKEN),
        ('{"text": "LONG\udce4LONG"}', Reason.ENCODING),
        ('{"text": "LONG" "b"}', Reason.BROKEN),
        ('{"text": "LONG"} 5', Reason.BROKEN),
        ('{"text": "LONG', Reason.DAMAGED),
        ('{"text": ["LONG"]}', Reason.TYPE),
        ('["LONG"]', Reason.TYPE),
        ('{"input": "LONG", "target": "b"}', Reason.TOO_LONG),
        ('{"messages": [{"role": "user", "content": "LONG"}]}', Reason.TOO_LONG),
        ('{"one": "LONG", "two": "b"}', Reason.COLUMN),
        ('{"text": "SPACE"}', Reason.BLANK),
    ],
)
def test_what_cannot_be_used_is_counted_and_the_rest_goes_on(line: str, reason: Reason, tmp_path: Path) -> None:
    line = line.replace("LONG", "word " * 400).replace("SPACE", " " * 2000)
    data = line.encode(errors="surrogateescape")
    file = source(tmp_path / "a.jsonl", data + b'\n{"text": "good"}\n')
    found, skips = pieces(file)
    assert [piece.content for piece in found] == ["good"]
    assert {each: skipped.count for each, skipped in skips.by_reason.items()} == {reason: 1}
    if reason not in (Reason.TYPE, Reason.BLANK):
        assert skips.by_reason[reason].size_bytes == len(data)


@pytest.mark.parametrize("seed", range(20))
def test_strings_are_those_of_json_whatever_the_blocks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_scan, "BLOCK_BYTES", random.Random(seed).choice([7, 8, 13, 64]))
    text = text_of(seed, 300)
    for is_ascii in (True, False):
        data = json.dumps([text, 5], ensure_ascii=is_ascii).encode()
        cursor = Cursor(io.BytesIO(data), 1, len(data))
        assert cursor.peek() == b'"'
        assert "".join(text_parts(cursor)) == text and cursor.peek() == b","
        value = raw_value(Cursor(io.BytesIO(data), 0, len(data)), 1 << 20)
        assert value == data
        assert raw_value(Cursor(io.BytesIO(data), 0, len(data)), 10) == Long(len(data))


@pytest.mark.parametrize("data", [b'"abc', b'{"a": [1, 2}', b"[", b'{"a": "', b""])
def test_values_without_end(data: bytes) -> None:
    with pytest.raises(BrokenError, match="cut off"):
        raw_value(Cursor(io.BytesIO(data), 0, len(data)), 100)


def test_a_line_of_100_mb_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.write('{"id": 7, "text": "')
        for _ in range(100):
            file.write(r"caf\u00e9 \ud83d\udc1f words and words, line \n" * 22_000)
        file.write('", "kind": "fish"}\n{"text": "short"}\n')
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from peer.sources.documents import Reading, SourceFile
        from peer.sources.reading import read
        from peer.sources.skips import Skips
        def peak():  # not of getrusage, which counts what the parent took
            return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if "VmHWM" in line)

        before, path = peak(), Path(sys.argv[1])
        file = SourceFile(str(path), path.stat().st_size, "json_lines", "d")
        print(sum(len(piece.content) for piece in read(file, Reading(), Skips())), peak() - before)
        """
    )
    run = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    characters, more_mb = map(int, run.stdout.split())
    assert characters == 100 * 22_000 * len("café 🐟 words and words, line \n") + len("short")
    assert more_mb < MEMORY_MB
