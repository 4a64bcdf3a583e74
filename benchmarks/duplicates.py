"""Are duplicates found, and nothing else? Real text with planted copies and near copies; what finding them costs.

    python -m benchmarks.duplicates [--data DIR] [--quick] [--json FILE]

The documents are the paragraphs of `DIR/*/train.txt` without those that are the same. Copied are any of them; nearly
copied are paragraphs of LEAST_WORDS words: one word in twenty is another, left out or doubled, or, of SENTENCES or more
sentences, one is left out or one of another paragraph comes in. What is called near and was not planted is compared
with all documents before it, without signatures: it is false if its similarity to each is below the threshold.
"""

import argparse
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import Bar, at_least, at_most, exit_with, finish, parser
from benchmarks.text import DATA
from configs.errors import DataError
from peer.prepare.cleaning import RUN as LISTED_WORDS
from peer.prepare.cleaning import Cleaning, Filter
from peer.prepare.duplicates import NEAR, RUN, Signatures, exact, near, signature
from peer.prepare.shingles import U64, runs, words
from peer.sources.documents import hash_of

SEED = 0
LEAST_WORDS = 40
SENTENCES = 6
CHANGED = 0.05
PLANTED, QUICK = 3000, 600
FULL_BYTES, QUICK_BYTES = 64 << 20, 6 << 20
PARTS = 7  # that all documents are cut into

Change = Callable[[str, random.Random, Sequence[str]], str | None]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    options.add_argument("--data", type=Path, default=DATA, help="a folder of folders with train.txt")
    args = options.parse_args()
    bars, figures = dedup(args.data, args.quick)
    return finish(args, bars, figures)


def dedup(data: Path, is_quick: bool) -> tuple[list[Bar], dict[str, Any]]:
    """Plant copies and changed copies in real text, and count what is found of them, and what besides."""
    clean, removed = distinct(read(data, QUICK_BYTES if is_quick else FULL_BYTES))
    count = QUICK if is_quick else PLANTED
    chance = random.Random(SEED)
    planted = {name: plant(clean, change, count, chance) for name, change in CHANGES.items()}
    copies = chance.sample(clean, min(count, len(clean)))

    hashes = np.array([hash_of(text) for text in [*clean, *copies]], np.uint64)
    is_copy = np.concatenate(exact(np.array_split(hashes, PARTS)))
    began = time.process_time()
    signatures = np.stack([signature(text) for text in clean])
    signature_mb_s = sum(len(text.encode()) for text in clean) / 1e6 / (time.process_time() - began)
    changed = [text for texts in planted.values() for text in texts]
    all_signatures = np.concatenate([signatures, np.stack([signature(text) for text in changed])])
    is_near = np.concatenate(near(np.array_split(all_signatures, PARTS)))

    found, start = {}, len(clean)
    for name, texts in planted.items():
        found[name] = float(is_near[start : start + len(texts)].mean())
        start += len(texts)
    similarities = highest(clean, np.flatnonzero(is_near[: len(clean)]))
    false = sum(similarity < NEAR for similarity in similarities) + int(is_copy[: len(clean)].sum())
    figures: dict[str, Any] = {
        "seeds": [SEED],
        "documents": len(clean),
        "removed_before": removed,
        "planted": {"copies": len(copies), **{name: len(texts) for name, texts in planted.items()}},
        "found": found,
        "real_near": {f"{least:g}": int(np.sum(similarities >= least)) for least in (0.0, NEAR, 0.8, 0.9)},
        "mb_per_cpu_second": {"signature": signature_mb_s, **speeds(clean)},
    }
    for name, speed in figures["mb_per_cpu_second"].items():
        print(f"{name}: {speed:.1f} MB a CPU second")
    total = len(is_near) - len(clean)
    bars = [
        at_least("dedup", f"planted copies of {len(copies)} that are found", is_copy[len(clean) :].mean(), 0.99),
        *(at_least("dedup", f"near duplicates found: {name}", share, 0.95) for name, share in found.items()),
        at_least("dedup", f"planted near duplicates of {total} that are found", is_near[len(clean) :].mean(), 0.95),
        at_most("dedup", f"false ones among {len(clean)} documents", false / len(clean), 0.001),
    ]
    return bars, figures


def read(data: Path, limit_bytes: int) -> list[str]:
    """Return the paragraphs of all domains, the same share of each if they are more than the limit."""
    files = sorted(data.glob("*/train.txt"))
    if not files:
        raise DataError(f"{data} has no */train.txt; name a folder of folders of text with --data")
    texts = [file.read_text() for file in files]
    share = min(1.0, limit_bytes / sum(len(text.encode()) for text in texts))
    parts = [text[: int(share * len(text))] for text in texts]
    return [paragraph.strip() for part in parts for paragraph in re.split(r"\n\s*\n", part) if paragraph.strip()]


