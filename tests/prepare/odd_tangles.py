"""Odd inputs in which several things come together, or in which what is usual misleads."""

import gzip
import io
from contextlib import redirect_stdout
from pathlib import Path

import pyarrow
from odd_entries import (
    Odd,
    Remedy,
    also,
    filled,
    lines_of,
    paragraphs,
    passages,
    put,
    records,
    removed,
    renamed,
    sentences,
    size,
)
from odd_files import archive, linked, parquet, table
from odd_tasks import ASKED, PAIRS, TOLD, WINDOW

from peer.commands.main import main

COD, EEL, RAY = passages("Dab"), passages("Turbot"), passages("Flounder", 200)
SHORT, OTHERS, MANY = sentences("Halibut", 300), sentences("Witch", 300), sentences("Megrim", 3000)
TASK = records({"input": i, "target": t} for i, t in zip(ASKED, TOLD, strict=True))
OVERLONG = [(f"A long answer, {n}?", " ".join(sentences("Bib", 12, n * 12))) for n in range(2)]
DEEP_NAME = "a folder with a name that is longer than what the name of a domain may have"
SHARED = sentences("Pout", 60)


def _prepared_before(place: Path) -> None:
    put(place / "in" / "a.txt", paragraphs(COD))
    with redirect_stdout(io.StringIO()):
        assert main(["prepare", "in/a.txt", "--out", "in/corpus", "--vocab-size", "300", "--context-length", "16"]) == 0


