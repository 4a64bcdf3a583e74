"""What hostile members cost a complete group, by how the group combines its offers.

    python -m benchmarks.hostile [--data DIR] [--cache DIR] [--quick] [--jobs N] [--json FILE]

Every cell trains a small model from scratch on real text, each honest member on a domain of its own, int4 offers, while
the hostile ones offer what `adversary.py` says. A figure is the held-out loss, over the domains of the honest members,
over that of the clean run: the same honest members alone. `--cache` keeps what came of each cell, so that a run that
was broken off goes on where it was, and no attack is run twice. How a cell is trained stands in `hostile_swarm.py`.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

import torch
from rich.table import Table

from benchmarks.adversary import AIMED, ATTACKS
from benchmarks.hostile_swarm import BASELINES, INNER, MODEL, Cell, mean_loss, train
from benchmarks.report import Bar, at_most, finish, parser
from benchmarks.text import DATA, corpus_for
from peer.corpus.data import open_corpus

GROUPS = {"hostile_1_of_5": (4, 1), "hostile_2_of_10": (8, 2)}  # honest and hostile members
HONEST = (5, 10)  # members of the groups without anybody hostile
STEPS = 120
SEEDS, ONE_SEED = (0, 1, 2), (0,)  # of the product's rule; of all others
RULES = ("robust", "mean", *BASELINES)
QUICK_ATTACKS = ("sign_flip", "alie", "min_max")


@dataclass
class Trials:
    """Trains cells side by side, and keeps what came of each."""

    corpus: Path
    cache: Path
    jobs: int
    losses: dict[Cell, float] = field(default_factory=dict)

    def train(self, cells: Iterable[Cell]) -> None:
        """Train those of the cells that have not been trained yet."""
        wanted = list(dict.fromkeys(cells))
        lacking = [cell for cell in wanted if not self._path(cell).exists()]
        paths = [self._path(cell) for cell in lacking]
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
            for cell, line in zip(lacking, pool.map(_train, lacking, [self.corpus] * len(lacking), paths), strict=True):
                print(f"{cell.rule}, {cell.attack or 'clean'}, {cell.honest} + {cell.hostile}, {line}", file=sys.stderr)
        self.losses |= {cell: mean_loss(json.loads(self._path(cell).read_text())["losses"]) for cell in wanted}

    def _path(self, cell: Cell) -> Path:
        facts = json.dumps([asdict(cell), MODEL.model_dump(), INNER.model_dump(), self.corpus.name])
        return self.cache / f"hostile-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.json"

    def ratio(self, cells: Sequence[Cell], over: Sequence[Cell]) -> float:
        """Return the mean loss of some cells over that of others."""
        return fmean(self.losses[cell] for cell in cells) / fmean(self.losses[cell] for cell in over)


def _train(cell: Cell, corpus: Path, path: Path) -> str:
    torch.set_num_threads(1)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        losses = train(cell, open_corpus(corpus), Path(scratch))
    seconds = time.process_time() - started
    path.write_text(json.dumps({"cell": asdict(cell), "losses": losses, "seconds": seconds}, indent=1) + "\n")
    return f"seed {cell.seed}: {mean_loss(losses):.4f} nats, {seconds:.0f} s"


@dataclass(frozen=True)
class Plan:
    """Which cells are trained."""

    groups: Mapping[str, tuple[int, int]]
    honest: Sequence[int]
    attacks: Sequence[str]
    rules: Sequence[str]
    seeds: Sequence[int]
    steps: int

    def clean(self, honest: int, rule: str = "mean", seeds: Sequence[int] | None = None) -> list[Cell]:
        """Return the cells without anybody hostile."""
        return [Cell(rule, "", honest, 0, self.steps, seed) for seed in seeds or self.seeds]

    def attacked(self, group: str, attack: str, rule: str) -> list[Cell]:
        """Return the cells of an attack."""
        honest, hostile = self.groups[group]
        return [Cell(rule, attack, honest, hostile, self.steps, seed) for seed in self.seeds_of(rule)]

    def seeds_of(self, rule: str) -> Sequence[int]:
        """Return the seeds of a rule's cells."""
        return self.seeds if rule == "robust" else ONE_SEED

    def cells(self) -> list[Cell]:
        """Return all of them, those first on which the bars of the smaller group rest, seed by seed."""
        found = [cell for honest, _ in self.groups.values() for cell in self.clean(honest)]
        found += [cell for honest in self.honest for rule in ("mean", "robust") for cell in self.clean(honest, rule)]
        for group in self.groups:
            found += [cell for rule in self.rules for each in self.attacks for cell in self.attacked(group, each, rule)]
        return sorted(found, key=lambda cell: (cell.honest + cell.hostile, cell.seed, self.rules.index(cell.rule)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    args = _arguments(argv)
    plan = Plan(GROUPS, HONEST, list(ATTACKS), RULES, SEEDS, STEPS)
    if args.quick:
        plan = Plan({"hostile_1_of_5": (4, 1)}, (5,), QUICK_ATTACKS, ("robust", "mean"), ONE_SEED, STEPS // 3)
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        trials = Trials(corpus_for(args.data, cache, MODEL).path, cache, args.jobs)
        trials.train(plan.cells())
    ratios = {group: {attack: _harms(trials, plan, group, attack) for attack in plan.attacks} for group in plan.groups}
    taxes = {n: trials.ratio(plan.clean(n, "robust"), plan.clean(n)) for n in plan.honest}
    missing = ["groups of ten, all other attacks, rules and seeds: left out by --quick"] if args.quick else []
    figures = {"seeds": plan.seeds, "steps": plan.steps, "over_clean": ratios, "honest_tax": taxes}
    figures["losses"] = [{**asdict(cell), "loss": loss} for cell, loss in trials.losses.items()]
    return finish(args, _bars(ratios, taxes), figures, missing, _table(ratios))


Ratios = Mapping[str, Mapping[str, Mapping[str, float]]]  # group → attack → rule → loss over the clean run's


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    own = argparse.ArgumentParser(description="what hostile members cost a complete group", parents=[parser()])
    own.add_argument("--data", type=Path, metavar="DIR", help=f"text, a folder for each domain (default: {DATA})")
    own.add_argument("--cache", type=Path, metavar="DIR", help="keep each cell's outcome there, and go on from it")
    own.add_argument("--jobs", type=int, default=2, metavar="N", help="cells that are trained side by side")
    return own.parse_args(argv)


def _harms(trials: Trials, plan: Plan, group: str, attack: str) -> dict[str, float]:
    """Return the harm of an attack by rule, over the seeds that the rule's cells have."""
    honest, _ = plan.groups[group]
    return {
        rule: trials.ratio(plan.attacked(group, attack, rule), plan.clean(honest, seeds=plan.seeds_of(rule)))
        for rule in plan.rules
    }


def _bars(ratios: Ratios, taxes: Mapping[int, float]) -> list[Bar]:
    bars = []
    for group, by_attack in ratios.items():
        counted = {attack: rows for attack, rows in by_attack.items() if attack not in AIMED}
        attack = max(counted, key=lambda each: counted[each]["robust"])
        baseline = "hivemind" if "hivemind" in counted[attack] else "mean"
        what = f"worst loss over the clean run's, under {attack}; baseline: the worst of {baseline}"
        worst = max(rows[baseline] for rows in counted.values())
        bars.append(at_most(group, what, counted[attack]["robust"], 1.01, worst))
    what = "loss of an honest run over the same with the mean, the dearer of the groups"
    return [*bars, at_most("honest_tax", what, max(taxes.values()), 1.002)]


def _table(ratios: Ratios) -> Table:
    rules = list(next(iter(next(iter(ratios.values())).values())))
    table = Table("group", "attack", title="held-out loss over that of the honest members alone")
    for rule in rules:
        table.add_column(rule, justify="right")
    for group, by_attack in ratios.items():
        for attack, rows in by_attack.items():
            table.add_row(group, attack, *(f"{rows[rule]:.4f}" for rule in rules))
    return table


if __name__ == "__main__":
    sys.exit(main())