def distinct(texts: Sequence[str]) -> tuple[list[str], int]:
    """Return the texts without those that have the same words as an earlier one, and how many those are."""
    seen = {words(text).tobytes(): text for text in reversed(texts)}
    kept = list(reversed(seen.values()))
    return kept, len(texts) - len(kept)


def plant(clean: Sequence[str], change: Change, count: int, chance: random.Random) -> list[str]:
    """Return nearly copied paragraphs."""
    long = [text for text in clean if len(words(text)) >= LEAST_WORDS]
    made = (change(text, chance, long) for text in chance.sample(long, len(long)))
    return [text for text, _ in zip(filter(None, made), range(count), strict=False)]


def change_words(text: str, chance: random.Random, others: Sequence[str]) -> str | None:
    """Change one word in twenty; of text without spaces, one character."""
    is_unspaced = len(text.split()) * 4 < len(words(text))
    tokens = list(text) if is_unspaced else re.findall(r"\w+|\W+", text)
    places = [place for place, token in enumerate(tokens) if token[0].isalnum()]
    for place in chance.sample(places, min(len(places), round(CHANGED * len(places)))):
        other = chance.choice(others)
        another = chance.choice(list(other) if is_unspaced else re.findall(r"\w+", other))
        tokens[place] = chance.choices([another, "", tokens[place] + " " + tokens[place]], (8, 1, 1))[0]
    return "".join(tokens)


def leave_out(text: str, chance: random.Random, others: Sequence[str]) -> str | None:
    """Leave out a sentence."""
    found = sentences(text)
    if len(found) < SENTENCES:
        return None
    del found[chance.randrange(len(found))]
    return " ".join(found)


def add(text: str, chance: random.Random, others: Sequence[str]) -> str | None:
    """Add a sentence of another paragraph, no longer than the longest that is there."""
    found = sentences(text)
    fitting = [each for each in sentences(chance.choice(others)) if len(each) <= max(map(len, found))]
    if len(found) < SENTENCES or not fitting:
        return None
    found.insert(chance.randrange(len(found) + 1), chance.choice(fitting))
    return " ".join(found)


CHANGES: dict[str, Change] = {"words changed": change_words, "sentence left out": leave_out, "sentence added": add}


def sentences(text: str) -> list[str]:
    return [each for each in re.split(r"(?<=[.!?;])\s+|(?<=[。！？；])", text) if each.strip()]


def highest(texts: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the highest similarity of some texts to any before them, counted and not estimated: one for each row."""
    sets = [runs_of(text) for text in texts]
    sizes = np.array([len(each) for each in sets])
    numbers, owners = np.concatenate(sets), np.repeat(np.arange(len(sets)), sizes)
    order = np.argsort(numbers, kind="stable")
    numbers, owners = numbers[order], owners[order]
    result = np.zeros(len(rows))
    for place, row in enumerate(rows):
        spans = zip(np.searchsorted(numbers, sets[row]), np.searchsorted(numbers, sets[row], "right"), strict=True)
        holders = np.concatenate([owners[begin:end] for begin, end in spans])
        common = np.bincount(holders, minlength=len(sets))[:row]
        result[place] = np.max(common / (sizes[:row] + sizes[row] - common), initial=0.0)
    return result


def runs_of(text: str) -> U64:
    found = words(text)
    return np.unique(next(runs(found, [min(RUN, len(found))]), (0, found))[1])


def speeds(clean: Sequence[str]) -> dict[str, float]:
    """Return MB per CPU second of the other filters, on 2 MB, and of a signature of one long text."""
    chosen = random.Random(SEED).sample(list(clean), len(clean))
    texts, size = [], 0
    while size < 2e6 and chosen:
        texts.append(chosen.pop())
        size += len(texts[-1].encode())
    listed = [("list", text) for text in clean if len(words(text)) >= LISTED_WORDS][::50]
    on_list, in_english = Filter(Cleaning(decontaminate=("list",)), listed), Filter(Cleaning(languages=("en",)))
    return {
        "signature of a long text": _speed(signature, ["\n".join(texts)]),
        "language": _speed(in_english.verdict, texts),
        "decontamination": _speed(on_list.verdict, texts),
    }


def _speed(work: Callable[[str], object] | Callable[[str], Signatures], texts: Sequence[str]) -> float:
    work(texts[0])
    began = time.process_time()
    for text in texts:
        work(text)
    return sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - began)


if __name__ == "__main__":
    exit_with(main)
