"""Do odd inputs become the right corpus, and is any text lost unsaid? The table of `tests/prepare/odd_inputs.py`.

    python -m benchmarks.odd [--quick] [--json FILE]

Each input goes through the real command, in this process. What it says to do is done, and the corpus that comes of it
is read back from its tokens. `benchmarks/prepare.py` has these rows as well.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.report import Bar, at_least, at_most, between, finish, run

TABLE = Path(__file__).parents[1] / "tests" / "prepare"
LEAST = 80  # inputs
EVERY = 4  # of them in the quick form


def measure(place: Path, is_quick: bool = False) -> tuple[list[Bar], dict[str, Any]]:
    """Return the bars of `odd_files` and `nothing_lost`, and what came of each input. `place` is an empty folder."""
    outcomes = _outcomes(place, is_quick)
    skipped: Counter[str] = Counter()
    for outcome in outcomes.values():
        skipped.update(outcome["skipped"])
    bars = [*_odd_files(outcomes, 0 if is_quick else LEAST), *_nothing_lost(outcomes, skipped.total())]
    return bars, {"inputs": outcomes, "skipped_bytes": dict(skipped)}


def _odd_files(outcomes: Mapping[str, Any], least: int) -> list[Bar]:
    good = sum(not outcome["wrong"] for outcome in outcomes.values())
    refused = sum(outcome["is_refused"] for outcome in outcomes.values())
    what = f"share of {len(outcomes)} odd inputs that became the right corpus, {refused} as the command said how"
    return [
        at_least("odd_files", what, good / len(outcomes), 1),
        at_least("odd_files", "odd inputs that did", good, least),
    ]


def _nothing_lost(outcomes: Mapping[str, Any], skipped_bytes: int) -> list[Bar]:
    put_in, found = (sum(outcome[key] for outcome in outcomes.values()) for key in ("put_in", "found"))
    apart = sum(abs(outcome["put_in"] - outcome["found"]) for outcome in outcomes.values())
    what = f"bytes of text in ({put_in:,}) over those in the corpus and those reported as skipped ({skipped_bytes:,})"
    return [
        between("nothing_lost", what, put_in / found, 1, 1),
        at_most("nothing_lost", "bytes that are apart, input by input", apart, 0),
    ]


def _outcomes(place: Path, is_quick: bool) -> dict[str, Any]:
    """Go through the table, and print what is wrong."""
    sys.path.insert(0, str(TABLE))
    from odd_check import check
    from odd_inputs import ODD

    found: dict[str, Any] = {}
    entries = [odd for odd in ODD if not (odd.needs_user and os.geteuid() == 0)]
    for number, odd in enumerate(entries[::EVERY] if is_quick else entries):
        own = place / str(number)
        own.mkdir()
        outcome = check(odd, own)
        for line in outcome.wrong:
            print(f"{odd.name}: {line}", file=sys.stderr)
        found[odd.name] = {**vars(outcome), "is_refused": bool(odd.refused)}
    return found


def _main(args: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="shoal-odd-") as place:
        bars, figures = measure(Path(place), args.quick)
    return finish(args, bars, {"seeds": [], "raw": figures})


if __name__ == "__main__":
    run(_main, "odd inputs: the right corpus, or a remedy that works; and no text lost unsaid")
