"""What splitting a model wins or costs: a fused swarm against what else the same compute could have trained.

    python -m benchmarks.quality [--data DIR] [--cache DIR] [--jobs N] [--row NAME …] [--quick] [--json FILE]

Every row trains from scratch on the same text with the same training FLOPs (but for the lone peer, which has its own
share of them), and is judged by the same held-out documents, every token scored. Each takes the best of its learning
rates and batch sizes, found with the first seed at a part of the length; then it is trained with every seed. What was
trained is kept, by row, setting and seed, in the cache: a broken run goes on where it was.

How a swarm runs in one process stands in `fusing_swarm.py`, the ways to choose between sub-models in `routes.py`.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.costs import flops_per_token, parameters, peak_bytes
from benchmarks.fusing_swarm import train_central, train_swarm
from benchmarks.joint_mixture import train_joint
from benchmarks.report import Bar, at_most, finish, parser
from benchmarks.routes import DEFAULT, ORACLE, losses, sub_models_of
from configs.run import InnerSpec, ModelSpec, RunSpec
from peer.train.builtin import built_in_corpus
from peer.train.data import CORPUS_FILE, Corpus, open_corpus
from peer.train.partition import COMMON, Strategy
from peer.train.prepare import prepare

DATA = Path("../shared/data/lm")
DOMAINS = ("wiki", "novel", "science", "tech_pep", "law_en", "dialogue")  # of that folder
PEERS = 6
TUNED_SHARE = 0.25  # of the tokens, with which a row's setting is chosen


@dataclass(frozen=True)
class Scale:
    """How large everything is. Tokens are those of all peers together."""

    model: ModelSpec
    wide: ModelSpec  # dense, of as many parameters as all the sub-models together
    tokens: int
    held_out: int  # tokens of each domain
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """How a model is trained.

    `alone`: one peer's share of the tokens, in one place, on all domains. `dense`, `wide`: all tokens in one place
    (`wide` as many as equal FLOPs allow). `joint`: the trunk and all experts at once, in one place, each expert on its
    own domain. `swarm`: peers and their rounds, as `strategy` says, `common` of the tokens before they part; `central`:
    the same with a common phase that was trained in one place.
    """

    kind: Literal["alone", "dense", "wide", "joint", "swarm", "central"]
    strategy: Literal["replicas", "experts", "branches"] = "replicas"
    common: float = 0.0
    is_private: bool = False  # every peer has its own domain's text only, from the first step
    optimizer: Literal["adamw", "muon"] = "muon"
    codec: str = "int4"
    alpha: float = 0.9
    mu: float = 0.3
    round_tokens: tuple[int, int] = (1024, 2048)  # of one peer, in its first and its last rounds
    rates: tuple[float, ...] = ()
    batches: tuple[int, ...] = ()  # tokens of one inner step of one peer


SMALL, USUAL = (256, 512), (512, 1024)  # batches
DENSE = {"rates": (0.01, 0.02, 0.04), "batches": USUAL}
FAST = {"rates": (0.02, 0.03, 0.04), "batches": SMALL}
ROWS: dict[str, Row] = {
    "one peer alone": Row("alone", **DENSE),
    "dense, sub-model size": Row("dense", **DENSE),
    "dense, fused size": Row("wide", rates=(0.005, 0.01, 0.02), batches=USUAL),
    "joint mixture, routes told": Row("joint", "experts", **DENSE),
    "DiLoCo replicas": Row("swarm", alpha=0.7, mu=0.9, rates=(0.01, 0.02, 0.04), batches=SMALL),
    "replicas": Row("swarm", **FAST),
    "experts": Row("swarm", "experts", 0.4, **FAST),
    "branches": Row("swarm", "branches", 0.4, **FAST),
    "branches, no common phase": Row("swarm", "branches", **FAST),
    "branches, private text": Row("swarm", "branches", 0.4, is_private=True, **FAST),
    "branches, common phase in one place": Row("central", "branches", 0.4, **FAST),
}
FUSED = "branches"  # the row that the bars are about: the product's default
ONE_SEED = frozenset({"joint mixture, routes told", "branches, no common phase", "branches, private text"})


def scale_of(hidden: int, seeds: tuple[int, ...]) -> Scale:
    """Return a scale by the sub-models' width: 16 tokens for each parameter of each of the peers' sub-models."""
    fixed = {"vocab_size": 512, "num_layers": 2, "context_length": 128}
    model = ModelSpec(hidden_size=hidden, num_heads=2, num_kv_heads=2, mlp_size=3 * hidden, **fixed)
    size = PEERS * parameters(model)
    widths = range(hidden, 6 * hidden, 8)
    wide = [ModelSpec(hidden_size=w, num_heads=4, num_kv_heads=4, mlp_size=3 * w, **fixed) for w in widths]
    nearest = min(wide, key=lambda each: abs(parameters(each) - size))
    return Scale(model, nearest, tokens=16 * size, held_out=16_384, seeds=seeds)


WIDTH, SEEDS = 32, (0, 1, 2)
QUICK_TOKENS = 400_000
QUICK_ROWS = ("one peer alone", "dense, sub-model size", FUSED)


@dataclass(frozen=True)
class Cell:
    """One training: a row with a setting, a length and a seed."""

    name: str
    row: Row
    scale: Scale
    rate: float
    batch: int
    tokens: int
    seed: int

    @property
    def key(self) -> str:
        """What its outcome is kept under: everything that it depends on."""
        facts = [asdict(replace(self.row, rates=(), batches=())), self.scale.model.model_dump(), self.scale.held_out]
        facts += [self.scale.wide.model_dump() if self.row.kind == "wide" else None]
        facts += [self.rate, self.batch, self.tokens, self.seed]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @property
    def model(self) -> ModelSpec:
        """The model that is trained, or one of them."""
        return self.scale.wide if self.row.kind == "wide" else self.scale.model

    @property
    def trained_tokens(self) -> int:
        """Tokens that are trained in all: of a wide model, as many as cost what the small one's do."""
        if self.row.kind == "wide":
            return int(self.tokens * flops_per_token(self.scale.model) / flops_per_token(self.scale.wide))
        return self.tokens // PEERS if self.row.kind == "alone" else self.tokens

    @property
    def streams(self) -> int:
        """Peers that take steps at the same time."""
        return PEERS if self.row.kind in ("swarm", "central") else 1

    @property
    def steps(self) -> int:
        """Inner steps, one after the other, of one peer."""
        return self.trained_tokens // self.batch // self.streams

    def spec(self, corpus: Corpus) -> RunSpec:
        """Return the run that it trains."""
        row, total = self.row, self.steps * self.streams * self.batch
        parts = row.kind in ("swarm", "central")
        common = round(row.common * self.steps) * self.streams * self.batch
        return RunSpec.model_validate(
            {
                "name": "quality",
                "seed": self.seed,
                "total_tokens": total,
                "model": self.model,
                "strategy": {"kind": row.strategy if parts else "replicas", "common_tokens": common if parts else 0},
                "inner": InnerSpec(
                    optimizer=row.optimizer,
                    learning_rate=self.rate,
                    batch_tokens=self.batch,
                    warmup_tokens=total // 50,
                ),
                "outer": {"codec": row.codec, "alpha": row.alpha, "mu": row.mu},
                "rounds": {
                    "tick_seconds": 1,
                    "first_ticks": max(1, row.round_tokens[0] // self.batch),
                    "last_ticks": max(1, row.round_tokens[1] // self.batch),
                    "double_tokens": max(1, total // 10),
                },
                "genesis": 0.0,
                "tokenizer_sha256": corpus.info.tokenizer_sha256,
                "end_of_text": corpus.info.end_of_text,
            }
        )


def train(cell: Cell, corpus_path: Path, path: Path) -> float:
    """Train a cell from scratch, score it, and write what came of it to `path`, a swarm's blocks beside it.

    Returns the loss.
    """
    torch.set_num_threads(1)
    corpus, began = open_corpus(corpus_path), time.process_time()
    spec, kind = cell.spec(corpus), cell.row.kind
    rounds = offered = 0
    if kind in ("swarm", "central"):
        start = None
        if kind == "central":
            central = replace(cell, row=replace(cell.row, kind="dense", strategy="replicas", common=0.0))
            share = spec.strategy.common_tokens // cell.batch
            start = train_central(central.spec(corpus), corpus, steps=central.steps, stop_after=share)
        swarm = train_swarm(spec, corpus, PEERS, cell.steps, is_private=cell.row.is_private, start=start)
        rounds, offered = swarm.rounds, swarm.offered_bytes
        sub_models = sub_models_of(spec, swarm.blocks, len(corpus.info.domains))
        save_file({name: flat.contiguous() for name, flat in swarm.blocks.items()}, path.with_suffix(".safetensors"))
    elif kind == "joint":
        sub_models = train_joint(spec, corpus, steps=cell.steps)
    else:
        flat = train_central(spec, corpus, steps=cell.steps)
        sub_models = {COMMON: Strategy("replicas", 1).assemble(COMMON, {COMMON: flat}, cell.model)}
    seconds = time.process_time() - began
    scored = losses(sub_models, cell.model, corpus, cell.scale.held_out)
    facts = {**asdict(cell), "scale": None, "model": cell.model.model_dump()}
    outcome = {"losses": scored, "rounds": rounds, "offered_bytes": offered, "seconds": seconds}
    path.write_text(json.dumps({"cell": facts, **outcome}, indent=1) + "\n")
    return mean(scored[DEFAULT].values())


@dataclass
class Trials:
    """Trains cells side by side, and keeps what came of each."""

    corpus_path: Path
    cache: Path
    jobs: int

    def outcomes(self, cells: Iterable[Cell]) -> dict[Cell, dict[str, Any]]:
        """Return what came of each cell; what was trained before is read."""
        wanted = list(dict.fromkeys(cells))
        lacking = [cell for cell in wanted if not self._path(cell).exists()]
        # The longest first, so that no core is left with it in the end.
        lacking.sort(key=lambda cell: -cell.trained_tokens * cell.streams)
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
            paths = [self._path(cell) for cell in lacking]
            done = pool.map(train, lacking, [self.corpus_path] * len(lacking), paths)
            for cell, loss in zip(lacking, done, strict=True):
                said = f"{cell.name}, rate {cell.rate:g}, batch {cell.batch}, {cell.tokens:,} tokens, seed {cell.seed}"
                print(f"{said}: {loss:.4f} nats", file=sys.stderr, flush=True)
        return {cell: json.loads(self._path(cell).read_text()) for cell in wanted}

    def blocks(self, cell: Cell) -> dict[str, Tensor]:
        """Return the blocks that a swarm's cell ended with."""
        return load_file(self._path(cell).with_suffix(".safetensors"))

    def _path(self, cell: Cell) -> Path:
        return self.cache / f"{cell.key}.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    args = _arguments(argv)
    scale = scale_of(args.width, SEEDS)
    if args.quick:
        scale = replace(scale, tokens=QUICK_TOKENS, held_out=2048, seeds=SEEDS[:1])
    names = args.row or (QUICK_ROWS if args.quick else list(ROWS))
    with tempfile.TemporaryDirectory() as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        trials = Trials(_corpus(args.data, cache, scale), cache, args.jobs)
        chosen = {name: _tuned(trials, name, scale) for name in names}
        cells = {
            name: [
                replace(best, tokens=scale.tokens, seed=seed) for seed in scale.seeds[: 1 if name in ONE_SEED else None]
            ]
            for name, best in chosen.items()
        }
        trained = trials.outcomes(cell for row in cells.values() for cell in row)
        rows = {name: [trained[cell] for cell in row] for name, row in cells.items()}
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
    }
    return finish(args, _bars(rows, costs), figures, missing, _table(scale, cells, rows))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--data", type=Path, metavar="DIR", help=f"text, a folder for each domain (default: {DATA})")
    own.add_argument("--cache", type=Path, metavar="DIR", help="keep what was trained there, and go on from it")
    own.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="trainings side by side")
    own.add_argument("--width", type=int, default=WIDTH, metavar="N", help=f"of a sub-model (default: {WIDTH})")
    own.add_argument("--row", action="append", choices=list(ROWS), help="only this one; may be repeated")
    return own.parse_args(argv)


def _corpus(data: Path | None, cache: Path, scale: Scale) -> Path:
    """Prepare the text, and return where the corpus lies; the built-in corpus where there is none."""
    vocab_size, length = scale.model.vocab_size, scale.model.context_length
    if data is None and not DATA.is_dir():
        return built_in_corpus(cache, vocab_size, length).path
    folder = (data or DATA).resolve()
    out = cache / f"corpus-{hashlib.sha256(f'{folder} {vocab_size}'.encode()).hexdigest()[:8]}"
    if not (out / CORPUS_FILE).exists():
        known = [folder / domain / "train.txt" for domain in DOMAINS]
        sources = known if all(path.is_file() for path in known) else [folder]
        prepare(sources, out, vocab_size=vocab_size, context_length=length)
    return out


def _seeds(name: str, scale: Scale) -> tuple[int, ...]:
    return scale.seeds[:1] if name in ONE_SEED else scale.seeds


def _tuned(trials: Trials, name: str, scale: Scale) -> Cell:
    """Return the row's best setting, tried with the first seed at a part of the length."""
    row, tokens = ROWS[name], int(TUNED_SHARE * scale.tokens)
    grid = [Cell(name, row, scale, rate, batch, tokens, scale.seeds[0]) for rate in row.rates for batch in row.batches]
    if scale.tokens <= QUICK_TOKENS:
        return grid[len(grid) // 2]
    tried = trials.outcomes(grid)
    return min(tried, key=lambda cell: mean(tried[cell]["losses"][DEFAULT].values()))


def mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held)


Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # row → what came of each seed


def _loss(rows: Rows, name: str, router: str = DEFAULT) -> float:
    return mean(mean(outcome["losses"][router].values()) for outcome in rows[name])


def _bars(rows: Rows, costs: Mapping[str, float]) -> list[Bar]:
    """Return the bars whose rows were trained."""
    against = (
        ("fused_over_dense", "dense, sub-model size", 0.97),
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


def _table(scale: Scale, cells: Mapping[str, Sequence[Cell]], rows: Rows) -> Table:
    domains = list(next(iter(rows.values()))[0]["losses"][DEFAULT])
    table = Table("trained how", title="held-out loss, nats per token, mean over the seeds")
    numbers = ("mean", "each seed", *domains, "PFLOPs", "steps", "active GFLOPs", "parameters", "rounds", "MB a peer")
    for column in numbers:
        table.add_column(column, justify="right")
    for name, held in rows.items():
        cell = cells[name][0]
        each = " ".join(f"{mean(outcome['losses'][DEFAULT].values()):.3f}" for outcome in held)
        by_domain = (f"{mean(outcome['losses'][DEFAULT][domain] for outcome in held):.3f}" for domain in domains)
        flops, size = flops_per_token(cell.model), parameters(cell.model)
        experts = PEERS if len(held[0]["losses"]) > 1 else 1
        table.add_row(
            name,
            f"{_loss(rows, name):.4f}",
            each,
            *by_domain,
            f"{flops * cell.trained_tokens / 1e15:.3f}",
            f"{cell.steps:,}",
            f"{flops / 3e9:.5f}",
            f"{experts * size:,}",
            str(held[0]["rounds"]),
            f"{held[0]['offered_bytes'] / 1e6:.1f}",
        )
        for router in list(held[0]["losses"])[1:]:
            table.add_row(f"  {router}", f"{_loss(rows, name, router):.4f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
