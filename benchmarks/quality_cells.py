"""One training of the quality benchmark: what is trained, how, and what is kept of it."""

import hashlib
import json
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.costs import flops_per_token, parameters
from benchmarks.fusing_swarm import train_central, train_swarm
from benchmarks.joint_mixture import train_joint
from benchmarks.routes import DEFAULT, losses, sub_models_of
from configs.run import InnerSpec, ModelSpec, RunSpec
from peer.corpus.data import Corpus, open_corpus
from peer.train.partition import COMMON, Strategy

PEERS = 6


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


def scale_of(hidden: int, seeds: tuple[int, ...]) -> Scale:
    """Return a scale by the sub-models' width: 16 tokens for each parameter of each of the peers' sub-models."""
    fixed = {"vocab_size": 512, "num_layers": 2, "context_length": 128}
    model = ModelSpec(hidden_size=hidden, num_heads=2, num_kv_heads=2, mlp_size=3 * hidden, **fixed)
    size = PEERS * parameters(model)
    widths = range(hidden, 6 * hidden, 8)
    wide = [ModelSpec(hidden_size=w, num_heads=4, num_kv_heads=4, mlp_size=3 * w, **fixed) for w in widths]
    nearest = min(wide, key=lambda each: abs(parameters(each) - size))
    return Scale(model, nearest, tokens=16 * size, held_out=16_384, seeds=seeds)


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
        facts += [(self.scale.wide.model_dump(), self.trained_tokens) if self.row.kind == "wide" else None]
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
    return fmean(scored[DEFAULT].values())


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
