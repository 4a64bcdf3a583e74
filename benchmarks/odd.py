"""Do odd inputs become the right corpus, and is any text lost unsaid? The table of `tests/prepare/odd_inputs.py`.

    python -m benchmarks.odd [--quick] [--json FILE]

Each input goes through the real command, in this process. What it says to do is done, and the corpus that comes of it
is read back from its tokens. `benchmarks/prepare.py` has the same two rows.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.report import Bar, at_least, at_most, between, finish, run

TABLE = Path(__file__).parents[1] / "tests" / "prepare"
LEAST = 80  # inputs
EVERY = 4  # of them in the quick form


def odd_files(is_quick: bool) -> tuple[list[Bar], dict[str, Any]]:
    """Return which share of the inputs became what they must, and what was wrong with the others."""
    outcomes = _outcomes(is_quick)
    good = sum(not outcome["wrong"] for outcome in outcomes.values())
    refused = sum(outcome["is_refused"] for outcome in outcomes.values())
    what = f"of {len(outcomes)} odd inputs, {refused} of them after what the command said: right"
    least = 0 if is_quick else LEAST
    return [
        at_least("odd_files", what, good / len(outcomes), 1),
        at_least("odd_files", "inputs", good, least),
    ], outcomes


def nothing_lost(is_quick: bool) -> tuple[list[Bar], dict[str, Any]]:
    """Return the bytes of text in over those in the corpora and those that were reported as skipped."""
    outcomes = _outcomes(is_quick)
    put_in, found = (sum(outcome[key] for outcome in outcomes.values()) for key in ("put_in", "found"))
    apart = sum(abs(outcome["put_in"] - outcome["found"]) for outcome in outcomes.values())
    skipped: Counter[str] = Counter()
    for outcome in outcomes.values():
        skipped.update(outcome["skipped"])
    what = f"bytes of text in ({put_in:,}) over bytes in the corpus and bytes reported as skipped ({skipped.total():,})"
    bars = [
        between("nothing_lost", what, put_in / found, 1, 1),
        at_most("nothing_lost", "bytes that differ, input by input", apart, 0),
    ]
    return bars, {"put_in": put_in, "found": found, "skipped": dict(skipped)}


@cache
def _outcomes(is_quick: bool) -> dict[str, Any]:
    """Go through the table, and print what is wrong."""
    sys.path.insert(0, str(TABLE))
    from odd_check import check
    from odd_inputs import ODD

    found: dict[str, Any] = {}
    entries = [odd for odd in ODD if not (odd.needs_user and os.geteuid() == 0)]
    for odd in entries[::EVERY] if is_quick else entries:
        with tempfile.TemporaryDirectory(prefix="shoal-odd-") as folder:
            outcome = check(odd, Path(folder))
        for line in outcome.wrong:
            print(f"{odd.name}: {line}", file=sys.stderr)
        found[odd.name] = {**vars(outcome), "is_refused": bool(odd.refused)}
    return found


def _main(args: argparse.Namespace) -> int:
    (bars, outcomes), (more, sizes) = odd_files(args.quick), nothing_lost(args.quick)
    return finish(args, [*bars, *more], {"seeds": [], "raw": {"odd_files": outcomes, "nothing_lost": sizes}})


if __name__ == "__main__":
    run(_main, "odd inputs: the right corpus, or a remedy that works; and no text lost unsaid")
