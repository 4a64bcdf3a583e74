"""Odd inputs that are damaged, cut off, blank, too large or too small, and what is left out on purpose."""

import bz2
import gzip
import json
import lzma
import zlib
from pathlib import Path

from odd_entries import (
    Odd,
    Remedy,
    filled,
    lines_of,
    paragraphs,
    passages,
    put,
    records,
    removed,
    sentences,
)
from odd_files import archive, spoilt, table, table_of
from odd_packing import zstd

COD, EEL = passages("Wels"), passages("Ide", 200)
SHORT, MANY = sentences("Asp", 300), sentences("Orfe", 3000)
LINES = lines_of(SHORT).encode()
BINARY = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8


def cut(pack: object, keep: float) -> tuple[bytes, bytes]:
    """Return a compressed file of lines that is cut off, and what can be read of it."""
    if pack is gzip:
        raw = gzip.compress("\n".join(MANY).encode())
        raw = raw[: int(len(raw) * keep)]
        return raw, zlib.decompressobj(31).decompress(raw)
    raw = lzma.compress("\n".join(MANY).encode())
    raw = raw[: int(len(raw) * keep)]
    return raw, lzma.LZMADecompressor().decompress(raw)


GZIP, GZIP_TEXT = cut(gzip, 0.6)
XZ, XZ_TEXT = cut(lzma, 0.6)
# Of JSON lines the last that can be read is cut off as well.
GZIP_LINES = gzip.compress(lines_of(MANY).encode())[:-9000]
READ_LINES = zlib.decompressobj(31).decompress(GZIP_LINES)
WHOLE_LINES, LAST_LINE = READ_LINES[: READ_LINES.rindex(b"\n") + 1], READ_LINES[READ_LINES.rindex(b"\n") + 1 :]


def _closed(place: Path) -> None:
    put(place / "in" / "a.txt", paragraphs(EEL))
    put(place / "in" / "b.txt", "x" * 50).chmod(0)


ROWS = [["n", "text"], *([str(n), text] for n, text in enumerate(SHORT))]
RAGGED = ["only one"], ["a", "b", "c"], ["", "", "", ""]
CUT_LIST = json.dumps([{"text": text} for text in MANY])[:-40]
ZIP = archive({"a.txt": paragraphs(COD)})
BAD_CRC = archive({"a.txt": "A text that is stored as it is, to be spoilt.\n" * 5}, 0)

