"""What splitting a model wins or costs: a fused swarm against what else the same compute could have trained.

    python -m benchmarks.quality [--data DIR] [--cache DIR] [--jobs N] [--row NAME …] [--quick] [--json FILE]

Every row trains from scratch on the same text with the same training FLOPs (but for the lone peer, which has its own
share of them), and is judged by the same held-out documents, every token scored. Each takes the best of its learning
rates and batch sizes, found with the first seed at a part of the length; then it is trained with every seed. What was
trained is kept, by row, setting and seed, in the cache: a broken run goes on where it was.

How a swarm runs in one process stands in `fusing_swarm.py`, the ways to choose between sub-models in `routes.py`, what
is done with the blocks afterwards in `fused_forms.py`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.console import Group
from rich.table import Table

from benchmarks.costs import flops_per_token, parameters, peak_bytes
from benchmarks.fused_forms import largest_difference, late_domain, mixtral_losses, parts_of
from benchmarks.piles import Pile, train_on_pile
from benchmarks.quality_cells import PEERS, Cell, Row, Scale, Trials, scale_of
from benchmarks.report import Bar, at_most, finish, parser
from benchmarks.routes import DEFAULT, ORACLE
from benchmarks.text import DATA, DOMAINS, corpus_for, prepared
from configs.run import InnerSpec, ModelSpec
from peer.corpus.data import TOKENIZER_FILE, Corpus, open_corpus
from peer.fused.parts import Parts
from peer.prepare.plan import Plan

LATE = "shakespeare"  # of the same text
TUNED_SHARE = 0.25  # of the tokens, with which a row's setting is chosen


SMALL, USUAL = (256, 512), (512, 1024)  # batches
DENSE = {"rates": (0.01, 0.02, 0.04), "batches": USUAL}
FAST = {"rates": (0.02, 0.03, 0.04), "batches": SMALL}
ROWS: dict[str, Row] = {
    "one peer alone": Row("alone", **DENSE),
    "dense, sub-model size": Row("dense", **DENSE),
    "dense, fused size": Row("wide", rates=(0.005, 0.01, 0.02), batches=USUAL),
    "joint mixture, routes told": Row("joint", "experts", **DENSE),
    "DiLoCo replicas": Row("swarm", alpha=0.7, mu=0.9, rates=(0.01, 0.02, 0.04), batches=SMALL),
    "experts": Row("swarm", "experts", 0.2, **FAST),
    "experts that part late": Row("swarm", "experts", 0.6, **FAST),
    "branches": Row("swarm", "branches", 0.2, **FAST),
    "branches, no common phase": Row("swarm", "branches"),
    "branches, private text": Row("swarm", "branches", 0.2, is_private=True),
    "branches, common phase in one place": Row("central", "branches", 0.2, **FAST),
}
DENSE_ROW = "dense, sub-model size"
FUSED = "branches"  # the row that the bars are about, whose setting those have that try none of their own
MIXED = "experts that part late"  # the row of the Mixtral, whose experts speak together: the more alike, the better
VARIATIONS = ("branches, no common phase", "branches, private text", "branches, common phase in one place")
ONE_SEED = frozenset({"experts", "joint mixture, routes told", *VARIATIONS})


WIDTH, SEEDS = 32, (0, 1, 2)
QUICK_TOKENS = 400_000
QUICK_ROWS = ("one peer alone", DENSE_ROW, FUSED)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    args = _arguments(argv)
    torch.set_num_threads(1)  # these models are slower on several
    scale = scale_of(args.width, SEEDS)
    if args.quick:
        scale = replace(scale, tokens=QUICK_TOKENS, held_out=2048, seeds=SEEDS[:1])
    names = args.row or (QUICK_ROWS if args.quick else list(ROWS))
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        trials = Trials(corpus_for(args.data, cache, scale.model).path, cache, args.jobs)
        chosen = {name: _tuned(trials, name, scale) for name in names}
        cells = {
            name: [replace(best, tokens=scale.tokens, seed=seed) for seed in _seeds(name, scale)]
            for name, best in chosen.items()
        }
        trained = trials.outcomes(cell for row in cells.values() for cell in row)
        rows = {name: [trained[cell] for cell in row] for name, row in cells.items()}
        forms = {} if args.quick else _forms(trials, cells, rows, args.data)
        piles = [] if args.quick else _piles(trials, cells, (args.data or DATA).resolve())
    missing = [f"the row '{name}'" for name in ROWS if name not in names]
    costs = {
        "peer_memory": _memory(args.quick),
        "peer_flops": flops_per_token(scale.model) / flops_per_token(scale.wide),
    }
    figures = {
        "seeds": list(scale.seeds),
        "tokens": scale.tokens,
        "parameters": parameters(scale.model),
        "settings": {name: {"rate": best.rate, "batch": best.batch} for name, best in chosen.items()},
        "rows": rows,
        "costs": costs,
        "forms": forms,
        "piles": {pile.name: pile.losses for pile in piles},
    }
    bars = [*_bars(rows, costs), *forms.pop("bars", []), *(_pile_bar(pile) for pile in piles)]
    tables = Group(_loss_table(rows), _cost_table(cells, rows))
    return finish(args, bars, figures, missing, tables)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--data", type=Path, metavar="DIR", help=f"text, a folder for each domain (default: {DATA})")
    own.add_argument("--cache", type=Path, metavar="DIR", help="keep what was trained there, and go on from it")
    own.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="trainings side by side")
    own.add_argument("--width", type=int, default=WIDTH, metavar="N", help=f"of a sub-model (default: {WIDTH})")
    own.add_argument("--row", action="append", choices=list(ROWS), help="only this one; may be repeated")
    return own.parse_args(argv)


def _seeds(name: str, scale: Scale) -> tuple[int, ...]:
    return scale.seeds[:1] if name in ONE_SEED else scale.seeds


def _tuned(trials: Trials, name: str, scale: Scale) -> Cell:
    """Return the row's best setting, tried with the first seed at a part of the length."""
    row, tokens = ROWS[name], int(TUNED_SHARE * scale.tokens)
    if not row.rates:
        return replace(_tuned(trials, FUSED, scale), name=name, row=row)
    grid = [Cell(name, row, scale, rate, batch, tokens, scale.seeds[0]) for rate in row.rates for batch in row.batches]
    if scale.tokens <= QUICK_TOKENS:
        return grid[len(grid) // 2]
    tried = trials.outcomes(grid)
    return min(tried, key=lambda cell: fmean(tried[cell]["losses"][DEFAULT].values()))


Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # row → what came of each seed


def _loss(rows: Rows, name: str, router: str = DEFAULT) -> float:
    return fmean(fmean(outcome["losses"][router].values()) for outcome in rows[name])


def _bars(rows: Rows, costs: Mapping[str, float]) -> list[Bar]:
    """Return the bars whose rows were trained."""
    against = (
        ("fused_over_dense", DENSE_ROW, 0.97),
        ("fused_over_wide", "dense, fused size", 0.95),
        ("fused_over_replicas", "DiLoCo replicas", 0.88),
        ("fused_over_alone", "one peer alone", 0.82),
    )
    ceiling = "branches, common phase in one place"
    bars = []
    if FUSED in rows:
        for id_, base, bar in against:
            if base in rows:
                best = _loss(rows, ceiling) / _loss(rows, base) if ceiling in rows else None
                what = f"loss of {FUSED}, routed, over {base}; baseline: a common phase in one place"
                bars.append(at_most(id_, what, _loss(rows, FUSED) / _loss(rows, base), bar, best))
        told = _loss(rows, FUSED, ORACLE)
        by_counts = _loss(rows, FUSED, "naive Bayes") / told
        bars.append(
            at_most(
                "router",
                "default router over the oracle; baseline: naive Bayes",
                _loss(rows, FUSED) / told,
                1.005,
                by_counts,
            )
        )
    what = "of a peer over a dense model of fused size"
    bars += [at_most(id_, f"{id_[5:]} {what}", value, 0.5) for id_, value in costs.items()]
    return bars


def _memory(is_quick: bool) -> float:
    """Return the peak memory of training a sub-model over that of a dense model of six times its parameters."""
    size = {
        "num_kv_heads": 8,
        "num_heads": 8,
        "context_length": 128,
        "vocab_size": 8192,
        "num_layers": 4 if is_quick else 8,
    }
    peer = ModelSpec(hidden_size=256, mlp_size=768, **size)
    wide = ModelSpec(hidden_size=768, mlp_size=2304, **size)
    inner = InnerSpec(learning_rate=1e-3, batch_tokens=1024)
    return peak_bytes(peer, inner, 8) / peak_bytes(wide, inner, 8)


def _forms(trials: Trials, cells: Mapping[str, Sequence[Cell]], rows: Rows, data: Path | None) -> dict[str, Any]:
    """Fuse the experts, tune their Mixtrals, and let a domain come late to what the first seed has trained."""
    corpus, found, bars = open_corpus(trials.corpus_path), {}, []
    gathered = {
        name: [parts_of(cell.spec(corpus), corpus, trials.blocks(cell)) for cell in cells[name]]
        for name in ("experts", MIXED)
        if name in cells
    }
    for name, each in gathered.items():
        found[name] = _mixtral(each, corpus, cells[name][0]) | {"routed": _loss(rows, name)}
    if MIXED in cells:
        loss = found[MIXED]
        what = f"tuned Mixtral of {MIXED} over its routed form; baseline: untuned"
        tuned, untuned = loss["tuned"] / loss["routed"], loss["untuned"] / loss["routed"]
        bars.append(at_most("mixtral_tuned", what, tuned, 1.01, untuned))
        what = "largest difference of a logit, forced route of the Mixtral against its sub-model"
        bars.append(at_most("restriction", what, largest_difference(gathered[MIXED][0]), 1e-5))
    folder = (data or DATA).resolve()
    if FUSED in cells and (folder / LATE / "train.txt").is_file():
        cell = cells[FUSED][0]
        out = trials.cache / f"{trials.corpus_path.name}-late"
        sources = [folder / domain / "train.txt" for domain in (*DOMAINS, LATE)]
        tokenizer, length = corpus.path / TOKENIZER_FILE, cell.model.context_length
        wider = prepared(sources, out, Plan(tokenizer=tokenizer, context_length=length))
        late = late_domain(cell.spec(corpus), corpus, wider, trials.blocks(cell), cell.scale.held_out)
        found["late_domain"] = asdict(late)
        what = f"{LATE} joins late: worst ratio of another domain's loss; its own: {late.loss_before:.3f} before, "
        bars.append(at_most("late_domain", f"{what}{late.loss_after:.3f} after", late.worst_ratio, 1.005))
    return {**found, "bars": bars}


def _mixtral(gathered: Sequence[Parts], corpus: Corpus, cell: Cell) -> dict[str, float]:
    """Return the mean losses of a row's Mixtral before and after a tune, over what each seed has `gathered`."""
    found = [mixtral_losses(parts, corpus, cell.tokens // 10, cell.scale.held_out) for parts in gathered]
    untuned, tuned = (fmean(losses) for losses in zip(*found, strict=True))
    return {"untuned": untuned, "tuned": tuned}


def _piles(trials: Trials, cells: Mapping[str, Sequence[Cell]], folder: Path) -> list[Pile]:
    """Train the fused and the dense row where there are no domains: on the first domain alone, and on all in one."""
    compared = {name: cells[name] for name in (FUSED, DENSE_ROW) if name in cells}
    sources = {"one": [folder / DOMAINS[0] / "train.txt"], "mixed": [folder / each / "train.txt" for each in DOMAINS]}
    if len(compared) < 2 or not all(path.is_file() for path in sources["mixed"]):
        return []
    one_seed = {name: row[:1] for name, row in compared.items()}
    return [
        train_on_pile(name, paths, compared if name == "one" else one_seed, trials.cache, trials.jobs)
        for name, paths in sources.items()
    ]


def _pile_bar(pile: Pile) -> Bar:
    """Return what was measured: there is nothing that it must be."""
    value = pile.ratio(FUSED, DENSE_ROW)
    text = f"{DOMAINS[0]} alone" if pile.name == "one" else "all domains in one pile"
    what = f"{text}, clustered: {FUSED}, routed, over {DENSE_ROW} (published, whatever it is); baseline: even"
    return Bar(f"{pile.name}_pile", what, value, value, holds=True, baseline=1.0)


def _loss_table(rows: Rows) -> Table:
    domains = list(next(iter(rows.values()))[0]["losses"][DEFAULT])
    table = Table("trained how", title="held-out loss, nats per token, mean over the seeds")
    for column in ("mean", "each seed", *domains):
        table.add_column(column, justify="right")
    for name, held in rows.items():
        each = " ".join(f"{fmean(outcome['losses'][DEFAULT].values()):.3f}" for outcome in held)
        by_domain = (f"{fmean(outcome['losses'][DEFAULT][domain] for outcome in held):.3f}" for domain in domains)
        table.add_row(name, f"{_loss(rows, name):.4f}", each, *by_domain)
        for router in list(held[0]["losses"])[1:]:
            table.add_row(f"  {router}", f"{_loss(rows, name, router):.4f}")
    return table


def _cost_table(cells: Mapping[str, Sequence[Cell]], rows: Rows) -> Table:
    table = Table("trained how", title="what it took")
    numbers = (
        "rate",
        "batch",
        "tokens",
        "TFLOPs",
        "steps",
        "rounds",
        "MB a peer",
        "parameters",
        "active",
        "MFLOPs a token",
    )
    for column in numbers:
        table.add_column(column, justify="right")
    for name, held in rows.items():
        cell = cells[name][0]
        flops, size = flops_per_token(cell.model), parameters(cell.model)
        parted = PEERS if len(held[0]["losses"]) > 1 else 1
        table.add_row(
            name,
            f"{cell.rate:g}",
            f"{cell.batch}",
            f"{cell.trained_tokens / 1e6:.2f} M",
            f"{flops * cell.trained_tokens / 1e12:.2f}",
            f"{cell.steps:,}",
            str(held[0]["rounds"]),
            f"{held[0]['offered_bytes'] / 1e6:.1f}",
            f"{parted * size:,}",
            f"{size:,}",
            f"{parted * flops / 3e6:.2f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