def _cut_arrow() -> tuple[bytes, int]:
    """Return a stream of three batches that is cut off in the second, and the bytes of the first."""
    columns, sink = pyarrow.table({"text": SHORT}), io.BytesIO()
    with pyarrow.ipc.new_stream(sink, columns.schema) as stream:
        stream.write_table(columns, max_chunksize=100)
    return sink.getvalue()[: sink.tell() // 2], columns.slice(0, 100).nbytes


ARROW, READ_BYTES = _cut_arrow()
XML = '<?xml version="1.0" encoding="ISO-8859-1"?>\n<html xmlns="http://www.w3.org/1999/xhtml">'

TANGLES = [
    Odd(
        "text and examples in a folder, beside one that has the name of its examples",
        filled({"in/a/a.txt": paragraphs(COD), "in/a/b.jsonl": TASK, "in/a-tasks/c.txt": paragraphs(EEL)}),
        {"a": COD, "a-tasks": EEL, "a-tasks-2": PAIRS},
        context=WINDOW,
    ),
    Odd(
        "a domain of which all is held out",
        filled({"in/sea/valid.txt": paragraphs(COD), "in/river/train.txt": paragraphs(EEL)}),
        {"river": EEL},
        heldout={},
        refused="domain 'sea' has only held-out text",
        remedy=Remedy("or leave it out", mend=removed("in/sea/valid.txt")),
    ),
    Odd(
        "examples whose targets fill a window by themselves",
        filled({"in/a.jsonl": TASK + records({"input": i, "target": t} for i, t in OVERLONG)}),
        {"in": PAIRS},
        skipped={"OVERLONG": (2, size(f"{i}\n{t}" for i, t in OVERLONG))},
        context=WINDOW,
    ),
    Odd(
        "pages without text among others",
        filled(
            {f"in/{n}.html": f"<p>{text}</p>" for n, text in enumerate(COD)}
            | {"in/x.html": "<script>var x = 1;</script>"}
        ),
        {"in": COD},
        skipped={"BLANK": (1, 0)},
    ),
    Odd(
        "folders whose long names begin alike",
        filled({f"in/{DEEP_NAME}, one/a.txt": paragraphs(COD), f"in/{DEEP_NAME}, two/a.txt": paragraphs(EEL)}),
        {DEEP_NAME.replace(" ", "-")[:64].strip("-"): COD, "two": EEL},
        refused="rename one of them",
        remedy=Remedy("rename one of them", mend=renamed(f"in/{DEEP_NAME}, two", "in/two")),
    ),
    Odd(
        "files that hold a byte order mark and nothing else",
        filled(
            {"in/a.txt": paragraphs(COD), "in/b.txt": "\ufeff", "in/c.jsonl": "\ufeff\r\n", "in/d.txt": b"\xff\xfe"}
        ),
        {"in": COD},
        skipped={"BLANK": (3, 3 + 5 + 2)},
    ),
    Odd(
        "a page in cp1252 that does not say so",
        filled({"in/a.html": "".join(f"<p>Le curé n° {n} déçu à Noël" for n in range(400)).encode("cp1252")}),
        {"in": [f"Le curé n° {n} déçu à Noël" for n in range(400)]},
        refused="is in no encoding that is sure",
        remedy=Remedy("--encoding cp1252", ("--encoding", "cp1252")),
        is_whole=False,
    ),
    Odd(
        "pages as XML that say their encoding",
        filled(
            {
                f"in/{n}.xhtml": (XML + f"<body><p>é {text}</p></body></html>").encode("cp1252")
                for n, text in enumerate(COD)
            }
        ),
        {"in": [f"é {text}" for text in COD]},
    ),
    Odd(
        "splits in three kinds of files",
        also(
            filled(
                {
                    "in/train.jsonl.gz": gzip.compress(lines_of(SHORT).encode()),
                    "in/dev.csv": table([["text"], *([text] for text in OTHERS)]),
                }
            ),
            parquet("in/test.parquet", {"text": SHARED}),
        ),
        {"in": [*SHORT, *OTHERS, *SHARED]},
        heldout={"in": [*OTHERS, *SHARED]},
    ),
    Odd(
        "names that only look like splits",
        filled(
            {
                "in/latest.txt": paragraphs(COD[:10]),
                "in/contest.txt": paragraphs(COD[10:20]),
                "in/devil.txt": paragraphs(COD[20:]),
            }
        ),
        {"in": COD},
    ),
    Odd(
        "sources that are splits",
        filled(
            {
                "d/train.csv": table([["text"], *([text] for text in SHORT)]),
                "d/test.csv": table([["text"], *([text] for text in OTHERS)]),
            }
        ),
        {"d": [*SHORT, *OTHERS]},
        ("d/train.csv", "d/test.csv"),
        heldout={"d": OTHERS},
    ),
    Odd(
        "one file named twice",
        filled({"cod.txt": paragraphs(COD)}),
        {"cod": COD},
        ("cod.txt", "./cod.txt"),
        skipped={"LINKED": (1, 0)},
    ),
    Odd(
        "a hundred files that a shell names",
        filled({f"in/text {n}.txt": text for n, text in enumerate(SHORT[:100])}),
        {"in": SHORT[:100]},
        tuple(f"in/text {n}.txt" for n in range(100)),
        refused="100 sources would be a domain each, and there can be 64",
        remedy=Remedy("name the folder that they are in", sources=("in",)),
    ),
    Odd(
        "a folder with an earlier corpus in it", _prepared_before, {"in": COD}, skipped={"KIND": (5, "in/corpus/**/*")}
    ),
    Odd(
        "a cache of a hub, of which a snapshot is named",
        also(
            filled({"hub/blobs/3fa9": paragraphs(COD), "hub/refs/main": "1f"}),
            linked("hub/snapshots/1f/train.txt", "../../blobs/3fa9"),
        ),
        {"1f": COD},
        ("hub/snapshots/1f",),
    ),
    Odd(
        "a cache of a hub as a whole",
        also(
            filled({"hub/blobs/3fa9": paragraphs(COD), "hub/refs/main": "1f"}),
            linked("hub/snapshots/1f/cod.txt", "../../blobs/3fa9"),
        ),
        {"snapshots": COD},
        ("hub",),
        skipped={"KIND": (1, 2)},
    ),
    Odd(
        "an archive as people upload it",
        filled(
            {
                "archive.zip": archive(
                    {
                        "train.csv": table([["text"], *([text] for text in SHORT)]),
                        "test.csv": table([["text"], *([text] for text in OTHERS)]),
                    }
                )
            }
        ),
        {"archive": [*SHORT, *OTHERS]},
        ("archive.zip",),
        heldout={"archive": OTHERS},
    ),
    Odd(
        "messages of a newsgroup, numbered and in two encodings",
        filled(
            {
                f"in/{group}/{51000 + n}": f"From: ü{n}\n\n{text}".encode("utf-8" if n % 50 else "cp1252")
                for group, texts in (("sea", RAY[:100]), ("river", RAY[100:]))
                for n, text in enumerate(texts)
            }
        ),
        {
            "sea": [f"From: ü{n}\n\n{text}" for n, text in enumerate(RAY[:100])],
            "river": [f"From: ü{n}\n\n{text}" for n, text in enumerate(RAY[100:])],
        },
        options=("--encoding", "cp1252"),
    ),
    Odd(
        "what a spark job has written, with names of its own",
        also(
            *(
                parquet(f"in/part-0000{n}-c0ffee-1a2b-4c3d.c000.snappy.parquet", {"text": SHORT[n::3]})
                for n in range(3)
            ),
            filled({"in/_SUCCESS": "", "in/_metadata": "x"}),
        ),
        {"in": SHORT},
        skipped={"HIDDEN": (2, 1)},
    ),
    Odd(
        "folders of a partitioned table",
        also(
            *(
                parquet(
                    f"in/year={year}/month={month}/data.parquet",
                    {"text": SHORT[year % 2 * 150 + month * 50 : year % 2 * 150 + month * 50 + 50]},
                )
                for year in (2020, 2021)
                for month in range(3)
            )
        ),
        {"year-2020": SHORT[:150], "year-2021": SHORT[150:]},
    ),
    Odd(
        "copies that editors leave, and other programs' files",
        filled(
            {
                "in/a.txt": paragraphs(COD),
                "in/a.txt~": "x",
                "in/a.txt.bak": "xy",
                "in/b.pdf": b"%PDF-1.7",
                "in/c.docx": b"PK\x03\x04",
            }
        ),
        {"in": COD},
        skipped={"KIND": (4, 1 + 2 + 8 + 4)},
    ),
    Odd(
        "a file that is held out in another domain as well",
        filled(
            {
                "in/sea/train.jsonl": lines_of([*SHORT, *SHARED]),
                "in/sea/dev.jsonl": lines_of(RAY),
                "in/river/test.jsonl": lines_of(SHARED),
                "in/river/train.jsonl": lines_of(OTHERS),
            }
        ),
        {"sea": [*SHORT, *RAY], "river": [*OTHERS, *SHARED]},
        heldout={"sea": RAY, "river": SHARED},
        skipped={"HELD_OUT": (60, size(SHARED))},
    ),
    Odd(
        "a text of which a part is held out by name, in another kind",
        filled({"in/a.txt": paragraphs(COD), "held/b.jsonl": lines_of(EEL)}),
        {"in": [*COD, *EEL]},
        options=("--heldout", "held/b.jsonl"),
        heldout={"in": EEL},
    ),
    Odd(
        "an encoding that fits some files, and bytes that fit none",
        filled(
            {f"in/{n}.txt": line.encode("cp1252") for n, line in enumerate(f"Été {text}" for text in MANY[:400])}
            | {"in/x.txt": b"\x81\x8d\x8f"}
        ),
        {"in": [f"Été {text}" for text in MANY[:400]]},
        options=("--encoding", "cp1252"),
        skipped={"ENCODING": (1, 3)},
    ),
    Odd(
        "UTF-16 with half a character late in it",
        filled(
            {
                "in/a.txt": "\n".join(MANY).encode("utf-16")
                + "\nhalf ".encode("utf-16-le")
                + b"\x00\xd8"
                + " gone\n".encode("utf-16-le")
            }
        ),
        {"in": MANY},
        skipped={"ENCODING": (1, len("half ") + 1 + len(" gone"))},
    ),
    Odd(
        "Arrow that is cut off in its middle, below the limit",
        filled({"in/a.arrow": ARROW, "in/b.jsonl": lines_of(MANY)}),
        {"in": [*SHORT[:100], *MANY]},
        options=("--max-bad", "0.2"),
        skipped={"DAMAGED": (1, len(ARROW) - READ_BYTES)},
    ),
    Odd(
        "old logs in colours",
        filled({"in/a.txt": "\n".join(MANY) + "\n\x1b[31mred\x1b[0m\n"}),
        {"in": MANY},
        skipped={"TYPE": (1, 12)},
    ),
    Odd("pages of a book, with form feeds between them", filled({"in/a.txt": "\n\n\x0c\n".join(COD)}), {"in": COD}),
    Odd(
        "domains that are found, of text with splits",
        filled({"in/train.txt": "\n".join(MANY), "in/test.txt": "\n".join(OTHERS)}),
        {"cluster": [*MANY, *OTHERS]},
        options=("--domains", "2"),
        clusters=2,
        heldout={"cluster": OTHERS},
    ),
]
