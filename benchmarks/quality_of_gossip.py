"""What the rounds cost in quality: replicas trained for real, on real text, against synchronous training.

    python -m benchmarks.quality_of_gossip [--data DIR] [--cache DIR] [--quick] [--sweep] [--json FILE]

Every row trains from scratch with the same text, in the same order, from the same parameters, for as many inner
steps; only the `Rule` differs. A figure is the held-out loss, every token scored; a ratio is between mean losses over
the seeds. `--sweep` instead tries the lengths of rounds and outer steps that the defaults were chosen from.
How the swarm is run in one process stands in `in_process_swarm.py`.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

import torch
from rich.table import Table

from benchmarks.in_process_swarm import TICK_STEPS, Outcome, Rule, Text, run_spec, train
from benchmarks.report import Bar, at_most, finish, parser
from benchmarks.text import DATA, corpus_for
from configs.run import InnerSpec, ModelSpec, OuterSpec, RoundSpec

MODEL = ModelSpec(
    vocab_size=1024, hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=2, mlp_size=192, context_length=128
)
INNER = InnerSpec(learning_rate=1.2e-2, batch_tokens=1024)
STEPS, QUICK_STEPS = 480, 80  # inner steps of each replica; both end a round, whatever its length
SEEDS = (0, 1, 2)
LATE = 0.2  # of a round: where the cut falls
PARTS = 4  # that take turns, and are each late by a quarter of that

FRAGMENTS: int = RoundSpec.model_fields["fragments"].default
OUTER, SPARSE = OuterSpec(), OuterSpec(codec="sparse")
OURS = Rule("all", codec="float32", alpha=OUTER.alpha, mu=OUTER.mu)
DEFAULT = replace(OURS, codec=OUTER.codec)
ROWS = {
    "one peer alone": Rule("alone", peers=1),
    "synchronous": Rule("sync"),
    "DiLoCo": replace(OURS, alpha=0.7, mu=0.9),
    "ours, float32": OURS,
    "ours": DEFAULT,
    "ours, int8": replace(OURS, codec="int8"),
    "ours, sparse": replace(OURS, codec="sparse", alpha=SPARSE.alpha, mu=SPARSE.mu),
    "ours, late": replace(DEFAULT, late=LATE),
    "ours, in parts": replace(DEFAULT, parts=PARTS),
    "ours, in parts, late": replace(DEFAULT, parts=PARTS, late=LATE),
    "ours, late, half": replace(DEFAULT, late=LATE, merge="half"),
    "ours, late, scaled": replace(DEFAULT, late=LATE, merge="scaled"),
    "synchronous, 8 peers": Rule("sync", peers=8),
    "DiLoCo, 8 peers": replace(OURS, peers=8, alpha=0.7, mu=0.9),
    "ours, 8 peers, random": replace(DEFAULT, group="random", peers=8, fragments=FRAGMENTS),
    "ours, 8 peers, random, whole": replace(DEFAULT, group="random", peers=8, fragments=1),
}
ONE_SEED = {
    "ours, int8",
    "ours, late, half",
    "one peer alone",
    "ours, sparse",
    "ours, late, scaled",
    "ours, 8 peers, random, whole",
}  # no bar rests on them, but as baselines
LEFT_OUT = {name for name in ROWS if "8 peers" in name} | ONE_SEED  # by --quick

SWEPT_TICKS = ((1, 1), (2, 2), (4, 4), (8, 8), (1, 8))  # rounds of 5, 10, 20, 40 inner steps, and 5 growing to 40
SWEPT_OUTER = ((1.0, 0.0), (0.9, 0.3), (0.7, 0.5), (0.7, 0.9))  # α, μ


@dataclass(frozen=True)
class Trial:
    """Trains rows, and keeps what came of each, by row and seed, in a folder: a broken run goes on where it was."""

    text: Text
    steps: int
    cache: Path

    def outcome(self, name: str, rule: Rule, seed: int) -> Outcome:
        """Train by `rule` from `seed`, unless that has been done."""
        facts = [asdict(rule), MODEL.model_dump(), INNER.model_dump(), self.text.tokenizer_sha256, self.steps, seed]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        path = self.cache / f"{key}.json"
        if path.exists():
            return Outcome(**json.loads(path.read_text())["outcome"])
        started = time.process_time()
        spec = run_spec(rule, self.text, MODEL, INNER, steps=self.steps, seed=seed)
        outcome = train(spec, rule, self.text, self.steps)
        seconds = time.process_time() - started
        print(f"{name}, seed {seed}: {outcome.loss:.4f} nats, {seconds:.0f} s", file=sys.stderr, flush=True)
        content = {"name": name, "seed": seed, "seconds": seconds, "outcome": asdict(outcome), "facts": facts}
        path.write_text(json.dumps(content, indent=1) + "\n")
        return outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    args = _arguments(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        text = Text.of(corpus_for(args.data, cache, MODEL), MODEL.context_length)
        trial = Trial(text, QUICK_STEPS if args.quick else STEPS, cache)
        if args.sweep:
            return finish(args, [], *_sweep(trial))
        names = [name for name in ROWS if not (args.quick and name in LEFT_OUT)]
        seeds = SEEDS[:1] if args.quick else SEEDS
        outcomes = {
            name: [trial.outcome(name, ROWS[name], seed) for seed in (seeds[:1] if name in ONE_SEED else seeds)]
            for name in names
        }
    missing = [f"the row '{name}', left out by --quick" for name in ROWS if name not in names]
    figures = {"seeds": seeds, "steps": trial.steps, "rows": {name: _figures(outcomes, name) for name in names}}
    return finish(args, _bars(outcomes), figures, missing, _table(outcomes))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    own = argparse.ArgumentParser(description="what the rounds cost in quality", parents=[parser()])
    own.add_argument("--data", type=Path, metavar="DIR", help=f"text, a folder for each domain (default: {DATA})")
    own.add_argument("--cache", type=Path, metavar="DIR", help="keep each row's outcome there, and go on from it")
    own.add_argument("--sweep", action="store_true", help="try lengths of rounds and outer steps instead, one seed")
    return own.parse_args(argv)


Outcomes = Mapping[str, Sequence[Outcome]]


def _ratio(outcomes: Outcomes, name: str, base: str) -> float:
    """Return the mean loss of a row over that of another, over the seeds that both were trained with."""
    both = min(len(outcomes[name]), len(outcomes[base]))
    return fmean(o.loss for o in outcomes[name][:both]) / fmean(o.loss for o in outcomes[base][:both])


def _bars(outcomes: Outcomes) -> list[Bar]:
    """Return the bars whose rows were trained."""

    def ratio(name: str, base: str) -> float | None:
        return _ratio(outcomes, name, base) if name in outcomes and base in outcomes else None

    late = f"loss with corrections late over blocking, in {PARTS} parts; baseline: in one, {LATE:g} of a round late"
    against = "loss over synchronous training; baseline: DiLoCo with all of them and the same rounds"
    diloco, diloco_8 = ratio("DiLoCo", "synchronous"), ratio("DiLoCo, 8 peers", "synchronous, 8 peers")
    measured = (
        (
            "quality_codec",
            f"loss with {OUTER.codec} over float32; baseline: int8",
            ratio("ours", "ours, float32"),
            1.005,
            ratio("ours, int8", "ours, float32"),
        ),
        (
            "quality_overlap",
            late,
            ratio("ours, in parts, late", "ours, in parts"),
            1.005,
            ratio("ours, late", "ours"),
        ),
        ("quality_complete", f"4 peers, {against}", ratio("ours", "synchronous"), diloco, diloco),
        (
            "quality_random",
            f"8 peers in random groups of 4, {against}",
            ratio("ours, 8 peers, random", "synchronous, 8 peers"),
            diloco_8,
            diloco_8,
        ),
    )
    return [
        at_most(id_, what, value, bar, baseline)
        for id_, what, value, bar, baseline in measured
        if value is not None and bar is not None
    ]


def _figures(outcomes: Outcomes, name: str) -> dict[str, object]:
    held = outcomes[name]
    return {
        "rule": asdict(ROWS[name]),
        "losses": [o.loss for o in held],
        "merged_losses": [o.merged_loss for o in held],
        "rounds": [o.rounds for o in held],
        "offered_bytes": [o.offered_bytes for o in held],
    }


def _table(outcomes: Outcomes) -> Table:
    table = Table("trained how", title="held-out loss, nats per token")
    for column in ("mean", "each seed", "over synchronous: mean", "each seed", "rounds", "MB offered by a peer"):
        table.add_column(column, justify="right")
    for name, held in outcomes.items():
        base = outcomes["synchronous, 8 peers" if ROWS[name].peers == 8 else "synchronous"]
        ratios = [mine.loss / its.loss for mine, its in zip(held, base, strict=False)]
        table.add_row(
            name,
            f"{fmean(o.loss for o in held):.4f}",
            " ".join(f"{o.loss:.3f}" for o in held),
            f"{fmean(ratios):.4f}",
            " ".join(f"{ratio:.3f}" for ratio in ratios),
            str(held[0].rounds),
            f"{held[0].offered_bytes / 1e6:.2f}",
        )
    return table


def _sweep(trial: Trial) -> tuple[dict[str, object], list[str], Table]:
    """Return the figures, what is left open, and the table of losses by length of rounds and outer step."""
    lengths = [" to ".join(str(TICK_STEPS * ticks) for ticks in dict.fromkeys(pair)) for pair in SWEPT_TICKS]
    table = Table("α, μ", *(f"rounds of {length}" for length in lengths), title="held-out loss, inner steps a round")
    losses: dict[str, dict[str, float]] = {}
    for alpha, mu in SWEPT_OUTER:
        row = losses.setdefault(f"{alpha:g}, {mu:g}", {})
        for length, ticks in zip(lengths, SWEPT_TICKS, strict=True):
            rule = replace(OURS, alpha=alpha, mu=mu, ticks=ticks)
            row[length] = trial.outcome(f"α {alpha:g}, μ {mu:g}, rounds of {length}", rule, SEEDS[0]).loss
        table.add_row(f"{alpha:g}, {mu:g}", *(f"{loss:.3f}" for loss in row.values()))
    figures = {"seeds": SEEDS[:1], "steps": trial.steps, "losses": losses}
    return figures, ["the bars: this is the sweep"], table


if __name__ == "__main__":
    sys.exit(main())
