"""Odd inputs that are tables: CSV, TSV, Parquet, Arrow, saved datasets."""

from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
from odd_entries import Odd, Remedy, also, filled, sentences
from odd_files import INFO, parquet, saved, state_of, table

SHORT = sentences("Plaice", 200)
ODD_CELLS = [f'{text} He said "yes, {n}",\nand went;\tso did she' for n, text in enumerate(sentences("Tuna", 120))]


def feather(place: Path) -> None:
    (place / "in").mkdir()
    pyarrow.feather.write_feather(pyarrow.table({"text": SHORT}), place / "in" / "a.arrow", compression="lz4")


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
