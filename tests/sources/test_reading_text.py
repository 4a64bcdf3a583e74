"""Text and code as pieces: the same documents as ever, from any mark the same rest, nothing lost without a count."""

import gzip
import io
import random
from pathlib import Path

import pytest

import peer.sources.text as text_module
from peer.sources.documents import PIECE_CHARACTERS, DocumentUnit, Piece, Reading, SourceFile, cut_text
from peer.sources.reading import read
from peer.sources.skips import Reason, SkipError, Skips
from peer.sources.text import BLOCK_BYTES, cut_stream, split_lines, utf8

UNITS: tuple[DocumentUnit, ...] = ("line", "paragraph", "file")
TOKENS = ["a", "b ", " c", "é", "海", "\n", "\n\n", "\n \n", "\r\n", "\r\n\r\n", "x" * 300, "word " * 50, " " * 90]
BAD = ["bad\udce4ness", "\0", "\x07"]


def source(path: Path, data: bytes, unit: DocumentUnit = "paragraph", **more: object) -> SourceFile:
    path.write_bytes(data)
    return SourceFile(str(path), len(data), "text", "d", unit=unit, **more)  # type: ignore[arg-type]


def pieces(file: SourceFile, since: int = 0) -> tuple[list[Piece], Skips]:
    skips = Skips()
    return list(read(file, Reading(), skips, since)), skips


def contents(file: SourceFile) -> list[object]:
    return [piece.content for piece in pieces(file)[0]]


def black(text: str | bytes) -> int:
    """Return the bytes that are no white space."""
    data = text.encode(errors="surrogateescape") if isinstance(text, str) else text
    return len(b"".join(data.split()))


def paragraphs_of_lines(text: str) -> list[str]:
    """Join paragraphs line by line: the plain way, which the fast one must equal."""
    documents, document, characters = [], [], 0
    for line in (line.rstrip("\r") for line in text.split("\n")):
        if line.strip():
            document.append(line)
            characters += len(line) + 1
        elif characters >= text_module.MIN_CHARACTERS:
            documents.append("\n".join(document))
            document, characters = [], 0
        elif document and document[-1]:
            document.append("")
    documents.append("\n".join(document).rstrip("\n"))
    return [document for document in documents if document.strip()]


def test_paragraphs_are_joined_until_they_are_long_enough() -> None:
    long = "x" * 1200
    assert list(split_lines("\n".join(["a", "", " ", "b", "", long, "", "c"]))) == [f"a\n\nb\n\n{long}", "c"]


