"""Odd inputs by what is held out, and into how many files it is cut."""

import gzip

from odd_entries import (
    Odd,
    Remedy,
    also,
    filled,
    lines_of,
    paragraphs,
    passages,
    records,
    renamed,
    sentences,
)
from odd_files import parquet

COD, EEL, RAY = passages("Zander"), passages("Roach"), passages("Burbot")
SHORT, OTHERS = sentences("Dory", 300), sentences("Hake", 100)
TWENTY = sentences("Tench", 4000)


SPLITS = [
    Odd(
        "one file of train and one of valid",
        filled({"in/train.txt": paragraphs(COD), "in/valid.txt": paragraphs(EEL)}),
        {"in": [*COD, *EEL]},
        heldout={"in": EEL},
    ),
    Odd(
        "folders of train, dev and test",
        filled({"in/train/1.txt": paragraphs(COD), "in/dev/1.txt": paragraphs(EEL), "in/test/1.txt": paragraphs(RAY)}),
        {"in": [*COD, *EEL, *RAY]},
        heldout={"in": [*EEL, *RAY]},
    ),
    Odd(
        "splits in each domain",
        filled(
            {
                "in/sea/train.jsonl": lines_of(COD),
                "in/sea/validation.jsonl": lines_of(RAY),
                "in/river/a.txt": paragraphs(EEL),
            }
        ),
        {"sea": [*COD, *RAY], "river": EEL},
        heldout={"sea": RAY},
    ),
    Odd(
        "a column of splits",
        filled(
            {
                "in/a.jsonl": records(
                    {"text": text, "split": ("train", "test")[n % 5 == 0]} for n, text in enumerate(SHORT)
                )
            }
        ),
        {"in": SHORT},
        heldout={"in": SHORT[::5]},
    ),
    Odd(
        "a column of splits with another name",
        filled(
            {
                "in/a.jsonl": records(
                    {"text": text, "set": ("Training", "DEV")[n % 5 == 0]} for n, text in enumerate(SHORT)
                )
            }
        ),
        {"in": SHORT},
        options=("--split-column", "set"),
        heldout={"in": SHORT[::5]},
    ),
    Odd(
        "a column called split that says something else",
        filled({"in/a.jsonl": records({"text": text, "split": "banana"} for text in SHORT)}),
        {"in": SHORT},
    ),
    Odd(
        "a file that is named as held out",
        filled({"in/a.txt": paragraphs(COD), "in/b.txt": paragraphs(EEL)}),
        {"in": [*COD, *EEL]},
        options=("--heldout", "in/b.txt"),
        heldout={"in": EEL},
    ),
    Odd(
        "a folder elsewhere that is named as held out",
        filled({"in/a.txt": paragraphs(COD), "exam/b.txt": paragraphs(EEL), "exam/c.jsonl": lines_of(RAY)}),
        {"in": [*COD, *EEL, *RAY]},
        options=("--heldout", "exam"),
        heldout={"in": [*EEL, *RAY]},
    ),
    Odd(
        "all that there is, held out by its name",
        filled({"in/valid.txt": paragraphs(COD)}),
        {"in": COD},
        refused="all text would be held out",
        remedy=Remedy("give them other names", mend=renamed("in/valid.txt", "in/cod.txt")),
    ),
    Odd("a single file called test", filled({"test.txt": paragraphs(COD)}), {"place": COD}, ("test.txt",)),
    Odd(
        "a file called test, in a folder that is not named",
        filled({"zander/test.txt": paragraphs(COD)}),
        {"zander": COD},
        ("zander/test.txt",),
    ),
    Odd(
        "a larger share that is held out",
        filled({"in/a.jsonl": lines_of(SHORT)}),
        {"in": SHORT},
        options=("--heldout-share", "0.25"),
        share=0.25,
    ),
    Odd(
        "a small share that is held out of few texts",
        filled({"in/a.txt": paragraphs(COD[:4])}),
        {"in": COD[:4]},
        is_whole=False,
    ),
    Odd("held out of 4000 lines, as near as can be", filled({"in/a.txt": "\n".join(TWENTY)}), {"in": TWENTY}),
    Odd(
        "shards of compressed JSON lines",
        filled(
            {
                f"in/part-{n:04}.jsonl.gz": gzip.compress(lines_of(SHORT[n * 60 : n * 60 + 60]).encode())
                for n in range(5)
            }
        ),
        {"in": SHORT},
    ),
    Odd(
        "shards of splits, -00000-of-00003",
        also(
            *(
                parquet(f"in/{split}-{n:05}-of-00003.parquet", {"text": texts[n::3]})
                for split, texts in (("train", SHORT), ("validation", OTHERS))
                for n in range(3)
            )
        ),
        {"in": [*SHORT, *OTHERS]},
        heldout={"in": OTHERS},
    ),
    Odd(
        "shards in numbered folders",
        filled({f"in/{n:03}/a.txt": paragraphs(texts) for n, texts in enumerate((COD, EEL, RAY))}),
        {"in": [*COD, *EEL, *RAY]},
    ),
    Odd(
        "shards of one file each, named as sources",
        filled({f"wiki-{n:05}-of-00002.jsonl": lines_of(texts) for n, texts in enumerate((COD, EEL))}),
        {"wiki": [*COD, *EEL]},
        ("wiki-00000-of-00002.jsonl", "wiki-00001-of-00002.jsonl"),
    ),
]
