"""Odd inputs of text: each kind of file that holds it, and each way in which it can lie there."""

import json

from odd_entries import (
    Odd,
    Remedy,
    filled,
    lines_of,
    paragraphs,
    passages,
    records,
    removed,
    sentences,
)
from odd_files import table

COD, EEL = passages("Cod", 40), passages("Eel", 40, start=40)
SHORT = sentences("Plaice", 200)
PAGES = passages("Ray", 30, 300)
VERSE = [
    f"{n} leaves of yellow fell upon the water of {n * 31 % 1009} ponds that" for n in range(600)
]  # as prose is wrapped by hand: full lines without an end


def page(text: str, number: int) -> str:
    """Return a page of which only the text is seen."""
    half = len(text) // 2
    cut = text.index(" ", half)
    return (
        f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>Page {number}</title><style>p {{ color: red }}'
        f"</style><script>var hidden = '<p>not seen {number}</p>';</script></head>\n<body><!-- a remark -->"
        f"<div hidden>nor this {number}</div><div><p>{text[:cut].replace('e', '&#101;')}</p>\n\n<b>{text[cut:]}</b>"
        "<template>nor that</template></div></body></html>"
    )


KINDS = [
    Odd("text of paragraphs", filled({"in/a.txt": paragraphs(COD)}), {"in": COD}),
    Odd("text named by itself", filled({"cod.txt": paragraphs(COD)}), {"cod": COD}, ("cod.txt",)),
    Odd(
        "Markdown", filled({"in/a.md": paragraphs(f"# {text}" for text in COD)}), {"in": [f"# {text}" for text in COD]}
    ),
    Odd(
        "reStructuredText",
        filled({"in/a.rst": paragraphs(f"Cod\n===\n{text}" for text in COD)}),
        {"in": [f"Cod\n===\n{text}" for text in COD]},
    ),
    Odd("one sentence a line", filled({"in/a.txt": "\n".join(SHORT)}), {"in": SHORT}),
    Odd(
        "prose that is wrapped by hand",
        filled({"in/a.txt": "\n".join(VERSE)}),
        {"in": VERSE},
        is_whole=False,
    ),
    Odd("lines that end as on Windows", filled({"in/a.txt": "\r\n".join(SHORT) + "\r\n"}), {"in": SHORT}),
    Odd(
        "paragraphs of one line, joined until they are long enough",
        filled({"in/a.txt": paragraphs(SHORT)}),
        {"in": SHORT},
        is_whole=False,
    ),
    Odd(
        "paragraphs, said to be a document a line",
        filled({"in/a.txt": paragraphs(SHORT)}),
        {"in": SHORT},
        options=("--document", "line"),
    ),
    Odd(
        "lines, said to be a document a file",
        filled({f"in/{n}.txt": "\n".join(SHORT[n * 50 : n * 50 + 50]) for n in range(4)}),
        {"in": ["\n".join(SHORT[n * 50 : n * 50 + 50]) for n in range(4)]},
        options=("--document", "file"),
        is_whole=False,
    ),
    Odd(
        "lines, said to be documents with blank lines between them",
        filled({"in/a.txt": "\n\n\n \t\n".join(COD)}),
        {"in": COD},
        options=("--document", "paragraph"),
    ),
    Odd(
        "pages of which most is not seen",
        filled({f"in/{n}.html": page(text, n) for n, text in enumerate(PAGES)}),
        {"in": PAGES},
        is_whole=False,
    ),
    Odd(
        "pages in a table of records",
        filled({"in/a.htm": page(" ".join(PAGES), 1), "in/b.xhtml": page(" ".join(COD), 2)}),
        {"in": [*PAGES, *COD]},
        is_whole=False,
    ),
    Odd("JSON lines", filled({"in/a.jsonl": lines_of(SHORT)}), {"in": SHORT}),
    Odd("JSON lines with another column", filled({"in/a.ndjson": lines_of(SHORT, "content", id="x")}), {"in": SHORT}),
    Odd("JSON lines that are texts", filled({"in/a.jsonl": records(SHORT)}), {"in": SHORT}),
    Odd(
        "JSON lines with Windows line ends, blank lines and escapes",
        filled({"in/a.jsonl": "".join(f"{json.dumps({'text': 'é' + text})}\r\n\r\n" for text in SHORT)}),
        {"in": [f"é{text}" for text in SHORT]},
    ),
    Odd(
        "JSON lines in a file called .json",
        filled({"in/a.json": lines_of(SHORT)}),
        {"in": SHORT},
    ),
    Odd(
        "JSON, a list of records on many lines",
        filled({"in/a.json": json.dumps([{"text": text, "meta": {"n": [1, {}]}} for text in SHORT], indent=4)}),
        {"in": SHORT},
    ),
    Odd("JSON, a list of texts", filled({"in/a.json": json.dumps(SHORT)}), {"in": SHORT}),
    Odd(
        "JSON, one object around a list",
        filled({"in/a.json": json.dumps({"version": "1", "data": [{"text": text} for text in SHORT]})}),
        {"in": SHORT},
    ),
    Odd(
        "JSON, objects one after the other, not a line each",
        filled({"in/a.json": "\n".join(json.dumps({"text": text}, indent=2) for text in SHORT)}),
        {"in": SHORT},
    ),
    Odd(
        "JSON, one object with a list for each split",
        filled(
            {
                "in/a.json": json.dumps(
                    {"train": [{"text": t} for t in SHORT[:150]], "test": [{"text": t} for t in SHORT[150:]]}
                )
            }
        ),
        {"in": SHORT},
        heldout={"in": SHORT[150:]},
    ),
    Odd(
        "JSON, one record of one text in each of 40 files",
        filled({f"in/{n}.json": json.dumps({"title": "", "text": text}) for n, text in enumerate(COD)}),
        {"in": COD},
    ),
    Odd(
        "source code",
        filled(
            {f"in/{n}.py": f"def f_{n}():\n\t'''{text}'''\n\n\n\treturn {n}\n" for n, text in enumerate(COD[:20])}
            | {f"in/lib/{n}.C": f"/* {text} */\n\nint main(void);\n" for n, text in enumerate(COD[20:])}
        ),
        {
            "in": [f"def f_{n}():\n\t'''{text}'''\n\n\n\treturn {n}" for n, text in enumerate(COD[:20])],
            "lib": [f"/* {text} */\n\nint main(void);" for text in COD[20:]],
        },
        options=("--ext", ".py, c"),
    ),
    Odd(
        "files with an ending that nobody knows",
        filled({f"in/{n}.log": text for n, text in enumerate(COD)}),
        {"in": COD},
        refused="holds no text",
        remedy=Remedy("others with --ext", ("--ext", ".log")),
    ),
    Odd(
        "one file with an ending that nobody knows",
        filled({"notes.log": COD[0] + "\n" + "\n\n".join(COD[1:])}),
        {"notes": COD},
        ("notes.log",),
        refused="cannot tell what it holds",
        remedy=Remedy("--ext .log", ("--ext", ".log")),
        is_whole=False,
    ),
    Odd(
        "the text inside of another column",
        filled({"in/a.jsonl": records({"a": {"b": text, "c": "x"}, "d": 1} for text in SHORT)}),
        {"in": SHORT},
        options=("--text-column", "a.b"),
    ),
    Odd(
        "a column whose name has a dot",
        filled({"in/a.jsonl": records({"a.b": text, "a": {"b": 5}} for text in SHORT)}),
        {"in": SHORT},
        options=("--text-column", "a.b"),
    ),
    Odd(
        "two columns that may be the text",
        filled({"in/a.jsonl": records({"abstract": text, "title": "T"} for text in SHORT)}),
        {"in": SHORT},
        refused="which column is the text is not clear",
        remedy=Remedy("--text-column, one of: abstract, title", ("--text-column", "abstract")),
    ),
    Odd(
        "a column that names domains",
        filled({"in/a.jsonl": records({"text": text, "kind": f"sea {n % 2}"} for n, text in enumerate(SHORT))}),
        {"sea-0": SHORT[::2], "sea-1": SHORT[1::2]},
        options=("--domain-column", "kind"),
    ),
    Odd(
        "a column that names domains, and files without columns",
        filled(
            {
                "in/a.jsonl": records({"text": text, "kind": "sea"} for text in SHORT),
                "in/b.txt": paragraphs(COD),
                "in/c.html": "<p>x",
            }
        ),
        {"sea": SHORT},
        options=("--domain-column", "kind"),
        refused="has no columns",
        remedy=Remedy(
            "use JSON lines or Parquet",
            mend=removed("in/b.txt", "in/c.html"),
        ),
        skipped={},
    ),
    Odd(
        "kinds of all sorts in one folder",
        filled(
            {
                "in/a.txt": paragraphs(COD[:10]),
                "in/b.jsonl": lines_of(COD[10:20]),
                "in/c.csv": table([["text"], *([text] for text in COD[20:30])]),
                "in/d.json": json.dumps(COD[30:]),
                "in/e.md": paragraphs(EEL[:10]),
                "in/f.html": f"<p>{EEL[10]}</p>",
            }
        ),
        {"in": [*COD, *EEL[:11]]},
    ),
]
