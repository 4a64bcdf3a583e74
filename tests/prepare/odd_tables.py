"""Odd inputs that are tables: CSV, TSV, Parquet, Arrow, saved datasets."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.feather
import pyarrow.parquet
from odd_entries import Odd, Remedy, Write, also, filled, passages, put, sentences

COD, EEL = passages("Cod", 40), passages("Eel", 40, start=40)
SHORT = sentences("Plaice", 200)
ODD_CELLS = [f'{text} He said "yes, {n}",\nand went;\tso did she' for n, text in enumerate(sentences("Tuna", 120))]
PAGES = passages("Ray", 30, 300)
VERSE = [
    f"{n} leaves of yellow fell upon the water of {n * 31 % 1009} ponds that" for n in range(600)
]  # as prose is wrapped by hand: full lines without an end


def table(rows: Iterable[Sequence[str]], delimiter: str = ",", ends: str = "\r\n") -> str:
    """Return rows as Python writes CSV."""
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=ends).writerows(rows)
    return out.getvalue()


def parquet(name: str, columns: dict[str, Any], **options: Any) -> Write:
    """Return what writes a table."""

    def write(place: Path) -> None:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)

    return write


def saved(name: str, texts: Sequence[str], shards: int = 1) -> Write:
    """Return what writes a dataset as `save_to_disk` of the library `datasets` does."""

    def write(place: Path) -> None:
        names = [f"data-{at:05}-of-{shards:05}.arrow" for at in range(shards)]
        for at, file in enumerate(names):
            part = pyarrow.table({"text": list(texts[at::shards]), "n": list(range(len(texts[at::shards])))})
            path = put(place / name / file, b"")
            with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, part.schema) as stream:
                stream.write_table(part, max_chunksize=7)
        state = {"_data_files": [{"filename": file} for file in names], "_fingerprint": "1f", "_split": None}
        put(place / name / "state.json", STATE := json.dumps(state))
        put(place / name / "dataset_info.json", INFO)
        assert len(STATE) == len(state_of(names))

    return write


INFO = json.dumps({"features": {"text": {"dtype": "string", "_type": "Value"}}})


def state_of(names: Sequence[str]) -> str:
    """Return what a saved dataset has in its state.json."""
    return json.dumps({"_data_files": [{"filename": file} for file in names], "_fingerprint": "1f", "_split": None})


def feather(place: Path) -> None:
    (place / "in").mkdir()
    pyarrow.feather.write_feather(pyarrow.table({"text": SHORT}), place / "in" / "a.arrow", compression="lz4")


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


SHARES = {"texts": COD[:20], "more": EEL[:20]}
STATE_OF_2 = len(state_of(["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]))
STATE_OF_1 = len(state_of(["data-00000-of-00001.arrow"]))

TABLES = [
    Odd(
        "CSV with quotes, commas and line ends in its cells",
        filled({"in/a.csv": table([["id", "text"], *([str(n), text] for n, text in enumerate(ODD_CELLS))])}),
        {"in": ODD_CELLS},
    ),
    Odd(
        "CSV with semicolons, as a spreadsheet in Europe writes it",
        filled(
            {"in/a.csv": "\ufeff" + table([["Nr", "text"], *([str(n), text] for n, text in enumerate(ODD_CELLS))], ";")}
        ),
        {"in": ODD_CELLS},
    ),
    Odd("CSV of one column without a header", filled({"in/a.csv": table([text] for text in SHORT)}), {"in": SHORT}),
    Odd(
        "CSV whose column of texts must be named",
        filled({"in/a.csv": table([["title", "words"], *(["T", text] for text in SHORT)])}),
        {"in": SHORT},
        refused="which column is the text is not clear",
        remedy=Remedy("--text-column, one of: title, words", ("--text-column", "words")),
    ),
    Odd(
        "TSV with quotes that quote nothing",
        filled(
            {
                "in/a.tsv": "n\ttext\n" + "".join(f'{n}\t"{text}\n' for n, text in enumerate(SHORT)),
            }
        ),
        {"in": [f'"{text}' for text in SHORT]},
    ),
    Odd(
        "TSV with quotes and tabs in its cells",
        filled({"in/a.tsv": table([["n", "text"], *([str(n), text] for n, text in enumerate(ODD_CELLS))], "\t", "\n")}),
        {"in": ODD_CELLS},
    ),
    Odd("Parquet in several row groups", parquet("in/a.parquet", {"text": SHORT}, row_group_size=7), {"in": SHORT}),
    Odd(
        "Parquet, shards of which one has no rows",
        also(
            *(
                parquet(f"in/train-0000{n}-of-00003.parquet", {"text": pyarrow.array(rows, pyarrow.string())})
                for n, rows in enumerate((SHORT[:90], [], SHORT[90:]))
            )
        ),
        {"in": SHORT},
        skipped={"BLANK": (1, 0)},
    ),
    Odd(
        "Parquet with two schemas",
        also(
            parquet("in/a.parquet", {"text": SHORT[:90], "n": [1.5] * 90}),
            parquet("in/b.parquet", {"url": ["u"] * 110, "content": SHORT[90:], "tags": [["t"]] * 110}),
        ),
        {"in": SHORT},
    ),
    Odd(
        "Parquet with bytes, a dictionary and nulls",
        also(
            parquet("in/a.parquet", {"text": [text.encode() for text in SHORT[:90]]}),
            parquet("in/b.parquet", {"text": pyarrow.array(SHORT[90:190]).dictionary_encode()}),
            parquet("in/c.parquet", {"text": pyarrow.array([*SHORT[190:], None, ""], pyarrow.large_string())}),
        ),
        {"in": SHORT},
        skipped={"BLANK": (2, 0)},
    ),
    Odd(
        "Parquet with the text inside of another column",
        parquet("in/a.parquet", {"page": [{"text": text, "url": "u"} for text in SHORT], "n": [1] * 200}),
        {"in": SHORT},
        refused="no column holds text",
        remedy=Remedy("name one with --text-column", ("--text-column", "page.text")),
    ),
    Odd(
        "a saved Arrow dataset of two shards",
        saved("in", SHORT, 2),
        {"in": sorted(SHORT)},
        skipped={"ABOUT": (2, len(INFO) + STATE_OF_2)},
    ),
    Odd(
        "a saved Arrow dataset with splits",
        also(
            saved("in/train", SHORT[:150]),
            saved("in/test", SHORT[150:]),
            filled({"in/dataset_dict.json": '{"splits": ["train", "test"]}'}),
        ),
        {"in": SHORT},
        heldout={"in": SHORT[150:]},
        skipped={"ABOUT": (5, 2 * (len(INFO) + STATE_OF_1) + len('{"splits": ["train", "test"]}'))},
    ),
    Odd("an Arrow file, compressed inside", feather, {"in": SHORT}),
]
