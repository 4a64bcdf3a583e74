"""Odd inputs that are compressed, or packed together: each way, at each place, and under names that lie."""

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
from odd_entries import Odd, Remedy, Write, filled, lines_of, paragraphs, passages, sentences
from odd_files import archive

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COD, EEL = passages("Bass", 30), passages("Bleak", 30)
SHORT, OTHERS = sentences("Sole", 200), sentences("Brill", 200)
PACKS = {"gz": gzip.compress, "zst": zstd.compress, "bz2": bz2.compress, "xz": lzma.compress}
TEXT, LINES = paragraphs(COD).encode(), lines_of(SHORT).encode()


def _table() -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": SHORT}), sink, row_group_size=50)
    return sink.getvalue()


def _tar(place: Path) -> None:
    with tarfile.open(place / "old.tar.gz", "w:gz") as packed:
        for name, content in {"old/a.txt": TEXT}.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            packed.addfile(about, io.BytesIO(content))


def _untar(place: Path) -> None:
    with tarfile.open(place / "old.tar.gz") as packed:
        packed.extractall(place, filter="data")


def _long_window() -> bytes:
    """Return what `zstd --long=27` makes."""
    options = {
        int(zstd.CompressionParameter.window_log): 27,
        int(zstd.CompressionParameter.enable_long_distance_matching): 1,
    }
    return bytes(zstd.compress(TEXT, options=options))


def each(name: str, write: Write, **more: object) -> Odd:
    """Return an entry whose folder holds the paragraphs, or the lines, that are in all of these."""
    texts = {"in": SHORT if "lines" in name or "JSON" in name else COD}
    return Odd(name, write, texts, **more)  # type: ignore[arg-type]


PACKING = [
    *(each(f"text compressed as .{end}", filled({f"in/a.txt.{end}": pack(TEXT)})) for end, pack in PACKS.items()),
    *(
        each(f"JSON lines compressed as .{end}", filled({f"in/a.jsonl.{end}": pack(LINES)}))
        for end, pack in PACKS.items()
    ),
    *(
        each(
            f"text in two members, one after the other, .{end}",
            filled({f"in/a.txt.{end}": pack(TEXT[:7000]) + pack(TEXT[7000:])}),
        )
        for end, pack in PACKS.items()
    ),
    each("text that is compressed and does not say so", filled({"in/a.txt": gzip.compress(TEXT)})),
    each("text that says it is compressed and is not", filled({"in/a.txt.gz": TEXT})),
    each("text whose name says another compression", filled({"in/a.txt.gz": zstd.compress(TEXT)})),
    each("JSON lines whose name says nothing but the compression", filled({"in/corpus.gz": gzip.compress(LINES)})),
    each("lines in capital letters", filled({"in/A.TXT.GZ": gzip.compress("\n".join(SHORT).encode())})),
    each(
        "a table whose name says nothing but the compression, below text",
        filled({"in/a.txt": TEXT, "in/t.gz": gzip.compress(b"a,b\n1,2\n3,4\n")}),
        skipped={"KIND": (1, "in/t.gz")},
    ),
    each("text compressed with a long window", filled({"in/a.txt.zst": _long_window()})),
    each(
        "text compressed, with zeros at the end as tapes have it",
        filled({"in/a.txt.gz": gzip.compress(TEXT) + bytes(512)}),
    ),
    each("JSON, a list, compressed", filled({"in/a.json.xz": lzma.compress(json.dumps(SHORT).encode())})),
    each("JSON in a compressed Parquet file", filled({"in/a.parquet.gz": gzip.compress(_table())})),
    each(
        "lines as CSV, compressed",
        filled({"in/a.csv.bz2": bz2.compress(b"text\n" + "".join(f'"{s}"\n' for s in SHORT).encode())}),
    ),
    each(
        "a compressed page",
        filled({"in/a.html.gz": gzip.compress(f"<p>{'</p><p>'.join(COD)}".encode())}),
        is_whole=False,
    ),
    Odd(
        "an archive named by itself",
        filled({"cod.zip": archive({"cod/a.txt": TEXT, "cod/README": "About."})}),
        {"cod": COD},
        ("cod.zip",),
        skipped={"ABOUT": (1, 6)},
    ),
    Odd(
        "an archive with folders",
        filled({"all.zip": archive({"sea/a.txt": TEXT, "river/a.txt": paragraphs(EEL), "__MACOSX/a.txt": "x"})}),
        {"sea": COD, "river": EEL},
        ("all.zip",),
        skipped={"HIDDEN": (1, 1)},
    ),
    Odd(
        "an archive in a folder, beside text",
        filled({"in/a.zip": archive({"b.txt": TEXT}), "in/c.txt": paragraphs(EEL)}),
        {"in": [*COD, *EEL]},
    ),
    Odd(
        "compressed files in an archive",
        filled(
            {
                "in.zip": archive(
                    {"b.txt.gz": gzip.compress(TEXT), "c.jsonl.zst": zstd.compress(lines_of(EEL).encode())},
                    zipfile.ZIP_STORED,
                )
            }
        ),
        {"in": [*COD, *EEL]},
        ("in.zip",),
    ),
    Odd(
        "an archive with bzip2 and LZMA inside, and names that leave it",
        filled(
            {
                "in/x.zip": archive({"../../evil.txt": TEXT}, zipfile.ZIP_BZIP2),
                "in/y.zip": archive({"über die See/ä.txt": paragraphs(EEL)}, zipfile.ZIP_LZMA),
            }
        ),
        {"in": COD, "über-die-See": EEL},
    ),
    Odd("a table in an archive", filled({"in.zip": archive({"a.parquet": _table()})}), {"in": SHORT}, ("in.zip",)),
    Odd(
        "splits in an archive",
        filled({"in.zip": archive({"in/train.txt": TEXT, "in/test.txt": paragraphs(EEL)})}),
        {"in": [*COD, *EEL]},
        ("in.zip",),
        heldout={"in": EEL},
    ),
    Odd(
        "an archive in an archive",
        filled({"in/a.txt": TEXT, "in/b.zip": archive({"c.zip": archive({"d.txt": "x"})})}),
        {"in": COD},
        skipped={"KIND": (1, len(archive({"d.txt": "x"})))},
    ),
    Odd("an empty archive beside text", filled({"in/a.txt": TEXT, "in/b.zip": archive({})}), {"in": COD}),
    Odd(
        "an archive of another kind",
        _tar,
        {"old": COD},
        ("old.tar.gz",),
        refused="an archive of another kind",
        remedy=Remedy("unpack it and name the folder", mend=_untar, sources=("old",)),
    ),
    Odd(
        "source code, compressed",
        filled({f"in/{n}.py.gz": gzip.compress(text.encode()) for n, text in enumerate(COD)}),
        {"in": COD},
        options=("--ext", "py"),
    ),
]
