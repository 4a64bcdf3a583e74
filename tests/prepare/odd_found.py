"""What was found by trying the old `prepare`, by kind: each was wrong there, and must never be so again."""

import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
from odd_entries import Odd, Remedy, also, filled, lines_of, paragraphs, passages, put, sentences
from odd_files import linked, parquet

COD, EEL, RAY = passages("Bream"), passages("Chub"), passages("Barbel")
SHORT, OTHERS = sentences("Rudd", 300), sentences("Loach", 300)
LINES = [sentences(name, 400) for name in ("Sild", "Shad", "Smolt")]
CARD = "# A data set\n\nIts files are beside this one.\n"
MEGABYTES = "".join(f"{n}. {text} " for n in range(40) for text in sentences("Sprat", 3000))  # eight of them


def _tokenizer(place: Path) -> None:
    """Write a tokenizer that ends texts with a token of a name of its own, which the files beside it say."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<fin>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(COD, trainer)
    (place / "model").mkdir()
    tokenizer.save(str(place / "model" / "tokenizer.json"))
    put(place / "model" / "tokenizer_config.json", json.dumps({"eos_token": "<fin>"}))
    put(place / "model" / "config.json", json.dumps({"eos_token_id": 0, "vocab_size": 320}))


FOUND = [
    Odd(
        "found by trying 1: a filter that does not count: CSV, JSON and compressed lines beside one file of text",
        filled(
            {
                "in/notes.txt": paragraphs(COD),
                "in/big.csv": "text\n" + "".join(f'"{text}"\n' for text in EEL),
                "in/more.json": json.dumps([{"text": text} for text in RAY]),
                "in/g.jsonl.gz": gzip.compress(lines_of(SHORT).encode()),
            }
        ),
        {"in": [*COD, *EEL, *RAY, *SHORT]},
    ),
    Odd(
        "found by trying 1: a filter that does not count: a README beside four compressed files is not the corpus",
        filled(
            {"in/README.md": CARD}
            | {f"in/{n}.jsonl.gz": gzip.compress(lines_of(SHORT[n::4]).encode()) for n in range(4)}
        ),
        {"in": SHORT},
        skipped={"ABOUT": (1, len(CARD))},
    ),
    Odd(
        "found by trying 1: a filter that does not count: a linked sub-folder is followed",
        also(filled({"in/a/a.txt": paragraphs(COD), "far/b.txt": paragraphs(EEL)}), linked("in/b", "../far")),
        {"a": COD, "b": EEL},
    ),
    Odd(
        "found by trying 2: validation is trained on: train.jsonl and valid.jsonl",
        filled({"in/train.jsonl": lines_of(OTHERS), "in/valid.jsonl": lines_of(SHORT)}),
        {"in": [*OTHERS, *SHORT]},
        heldout={"in": SHORT},
    ),
    Odd(
        "found by trying 3: the unit of work is chosen by the input: a JSON line of eight megabytes",
        filled({"in/a.jsonl": lines_of([MEGABYTES, *SHORT])}),
        {"in": [MEGABYTES, *SHORT]},
        is_whole=False,
        most_bytes=600_000_000,
    ),
    Odd(
        "found by trying 4: the strict rule for one file applied to each of thousands: a file of no bytes among 51",
        filled({f"in/{n}.jsonl": lines_of(SHORT[n::50]) for n in range(50)} | {"in/51.jsonl": ""}),
        {"in": SHORT},
        skipped={"BLANK": (1, 0)},
    ),
    Odd(
        "found by trying 4: the strict rule for one file applied to each of thousands: a Parquet shard without rows",
        also(
            parquet("in/data-00000-of-00002.parquet", {"text": SHORT}),
            parquet("in/data-00001-of-00002.parquet", {"text": pyarrow.array([], pyarrow.string())}),
        ),
        {"in": SHORT},
        skipped={"BLANK": (1, 0)},
    ),
    Odd(
        "found by trying 4: the strict rule for one file applied to each of thousands: the last line is cut off",
        filled({"in/a.jsonl": lines_of(SHORT), "in/b.jsonl": lines_of(OTHERS) + '{"text": "Of a broken downl'}),
        {"in": [*SHORT, *OTHERS]},
        skipped={"DAMAGED": (1, 27)},
    ),
    Odd(
        "found by trying 5: an error in the program's terms: a flat folder of 300 one-document files is one domain",
        filled({f"in/{n}.txt": text for n, text in enumerate(SHORT)}),
        {"in": SHORT},
    ),
    Odd(
        "found by trying 5: an error in the program's terms: of three files of a sentence a line 5 % is held out",
        filled({f"in/{n}.txt": "\n".join(lines) for n, lines in enumerate(LINES)}),
        {"in": [line for lines in LINES for line in lines]},
        share=0.05,
    ),
    *(
        Odd(
            f"found by trying 6: advice that its author never followed: {encoding}, {'' if mark else 'un'}marked",
            filled({"in/a.txt": mark + ("Où est l’été ?\n" + "\n".join(SHORT)).encode(encoding)}),
            {"in": ["Où est l’été ?", *SHORT]},
        )
        for encoding, mark in (("utf-16-le", b"\xff\xfe"), ("utf-16-be", b""))
    ),
    Odd(
        "found by trying 6: advice that its author never followed: cp1252",
        filled({"in/a.txt": "\n".join(f"Où est l’été de {text}" for text in SHORT).encode("cp1252")}),
        {"in": [f"Où est l’été de {text}" for text in SHORT]},
        refused="is in no encoding that is sure",
        remedy=Remedy("--encoding cp1252", ("--encoding", "cp1252")),
    ),
    Odd(
        "found by trying 7: one name in a fixed list: the token that ends a text is the one that the model says",
        also(_tokenizer, filled({"in/a.txt": paragraphs(COD)})),
        {"in": COD},
        options=("--tokenizer", "model"),
    ),
]
