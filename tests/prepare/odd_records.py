"""Odd inputs of records, in which what is usual misleads."""

import json

from odd_entries import (
    Odd,
    Remedy,
    chatted,
    filled,
    lines_of,
    records,
    sentences,
)
from odd_files import table
from odd_tasks import ASKED, PAIRS, TOLD, WINDOW, messages

SHORT, OTHERS, MANY = sentences("Halibut", 300), sentences("Witch", 300), sentences("Megrim", 3000)
TASK = records({"input": i, "target": t} for i, t in zip(ASKED, TOLD, strict=True))


TOOLS = {
    "messages": [
        {"role": "user", "content": "Add."},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ]
}

RECORDS = [
    Odd(
        "a first record that is like no other",
        filled({"in/a.jsonl": records([{"title": "Of what follows"}]) + lines_of(MANY)}),
        {"in": MANY},
        refused="has no column 'title'; the columns are: text",
        remedy=Remedy("name one with --text-column", ("--text-column", "text")),
        skipped={"COLUMN": (1, len('{"title": "Of what follows"}'))},
    ),
    Odd(
        "chats with tools, below the limit",
        filled({"in/a.jsonl": records([messages(i, t) for i, t in zip(ASKED, TOLD, strict=True)]) + records([TOOLS])}),
        {"in": [chatted(i, t) for i, t in zip(ASKED, TOLD, strict=True)]},
        options=("--chat-format", "plain", "--max-bad", "0.02"),
        skipped={"INCOMPLETE": (1, len("Add.2It is 2."))},
        context=WINDOW,
    ),
    Odd(
        "a prompt that names no column",
        filled({"in/a.jsonl": TASK}),
        {"in": PAIRS},
        options=("--prompt", "What?"),
        refused="the prompt names no column",
        remedy=Remedy("--prompt '{question}'", ("--prompt", "{input}")),
        context=WINDOW,
    ),
    Odd(
        "an input without a target",
        filled({"in/a.jsonl": records({"q": i, "a": t} for i, t in zip(ASKED, TOLD, strict=True))}),
        {"in": PAIRS},
        options=("--input-column", "q"),
        refused="the column of the target is not said",
        remedy=Remedy("--target-column", ("--target-column", "a")),
        context=WINDOW,
    ),
    Odd(
        "a column of splits that says something else",
        filled(
            {
                "in/a.jsonl": records(
                    {"text": text, "fold": n, "set": "dev" if n % 9 == 0 else "train"} for n, text in enumerate(SHORT)
                )
            }
        ),
        {"in": SHORT},
        options=("--split-column", "fold"),
        heldout={"in": SHORT[::9]},
        refused="neither train nor held out",
        remedy=Remedy("--split-column", ("--split-column", "set")),
    ),
    Odd(
        "a column of domains that is not there",
        filled({"in/a.jsonl": records({"text": text, "kind": "k"} for text in SHORT)}),
        {"k": SHORT},
        options=("--domain-column", "topic"),
        refused="has no column 'topic'; the columns are: text, kind",
        remedy=Remedy("--domain-column", ("--domain-column", "kind")),
    ),
    Odd(
        "JSON, an object with a record for each key",
        filled({"in/a.json": json.dumps({f"id{n}": {"text": text} for n, text in enumerate(SHORT)})}),
        {"in": SHORT},
    ),
    Odd(
        "JSON lines, each of them a list",
        filled({"in/a.jsonl": lines_of(MANY) + '["a", "b"]\n'}),
        {"in": MANY},
        skipped={"TYPE": (1, 10)},
    ),
    Odd(
        "CSV with a header and no rows",
        filled({"in/a.csv": "text,n\n", "in/b.csv": table([["text", "n"], *([text, "1"] for text in SHORT)])}),
        {"in": SHORT},
        skipped={"BLANK": (1, 0)},
    ),
    Odd(
        "commas in a file called .tsv",
        filled({"in/a.tsv": table([["n", "text"], *([str(n), text] for n, text in enumerate(SHORT))])}),
        {"in": SHORT},
    ),
    Odd(
        "tabs in a file called .csv",
        filled({"in/a.csv": table([["n", "text"], *([str(n), text] for n, text in enumerate(SHORT))], "\t")}),
        {"in": SHORT},
    ),
    Odd(
        "CSV that says its separator in the first line, as Excel does",
        filled(
            {"in/a.csv": "sep=;\r\n" + table([["n", "text"], *([str(n), text] for n, text in enumerate(SHORT))], ";")}
        ),
        {"in": SHORT},
    ),
    Odd(
        "CSV with line ends of the first Macs",
        filled({"in/a.csv": table([["n", "text"], *([str(n), text] for n, text in enumerate(SHORT))], ends="\r")}),
        {"in": SHORT},
    ),
    Odd(
        "JSON, a wrapped list, with a column that is named",
        filled({"in/a.json": json.dumps({"data": [{"body": text, "title": "T"} for text in SHORT]})}),
        {"in": SHORT},
        options=("--text-column", "body"),
    ),
    Odd(
        "JSON of many megabytes, an object with a record for each key",
        filled(
            {
                "in/a.json": json.dumps(
                    {f"id{n}": {"text": text, "about": "x" * 1000} for n, text in enumerate(sentences("Ling", 6000))}
                )
            }
        ),
        {"in": sentences("Ling", 6000)},
    ),
    Odd(
        "JSON of many megabytes, a wrapped list, with a column that is named",
        filled(
            {
                "in/a.json": json.dumps(
                    {"data": [{"body": text, "about": "x" * 1000} for text in sentences("Ling", 6000)]}
                )
            }
        ),
        {"in": sentences("Ling", 6000)},
        options=("--text-column", "body"),
    ),
]
