"""Odd inputs at the corners of how text is read: ends of blocks, long records, rare archives and pages."""

import gzip
import io
import json
import random
import zipfile
from collections.abc import Sequence

from odd_encodings import CHINESE, RUSSIAN
from odd_entries import (
    Odd,
    Remedy,
    asked,
    filled,
    lines_of,
    paragraphs,
    passages,
    records,
    removed,
    sentences,
    size,
)
from odd_files import archive, in_memory, spoilt, table, table_of
from odd_tasks import ASKED, TOLD, WINDOW

COD, EEL = passages("Gurnard"), passages("Blenny")
SHORT, OTHERS, MANY = sentences("Goby", 300), sentences("Lumpfish", 100), sentences("Stickleback", 3000)
LONG = " ".join(f"{n}. {text}" for n in range(25) for text in MANY)  # more than is held in memory
GERMAN = [f"Der Fisch {n} schwamm dem Schwarm der {n * 31 % 997} Heringe voraus, bis er müde war." for n in range(40)]
ENGLISH = [f"The ship number {n} left the harbour early in the morning with {n * 31 % 997} men." for n in range(300)]
WORDS = [
    first + last for first in ("cod", "eel", "ray", "tuna") for last in ("fin", "tail", "bone", "eye", "net", "gill")
]
MIXED = [" ".join(random.Random(n).choices(WORDS, k=120)) for n in range(80)]
CHANGED = [f"{text} whale" for text in MIXED[:7]]
FISHES = [f"{n}🐟" + "鱼🐠" * 200 + "." for n in range(900)]  # more than a block of four bytes each
VERSE = [f"{n} drops of rain on {n * 17 % 101} roofs of tin and stone" for n in range(30)]
NOTICE = "A page with <i>words</i>&nbsp;and &amp; signs, <br>lines<pre>  kept\n as is</pre><ul><li>one<li>two</ul>"


def sealed(bits: int, method: int) -> bytes:
    """Return an archive whose one member has these flags and this way of packing."""
    raw = bytearray(archive({"secret.txt": "Nobody can read this here."}, zipfile.ZIP_STORED))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        begin = raw.index(signature) + at
        raw[begin] |= bits
        raw[begin + 2] = method
    return bytes(raw)