@pytest.mark.parametrize("seed", range(40))
def test_paragraphs_are_those_of_the_plain_way(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(text_module, "BLOCK_BYTES", chance.choice([7, 64, 1000, 1 << 20]))
    text = "".join(chance.choice([*TOKENS, "\u3000\n", "y" * 1000]) for _ in range(chance.randint(0, 60)))
    found, skips = pieces(source(tmp_path / "a.txt", text.encode()))
    assert [piece.content for piece in found] == paragraphs_of_lines(text)
    assert set(skips.by_reason) <= {Reason.BLANK}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("seed", range(30))
def test_from_every_mark_the_rest_is_the_same(
    unit: DocumentUnit, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for documents that are cut, whatever the blocks, and with lines that are no text."""
    for name, value in (("PIECE_CHARACTERS", 500), ("MIN_CHARACTERS", 100), ("_LONGEST_GAP", 100)):
        monkeypatch.setattr(text_module, name, value)
    chance = random.Random(seed)
    tokens = [*TOKENS, *(BAD if seed % 2 else []), "\n" * chance.randint(1, 200)]
    text = "".join(chance.choice(tokens) for _ in range(chance.randint(0, 80)))
    file = source(tmp_path / "a.txt", text.encode(errors="surrogateescape"), unit)
    whole, skips = pieces(file)
    for block in (13, 200):
        monkeypatch.setattr(text_module, "BLOCK_BYTES", block)
        again, others = pieces(file)
        assert again == whole and others.as_dict() == skips.as_dict()
    for number, piece in enumerate(whole):
        assert pieces(file, piece.mark)[0] == whole[number:]
    read_bytes = sum(black(str(piece.content)) for piece in whole)
    skipped = sum(each.size_bytes for each in skips.by_reason.values())
    assert read_bytes <= black(text) <= read_bytes + skipped  # skipped lines have white space inside
    assert not whole or whole[-1].is_last


@pytest.mark.parametrize("unit", UNITS)
def test_a_long_document_comes_in_pieces_that_are_it(unit: DocumentUnit, tmp_path: Path) -> None:
    text = "one long line of many words " * 10_000
    found, _ = pieces(source(tmp_path / "a.txt", text.encode(), unit))
    assert len(found) > 5 and "".join(str(piece.content) for piece in found) == text
    assert [piece.content for piece in found] == list(cut_text(text, PIECE_CHARACTERS))
    assert [piece.is_last for piece in found] == [False] * (len(found) - 1) + [True]


def test_the_three_units(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbfone\r\ntwo\r\n\r\n\tthree\r\n"
    assert contents(source(tmp_path / "a.txt", data, "line")) == ["one", "two", "\tthree"]
    assert contents(source(tmp_path / "a.txt", data, "paragraph")) == ["one\ntwo\n\n\tthree"]
    assert contents(source(tmp_path / "a.txt", data, "file")) == ["one\ntwo\n\n\tthree\n"]


def test_lines_that_are_no_text_are_counted_with_their_byte(tmp_path: Path) -> None:
    file = source(tmp_path / "a.txt", b"fine\n\xc3\xa9 b\xe4d\nnull\0\nbell\x07\n\ttab\x0c\n", "line")
    found, skips = pieces(file)
    assert [piece.content for piece in found] == ["fine", "\ttab\x0c"]
    advice = "mend that line, or say its encoding with --encoding"
    assert skips.by_reason[Reason.ENCODING].places == [f"{file.url}, byte 9: is not utf-8; {advice}"]
    assert skips.by_reason[Reason.ENCODING].size_bytes == len(b"\xc3\xa9 b\xe4d")
    assert skips.by_reason[Reason.TYPE].count == 2
    assert skips.by_reason[Reason.TYPE].places[0] == f"{file.url}, byte 16: the control character 0"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-32", "gb18030", "cp932", "utf-8-sig"])
def test_a_text_is_decoded_across_blocks(encoding: str) -> None:
    text = "海の魚 are many fish\r\nand a line end of its own\n" * 20_000
    stream = utf8(io.BytesIO(text.encode(encoding)), encoding)
    assert b"".join(iter(lambda: stream.read(BLOCK_BYTES), b"")).decode("utf-8-sig") == text


@pytest.mark.parametrize(("encoding", "bad"), [("utf-8", b"\xff"), ("gb18030", b"\xff\xff"), ("euc_jp", b"\xff\xff")])
def test_what_cannot_be_decoded_stands_in_its_place(encoding: str, bad: bytes) -> None:
    for length in (10, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES + 7):
        good = "a" * (length % 3) + "海" * length
        stream = utf8(io.BytesIO(good.encode(encoding) + bad + b" and more"), encoding)
        read = b"".join(iter(lambda stream=stream: stream.read(BLOCK_BYTES), b""))  # type: ignore[misc]
        assert read.startswith(good.encode()) and read.endswith(b" and more")
        with pytest.raises(UnicodeDecodeError) as caught:
            read.decode()
        assert caught.value.start == len(good.encode())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252", "shift_jis"])
def test_other_encodings(encoding: str, tmp_path: Path) -> None:
    text = "one\n\ntwo £ line\n" * 50 if encoding != "shift_jis" else "海は広い\n\nな\n" * 50
    file = source(tmp_path / "a.txt", text.encode(encoding), "line", encoding=encoding)
    found, skips = pieces(file)
    assert [piece.content for piece in found] == [line for line in text.split("\n") if line]
    assert not skips.by_reason
    assert pieces(file, found[7].mark)[0] == found[7:]


def test_what_another_encoding_does_not_have_is_counted(tmp_path: Path) -> None:
    data = "good £\n".encode("cp1252") + b"bad \x81\nmore\n"
    found, skips = pieces(source(tmp_path / "a.txt", data, "line", encoding="cp1252"))
    assert [piece.content for piece in found] == ["good £", "more"]
    assert "is not cp1252" in skips.by_reason[Reason.ENCODING].places[0]
    data = "good\n".encode("utf-16-le") + b"\x00\xd8" + "\nmore\n".encode("utf-16-le")
    found, skips = pieces(source(tmp_path / "a.txt", data, "line", encoding="utf-16-le"))
    assert [piece.content for piece in found] == ["good", "more"] and skips.by_reason[Reason.ENCODING].count == 1


def test_a_compressed_file_that_is_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    text = "".join(f"line {number} {random.Random(number).random()}\n" for number in range(5000))
    packed = gzip.compress(text.encode())
    whole = source(tmp_path / "a.txt.gz", packed, "line", compression="gzip")
    found, _ = pieces(whole)
    assert "".join(f"{piece.content}\n" for piece in found) == text
    assert pieces(whole, found[4000].mark)[0] == found[4000:]
    file = source(tmp_path / "b.txt.gz", packed[: len(packed) // 2], "line", compression="gzip")
    some, skips = pieces(file)
    assert 1000 < len(some) < 4000 and some[:-1] == found[: len(some) - 1]
    assert skips.by_reason[Reason.DAMAGED].count == 1


def test_nothing_small_is_an_error_but_a_named_file_without_text_is(tmp_path: Path) -> None:
    found, skips = pieces(source(tmp_path / "a.txt", b" \n\n\t\n"))
    assert not found and skips.by_reason[Reason.BLANK].size_bytes == 0
    with pytest.raises(SkipError, match="holds no text; fill it or leave it out"):
        pieces(source(tmp_path / "a.txt", b"", is_named=True))
    with pytest.raises(SkipError, match="byte 1: is not utf-8; mend that line, or say its encoding with --encoding"):
        pieces(source(tmp_path / "a.txt", b"b\xe4d", is_named=True))
    with pytest.raises(SkipError, match="No such file or directory"):
        pieces(SourceFile(str(tmp_path / "gone.txt"), 1, "text", "d", is_named=True))
    _, skips = pieces(SourceFile(str(tmp_path / "gone.txt"), 1, "text", "d"))
    assert skips.by_reason[Reason.UNREADABLE].size_bytes == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_stream_is_cut_as_a_text_is(seed: int) -> None:
    chance = random.Random(seed)
    text = "".join(chance.choice(["word ", "\n", " " * 9000, "x" * 999]) for _ in range(chance.randint(0, 400)))
    chunks, at = [], 0
    while at < len(text):
        step = chance.choice([1, 100, 40_000])
        chunks.append(text[at : at + step])
        at += step
    found = list(cut_stream(iter(chunks), PIECE_CHARACTERS))
    assert [passage for passage, _ in found] == list(cut_text(text, PIECE_CHARACTERS))
    assert [is_last for _, is_last in found] == [False] * (len(found) - 1) + [True] * bool(found)