DAMAGE = [
    Odd(
        "a file of no bytes among 51",
        filled({f"in/{n}.txt": text for n, text in enumerate(EEL[:50])} | {"in/50.txt": ""}),
        {"in": EEL[:50]},
        skipped={"BLANK": (1, 0)},
    ),
    Odd(
        "files with nothing but white space",
        filled(
            {
                "in/a.txt": paragraphs(COD),
                "in/b.txt": " \n\t\r\n\n",
                "in/c.jsonl": "\n\n",
                "in/d.csv": "\n",
                "in/e.json": " ",
                "in/f.html": "<html><body> </body></html>",
            }
        ),
        {"in": COD},
        skipped={"BLANK": (5, 10)},
    ),
    Odd(
        "nothing but blank files",
        filled({"in/a.txt": "", "in/b.txt": " \n"}),
        {"in": COD},
        refused="in/a.txt is empty",
        remedy=Remedy("it needs files that end in .txt", mend=filled({"in/c.txt": paragraphs(COD)})),
        skipped={"BLANK": (2, 2)},
    ),
    Odd(
        "a named file that is empty",
        filled({"a.txt": ""}),
        {"a": COD},
        ("a.txt",),
        refused="a.txt holds no text",
        remedy=Remedy("fill it or leave it out", mend=filled({"a.txt": paragraphs(COD)})),
    ),
    Odd(
        "a text that begins and ends with blank lines",
        filled({"in/a.txt": "\n\n \n" + paragraphs(COD) + "\n\n\t\n"}),
        {"in": COD},
    ),
    Odd(
        "the last line of JSON lines is cut off",
        filled({"in/a.jsonl": LINES + b'{"text": "no'}),
        {"in": SHORT},
        skipped={"DAMAGED": (1, 12)},
    ),
    Odd("JSON lines that end without a line end", filled({"in/a.jsonl": LINES.rstrip()}), {"in": SHORT}),
    Odd(
        "text in a gzip file that is cut off",
        filled({"in/a.txt.gz": GZIP}),
        {"in": GZIP_TEXT.decode().split("\n")},
        skipped={"DAMAGED": (1, 0)},
    ),
    Odd(
        "text in an xz file that is cut off",
        filled({"in/a.txt.xz": XZ}),
        {"in": XZ_TEXT.decode(errors="ignore").split("\n")},
        skipped={"DAMAGED": (1, 0)},
    ),
    Odd(
        "JSON lines in a gzip file that is cut off",
        filled({"in/a.jsonl.gz": GZIP_LINES}),
        {"in": [json.loads(line)["text"] for line in WHOLE_LINES.splitlines()]},
        skipped={"DAMAGED": (2, len(LAST_LINE))},
    ),
    Odd(
        "a gzip file whose checksum is wrong, below the limit",
        filled({"in/a.txt": paragraphs(EEL), "in/b.jsonl.gz": gzip.compress(b"x")[:-8] + bytes(8)}),
        {"in": EEL},
        skipped={"DAMAGED": (1, "in/b.jsonl.gz")},
    ),
    Odd(
        "a gzip file with something else behind it",
        filled({"in/a.jsonl.gz": gzip.compress(LINES) + b"and more"}),
        {"in": SHORT},
        skipped={"DAMAGED": (1, 0)},
    ),
    Odd(
        "a compressed file that is spoilt from its beginning, beside sound ones",
        filled(
            {
                "in/a.txt": paragraphs(EEL),
                "in/b.txt.bz2": bz2.compress(b"x")[:20],
                "in/c.txt.zst": zstd.compress(b"y" * 9)[:-3],
            }
        ),
        {"in": [*EEL, "yyyyyy"]},
        skipped={"DAMAGED": (2, 20 + len(zstd.compress(b"y" * 9)) - 3 - len("yyyyyy"))},
    ),
    Odd(
        "a compressed file that is named and spoilt",
        filled({"a.txt.gz": gzip.compress(b"x")[:12]}),
        {"a": COD},
        ("a.txt.gz",),
        refused="a.txt.gz",
        remedy=Remedy("fetch it again", mend=filled({"a.txt.gz": gzip.compress(paragraphs(COD).encode())})),
    ),
    Odd(
        "an archive that is cut off",
        filled({"in/a.txt": paragraphs(EEL), "in/b.zip": ZIP[:200]}),
        {"in": EEL},
        skipped={"DAMAGED": (1, 200)},
    ),
    Odd(
        "an archive of which one member is spoilt",
        filled({"in/a.txt": paragraphs(EEL), "in/b.zip": spoilt(BAD_CRC, 60, 4)}),
        {"in": EEL},
        skipped={"DAMAGED": (1, 230)},
    ),
    Odd(
        "a Parquet file whose end is cut off, below the limit",
        filled({"in/a.parquet": table_of(MANY), "in/b.parquet": table_of(SHORT[:5])[:-20]}),
        {"in": MANY},
        skipped={"DAMAGED": (1, len(table_of(SHORT[:5])) - 20)},
    ),
    Odd(
        "a Parquet file whose end is cut off, above the limit",
        filled({"in/a.parquet": table_of(SHORT), "in/b.parquet": table_of(MANY)[:-20]}),
        {"in": SHORT},
        refused="in/b.parquet",
        remedy=Remedy("--max-bad", ("--max-bad", "1")),
        skipped={"DAMAGED": (1, len(table_of(MANY)) - 20)},
    ),
    Odd(
        "JSON that is broken in its middle",
        filled({"in/a.jsonl": lines_of(SHORT[:150]) + '{"text": "x" "y"}\n' + lines_of(SHORT[150:])}),
        {"in": SHORT},
        skipped={"BROKEN": (1, 17)},
    ),
    Odd(
        "JSON lines with values that are no text",
        filled({"in/a.jsonl": lines_of(MANY) + '5\n{"text": 7}\n[]\n{"text": null}\n{"text": ""}\n'}),
        {"in": MANY},
        skipped={"TYPE": (3, 1 + 11 + 2), "BLANK": (2, 0)},
    ),
    Odd(
        "JSON lines with half characters",
        filled({"in/a.jsonl": lines_of(SHORT) + '{"text": "half \\ud800."}\n'}),
        {"in": SHORT},
        skipped={"TYPE": (1, len("half .") + 3)},
    ),
    Odd(
        "JSON lines of which some lack the column",
        filled({"in/a.jsonl": lines_of(SHORT) + records([{"body": "elsewhere"}])}),
        {"in": SHORT},
        skipped={"COLUMN": (1, len('{"body": "elsewhere"}'))},
    ),
    Odd(
        "a JSON list that is broken late",
        filled(
            {"in/a.json": json.dumps([{"text": text} for text in MANY])[:-1] + ', {"text": oops}, {"text": "Lost."}]'}
        ),
        {"in": [*MANY, "Lost."]},
        skipped={"BROKEN": (1, len('{"text": oops}'))},
    ),
    Odd(
        "a JSON list that is cut off",
        filled({"in/a.json": CUT_LIST}),
        {"in": MANY[:-1]},
        skipped={"DAMAGED": (1, len(CUT_LIST) - CUT_LIST.rindex("}") - 1)},
    ),
    Odd(
        "CSV with ragged rows",
        filled({"in/a.csv": table([*ROWS, *RAGGED])}),
        {"in": SHORT},
        skipped={"COLUMN": (3, 11)},
    ),
    Odd(
        "CSV with a quote that nothing closes",
        filled({"in/a.csv": table(ROWS) + '9,"open\n'}),
        {"in": SHORT},
        skipped={"BROKEN": (1, 8)},
    ),
    Odd(
        "CSV with nulls and blank cells",
        filled({"in/a.csv": table([*ROWS, ["1", ""], ["2", "  "]])}),
        {"in": SHORT},
        skipped={"BLANK": (2, 0)},
    ),
    Odd(
        "text with zeros in it",
        filled({"in/a.txt": "\n".join(SHORT) + "\nzero \0 zero\n"}),
        {"in": SHORT},
        skipped={"TYPE": (1, 11)},
    ),
    Odd(
        "a picture that is called .txt, below the limit",
        filled({"in/a.txt": paragraphs(EEL), "in/b.txt": BINARY}),
        {"in": EEL},
        skipped={"ENCODING": (1, len(BINARY))},
    ),
    Odd(
        "a picture that is called .txt, above the limit",
        filled({"in/a.txt": paragraphs(COD), "in/b.txt": BINARY}),
        {"in": COD},
        refused="seems to be no text",
        remedy=Remedy("leave it out", mend=removed("in/b.txt")),
    ),
    Odd(
        "a program that is called .jsonl",
        filled({"in/a.txt": paragraphs(EEL), "in/b.jsonl": b"\x7fELF\x02\x01\x01" + bytes(900)}),
        {"in": EEL},
        skipped={"ENCODING": (1, 907)},
    ),
    Odd("a file that nobody may read", _closed, {"in": EEL}, skipped={"UNREADABLE": (1, 50)}, needs_user=True),
]