def packed_lines(lines: Sequence[str]) -> bytes:
    """Return a member whose name has colons, in an archive behind a program that unpacks it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a::b [1].txt", "\n".join(lines))
    return b"#!/bin/sh\nexit\n" + out.getvalue()


CORNERS = [
    Odd("characters of four bytes over the ends of blocks", filled({"in/a.txt": "\n".join(FISHES)}), {"in": FISHES}),
    Odd(
        "Chinese in GBK, longer than what is looked at",
        filled({"in/a.txt": "\n".join(f"{n} {line}" for n in range(8) for line in CHINESE).encode("gbk")}),
        {"in": [f"{n} {line}" for n in range(8) for line in CHINESE]},
    ),
    Odd(
        "Russian in cp1251 with line ends of Windows, longer than what is looked at",
        filled({"in/a.txt": "\r\n".join(f"{n} {line}" for n in range(8) for line in RUSSIAN).encode("cp1251")}),
        {"in": [f"{n} {line}" for n in range(8) for line in RUSSIAN]},
    ),
    Odd(
        "paragraphs with Windows line ends, longer than a block",
        filled({"in/a.txt": "\r\n\r\n".join(f"{n} {text}" for n in range(12) for text in passages("Sculpin", 100))}),
        {"in": [f"{n} {text}" for n in range(12) for text in passages("Sculpin", 100)]},
    ),
    Odd(
        "a long JSON line, compressed",
        filled({"in/a.jsonl.gz": gzip.compress(lines_of([*SHORT, LONG]).encode(), 1)}),
        {"in": [*SHORT, LONG]},
        is_whole=False,
    ),
    Odd(
        "a long JSON line in UTF-16, first",
        filled({"in/a.jsonl": lines_of([LONG, *SHORT]).encode("utf-16")}),
        {"in": [LONG, *SHORT]},
        is_whole=False,
    ),
    Odd(
        "a long record in a JSON list",
        filled({"in/a.json": json.dumps([{"n": 1, "text": text} for text in [*SHORT, LONG, *OTHERS]])}),
        {"in": [*SHORT, LONG, *OTHERS]},
        is_whole=False,
    ),
    Odd(
        "a long JSON line that is cut off",
        filled({"in/a.jsonl": lines_of(SHORT) + lines_of([LONG])[:-9]}),
        {"in": SHORT},
        refused="is damaged or cut off",
        remedy=Remedy("leave such text out: --max-bad 1", ("--max-bad", "1")),
        skipped={"DAMAGED": (1, len(lines_of([LONG])) - 9)},
    ),
    Odd(
        "a long example",
        filled(
            {
                "in/a.jsonl": records(
                    [
                        *({"input": i, "target": t} for i, t in zip(ASKED, TOLD, strict=True)),
                        {"input": LONG, "target": "No."},
                    ]
                )
            }
        ),
        {"in": [asked(*pair) for pair in zip(ASKED, TOLD, strict=True)]},
        refused="shorten it, or split the record",
        remedy=Remedy("leave such text out: --max-bad 1", ("--max-bad", "1")),
        skipped={"TOO_LONG": (1, len(json.dumps({"input": LONG, "target": "No."})))},
        context=WINDOW,
    ),
    Odd(
        "what looks like the end of a text",
        filled({"in/a.jsonl": lines_of(f"<|endoftext|>{text}</s>" for text in SHORT)}),
        {"in": [f"<|endoftext|>{text}</s>" for text in SHORT]},
    ),
    Odd("all texts twice", filled({"in/a.jsonl": lines_of([*SHORT, *SHORT])}), {"in": [*SHORT, *SHORT]}),
    Odd(
        "texts twice, of which one stays, beside what is held out",
        filled({"in/train.jsonl": lines_of([*SHORT, *SHORT[:50]]), "in/dev.jsonl": lines_of(OTHERS)}),
        {"in": [*SHORT, *OTHERS]},
        options=("--deduplicate",),
        heldout={"in": OTHERS},
        skipped={"DUPLICATE": (50, size(SHORT[:50]))},
    ),
    Odd(
        "texts that are nearly the same as others",
        filled({"in/train.jsonl": lines_of([*MIXED, *CHANGED]), "in/dev.jsonl": lines_of(SHORT)}),
        {"in": [*MIXED, *SHORT]},
        options=("--near-duplicates", "0.7"),
        heldout={"in": SHORT},
        skipped={"NEAR_DUPLICATE": (7, size(CHANGED))},
    ),
    Odd(
        "texts in another language",
        filled({"in/a.jsonl": lines_of([*ENGLISH, *GERMAN])}),
        {"in": ENGLISH},
        options=("--language", "en"),
        skipped={"LANGUAGE": (40, size(GERMAN))},
    ),
    Odd(
        "an input that is held out, with another target",
        filled(
            {
                "in/train.jsonl": records(
                    [
                        *({"input": i, "target": t} for i, t in zip(ASKED, TOLD, strict=True)),
                        {"input": OTHERS[3], "target": "Other."},
                    ]
                ),
                "in/test.jsonl": records({"input": text, "target": "Yes."} for text in OTHERS),
            }
        ),
        {"in": [*(asked(*pair) for pair in zip(ASKED, TOLD, strict=True)), *(asked(text, "Yes.") for text in OTHERS)]},
        heldout={"in": [asked(text, "Yes.") for text in OTHERS]},
        skipped={"HELD_OUT": (1, size([f"{OTHERS[3]}\nOther."]))},
        context=WINDOW,
    ),
    Odd(
        "more domains in a column than there can be",
        filled({"in/a.jsonl": records({"text": text, "kind": f"k{n % 100}"} for n, text in enumerate(MANY))}),
        {"cluster": MANY},
        options=("--domain-column", "kind"),
        clusters=2,
        refused="there are more than 64 domains",
        remedy=Remedy("let domains be found with --domains", ("--domains", "2"), is_instead=True),
    ),
    Odd(
        "less text than a window of many tokens",
        filled({"in/a.jsonl": lines_of(SHORT[:40])}),
        {"in": SHORT[:40]},
        options=("--context-length", "4096"),
        refused="fewer than one window of 4096",
        remedy=Remedy("a smaller --context-length", ("--context-length", "16")),
    ),
    Odd(
        "a poem",
        filled({"in/a.txt": "\n".join(VERSE)}),
        {"in": VERSE},
        refused="has only one document",
        remedy=Remedy("see --document", ("--document", "line")),
    ),
    Odd(
        "one text, and another to hold out",
        filled({"in/a.txt": " ".join(VERSE), "b.txt": paragraphs(EEL)}),
        {"in": [" ".join(VERSE), *EEL]},
        heldout={"in": EEL},
        refused="has only one document",
        remedy=Remedy("with --heldout", ("--heldout", "b.txt")),
    ),
    Odd(
        "notices, which are what the text is",
        filled(
            {f"in/notice-{n:04}.txt": text for n, text in enumerate(SHORT)}
            | {"in/NOTICE": "About.", "in/CITATION.cff": "cff"}
        ),
        {"in": SHORT},
        skipped={"ABOUT": (2, 9)},
    ),
    Odd(
        "a member of an archive that is encrypted, and one packed in an unusual way",
        filled({"in/a.txt": paragraphs(COD * 1), "in/b.zip": sealed(1, 0), "in/c.zip": sealed(0, 9)}),
        {"in": COD},
        options=("--max-bad", "0.1"),
        skipped={"UNREADABLE": (2, 52)},
    ),
    Odd(
        "an archive behind a program, with colons in names",
        filled({"in.zip": packed_lines(SHORT)}),
        {"in": SHORT},
        ("in.zip",),
    ),
    Odd(
        "an archive in memory",
        in_memory({"fish.zip": archive({"sea/a.txt": paragraphs(COD), "river/b.jsonl": lines_of(EEL)})}),
        {"sea": COD, "river": EEL},
        ("memory://odd/fish.zip",),
    ),
    Odd(
        "a compressed file in memory",
        in_memory({"perch.jsonl.gz": gzip.compress(lines_of(SHORT).encode())}),
        {"perch": SHORT},
        ("memory://odd/perch.jsonl.gz",),
    ),
    Odd(
        "an address that does not lead anywhere",
        in_memory({"bass.txt": paragraphs(COD).encode()}),
        {"bass": COD},
        ("memory://odd/pass.txt",),
        refused="no such file or folder",
        remedy=Remedy("check the address", sources=("memory://odd/bass.txt",)),
    ),
    Odd(
        "empty files of all kinds",
        filled(
            {
                f"in/{name}": ""
                for name in ("a.parquet", "b.arrow", "c.json", "d.csv", "e.html", "f.txt.gz", "g.jsonl.zst")
            }
            | {"in/x.txt": paragraphs(COD), "in/y.txt.gz": gzip.compress(b"")}
        ),
        {"in": COD},
        skipped={"BLANK": (8, "in/y.txt.gz")},
    ),
    Odd(
        "text that is called .parquet",
        filled({"in/a.txt": paragraphs(COD), "in/b.parquet": "no table\n" * 3}),
        {"in": COD},
        skipped={"DAMAGED": (1, 27)},
    ),
    Odd(
        "a Parquet file whose first row group is spoilt",
        filled({"in/a.parquet": spoilt(table_of(MANY, 100), 4, 16)}),
        {"in": MANY[100:]},
        options=("--max-bad", "0.1"),
        skipped={"DAMAGED": (1, len(table_of(MANY, 100)) * 100 // 3000)},
    ),
    Odd(
        "JSON, a list with a comma too many",
        filled({"in/a.json": json.dumps([{"text": text} for text in MANY])[:-1] + ",]"}),
        {"in": MANY},
        skipped={},
    ),
    Odd(
        "JSON with a mark, marks of comments and numbers",
        filled({"in/a.json": "\ufeff" + json.dumps([*({"text": text} for text in MANY), 5, None, {"text": 1.5}])}),
        {"in": MANY},
        skipped={"TYPE": (3, 1 + 4 + len('{"text": 1.5}'))},
    ),
    Odd(
        "pages with all sorts of elements",
        filled({f"in/{n}.html": NOTICE + f"<table><tr><td>{text}</table>" for n, text in enumerate(SHORT)}),
        {"in": [f"A page with words and & signs, lines kept as is one two {text}" for text in SHORT]},
        is_whole=False,
    ),
    Odd(
        "a page longer than a block, in one element",
        filled({"in/a.html": "<html><body><p>" + " ".join(f"<b>{n}</b> {text}" for n in range(8) for text in MANY)}),
        {"in": [f"{n} {text}" for n in range(8) for text in MANY]},
        is_whole=False,
    ),
    Odd(
        "CSV of examples, with a column of splits",
        filled(
            {
                "in/a.csv": table(
                    [
                        ["question", "answer", "split"],
                        *(
                            [i, t, "train" if n % 4 else "test"]
                            for n, (i, t) in enumerate(zip(ASKED, TOLD, strict=True))
                        ),
                    ]
                )
            }
        ),
        {"in": [asked(*pair) for pair in zip(ASKED, TOLD, strict=True)]},
        heldout={"in": [asked(*pair) for pair in zip(ASKED[::4], TOLD[::4], strict=True)]},
        context=WINDOW,
    ),
    Odd(
        "a table of which one file lacks the named column",
        filled({"in/a.jsonl": lines_of(MANY, "body"), "in/b.jsonl": lines_of(OTHERS)}),
        {"in": MANY},
        options=("--text-column", "body"),
        refused="has no column 'body'; the columns are: text",
        remedy=Remedy("first in/b.jsonl", mend=removed("in/b.jsonl")),
    ),
    Odd(
        "texts that are all like what is held out",
        filled({"in/train.jsonl": lines_of(MIXED[:7]), "in/dev.jsonl": lines_of(CHANGED)}),
        {"in": [*MIXED[:7], *CHANGED]},
        options=("--near-duplicates", "0.7"),
        heldout={"in": CHANGED},
        refused="has nothing left to train on",
        remedy=Remedy("leave out --deduplicate and --near-duplicates", (), is_instead=True),
    ),
    Odd(
        "texts that are all held out as well",
        filled(
            {
                "in/sea/train.jsonl": lines_of(OTHERS),
                "in/sea/dev.jsonl": lines_of(OTHERS),
                "in/river/a.jsonl": lines_of(SHORT),
            }
        ),
        {"sea": [*OTHERS, *MIXED], "river": SHORT},
        refused="has nothing left to train on",
        remedy=Remedy("give it more text", mend=filled({"in/sea/train.jsonl": lines_of([*OTHERS, *MIXED])})),
        heldout={"sea": OTHERS},
        skipped={"HELD_OUT": (100, size(OTHERS))},
    ),
]
