"""Odd inputs that are too large, too small or too bad, and what is left out on purpose."""

import pyarrow
import pyarrow.parquet
from odd_entries import (
    Odd,
    Remedy,
    also,
    filled,
    lines_of,
    paragraphs,
    passages,
    sentences,
    size,
)
from odd_files import parquet, spoilt, table_of

COD, EEL = passages("Wels"), passages("Ide", 200)
SHORT, MANY = sentences("Asp", 300), sentences("Orfe", 3000)
LONG = "\n".join(MANY[:1500])
LINES = lines_of(SHORT).encode()


LIMITS = [
    Odd(
        "a document that is longer than a piece",
        filled({"in/a.txt": LONG, "in/b.txt": paragraphs(COD)}),
        {"in": [LONG, *COD]},
        options=("--document", "file"),
        is_whole=False,
    ),
    Odd(
        "a line that is longer than a piece",
        filled({"in/a.txt": "\n".join([*SHORT, " ".join(MANY)])}),
        {"in": [*SHORT, *MANY]},
        options=("--document", "line"),
        is_whole=False,
    ),
    Odd(
        "bad lines, just below the limit",
        filled({"in/a.jsonl": LINES + b"x" * (size(SHORT) // 99 - 1) + b"\n"}),
        {"in": SHORT},
        skipped={"BROKEN": (1, size(SHORT) // 99 - 1)},
    ),
    Odd(
        "bad lines, just above the limit",
        filled({"in/a.jsonl": LINES + b"x" * (size(SHORT) // 99 + 2) + b"\n"}),
        {"in": SHORT},
        refused="of the text cannot be used, more than --max-bad 0.01 allows",
        remedy=Remedy("--max-bad", ("--max-bad", "0.02")),
        skipped={"BROKEN": (1, size(SHORT) // 99 + 2)},
    ),
    Odd(
        "one bad line where none is allowed",
        filled({"in/a.jsonl": LINES + b"oops\n"}),
        {"in": SHORT},
        options=("--max-bad", "0"),
        refused="line 301: broken JSON",
        remedy=Remedy("repair or remove it", mend=filled({"in/a.jsonl": LINES})),
    ),
    Odd(
        "mostly bad lines where all are allowed",
        filled({"in/a.jsonl": LINES + b"oops\n" * 20_000}),
        {"in": SHORT},
        options=("--max-bad", "1"),
        skipped={"BROKEN": (20_000, 80_000)},
    ),
    Odd(
        "only one text",
        filled({"in/a.txt": "One text, and nothing else."}),
        {"in": COD},
        refused="has only one document",
        remedy=Remedy("give it more text", mend=filled({"in/a.txt": paragraphs(COD)})),
    ),
    Odd(
        "the same text again and again",
        filled({"in/a.jsonl": lines_of(["The same."] * 50)}),
        {"in": COD},
        refused="says the same",
        remedy=Remedy("give it more text", mend=filled({"in/a.jsonl": lines_of(COD)})),
    ),
    Odd(
        "less text than a window",
        filled({"in/a.jsonl": lines_of(SHORT[:6])}),
        {"in": SHORT},
        options=("--context-length", "1000"),
        refused="fewer than one window of 1000",
        remedy=Remedy("give it more text", mend=filled({"in/a.jsonl": lines_of(SHORT)})),
    ),
    Odd(
        "documents that are too short",
        filled({"in/a.jsonl": lines_of([*SHORT, *(f"No. {n}" for n in range(30))])}),
        {"in": SHORT},
        options=("--min-characters", "20"),
        skipped={"LENGTH": (30, size(f"No. {n}" for n in range(30)))},
    ),
    Odd(
        "what is held out is in the text as well",
        filled({"in/train.jsonl": lines_of([*SHORT, *MANY[:20]]), "in/test.jsonl": lines_of(MANY[:50])}),
        {"in": [*SHORT, *MANY[:50]]},
        heldout={"in": MANY[:50]},
        skipped={"HELD_OUT": (20, size(MANY[:20]))},
    ),
    Odd(
        "texts that are all too short",
        filled({"in/a.jsonl": lines_of(SHORT)}),
        {"in": SHORT},
        options=("--min-characters", "5000"),
        refused="is too short or too long",
        remedy=Remedy("--min-characters", ("--min-characters", "5")),
    ),
    Odd(
        "texts with a document inside that no other is like, decontaminated",
        also(filled({"in/a.jsonl": lines_of([*COD, EEL[150]]), "exam.txt": EEL[150]})),
        {"in": COD},
        options=("--decontaminate", "exam.txt"),
        skipped={"LISTED": (1, size([EEL[150]]))},
    ),
    Odd(
        "Parquet rows that are null, or no text",
        parquet("in/a.parquet", {"text": pyarrow.array([*SHORT, None]), "n": list(range(301))}),
        {"in": SHORT},
        skipped={"BLANK": (1, 0)},
    ),
    Odd(
        "a Parquet file with a spoilt row group",
        filled({"in/a.parquet": spoilt(table_of(MANY, 1000), 90_000, 3)}),
        {"in": [*MANY[:1412], *MANY[1413:]]},
        skipped={"ENCODING": (1, len(MANY[1412]))},
    ),
]
