"""Adapters of three domains, fused and routed, beside one adapter that had all of their tokens in one place.

    python -m benchmarks.over_one [--base DIR] [--data DIR] [--tokens N] [--common SHARE] [--quick] [--json FILE]

The same pretrained model, the same tokens in all, the same recipe (LoRA of rank 16, AdamW). The swarm has a peer for
each domain: they share an adapter for the first tokens, then each trains that of its own domain; its rounds are the
product's, in one process (`fusing_swarm.py`). The other is trained in one place on all domains in turn. Both are judged
by the first held-out tokens of each domain, the routed one by the product's router, which is told nothing. Without
`--base` the model is SmolLM2-135M-Instruct (`benchmarks/smollm2.py`). The two trainings take a core each.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.fusing_swarm import train_central, train_swarm
from benchmarks.report import at_most, exit_with, finish, parser
from benchmarks.routes import DEFAULT, losses_of
from benchmarks.smollm2 import base_or_smollm2
from benchmarks.text import DATA
from configs.run import AdapterSpec, ModelSpec, RunSpec
from peer.corpus.data import Corpus, open_corpus
from peer.fused.parts import build_one
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.router import Router
from peer.prepare.engine import prepare
from peer.prepare.plan import Plan
from peer.train.adapters import map_base
from peer.train.partition import COMMON, Strategy
from peer.train.pretrained import read_pretrained, write_parameters

DOMAINS = ("law_en", "dialogue", "science")
TOKENS, QUICK_TOKENS = 120_000, 3_072  # of all peers together
HELD_OUT, QUICK_HELD_OUT = 4_096, 512  # of each domain
CONTEXT, BATCH_TOKENS = 128, 512
RATE = 1e-3
COMMON_SHARE = 0.2  # of the tokens, before the adapters part


@dataclass(frozen=True)
class Task:
    """One training, in a process of its own."""

    is_swarm: bool
    spec: RunSpec
    base: Path  # the Hugging Face directory
    frozen: Path  # its parameters
    corpus: Path
    held_out: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--base", type=Path, metavar="DIR", help="a Hugging Face model; else SmolLM2 is fetched")
    own.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="text, a folder for each domain")
    own.add_argument("--tokens", type=int, help="of all peers together")
    own.add_argument("--common", type=float, default=COMMON_SHARE, help="share of the tokens before the adapters part")
    own.add_argument("--rate", type=float, default=RATE, help="the learning rate of both")
    args = own.parse_args(argv)
    if missing := [name for name in DOMAINS if not (args.data / name / "train.txt").is_file()]:
        print(f"no {args.data / missing[0] / 'train.txt'}; name the folder of the domains with --data", file=sys.stderr)
        return 2
    tokens = args.tokens or (QUICK_TOKENS if args.quick else TOKENS)
    held_out = QUICK_HELD_OUT if args.quick else HELD_OUT
    with tempfile.TemporaryDirectory(prefix="shoal-over-one-") as name:
        place = Path(name)
        base = base_or_smollm2(args.base, place)
        if base is None:
            return 1
        texts = [args.data / domain / "train.txt" for domain in DOMAINS]
        corpus = prepare(texts, place / "corpus", Plan(tokenizer=base, context_length=CONTEXT)).info
        assert corpus is not None
        rows = _rows(place, base, tokens, args, held_out)
    ratio = fmean(rows["routed"].values()) / fmean(rows["one"].values())
    what = "held-out loss of the routed adapters over that of one adapter with all tokens"
    table = Table("", *DOMAINS, "mean", title=f"held-out loss, nats a token, after {tokens:,} tokens")
    for row, found in rows.items():
        table.add_row(row, *(f"{found[domain]:.4f}" for domain in DOMAINS), f"{fmean(found.values()):.4f}")
    bar = at_most("adapters_over_one", what, ratio, 1.0, fmean(rows["base"].values()))
    return finish(args, [bar], {"seeds": [0], "tokens": tokens, "common": args.common, "rows": rows}, [], table)


def _rows(place: Path, base: Path, tokens: int, args: argparse.Namespace, held_out: int) -> dict[str, dict[str, float]]:
    """Train and score; return the held-out losses by domain of each row."""
    plan = ModelSpec(
        vocab_size=258, hidden_size=8, num_layers=1, num_heads=1, num_kv_heads=1, mlp_size=8, context_length=CONTEXT,
        adapter=AdapterSpec(),
    )  # fmt: skip
    model, origin = read_pretrained(base, plan)
    name = write_parameters(base, model, place / "blobs")
    corpus = open_corpus(place / "corpus")
    total = tokens // (BATCH_TOKENS * len(DOMAINS)) * BATCH_TOKENS * len(DOMAINS)

    def spec(common: int) -> RunSpec:
        return RunSpec.model_validate(
            {
                "name": "over-one",
                "total_tokens": total,
                "model": model,
                "strategy": {"kind": "adapters", "common_tokens": common},
                "inner": {
                    "optimizer": "adamw",
                    "learning_rate": args.rate,
                    "weight_decay": 0.0,
                    "batch_tokens": BATCH_TOKENS,
                    "warmup_tokens": total // 50,
                },
                "rounds": {"tick_seconds": 1, "first_ticks": 4, "last_ticks": 8, "double_tokens": total // 5},
                "genesis": 0.0,
                "tokenizer_sha256": corpus.info.tokenizer_sha256,
                "end_of_text": corpus.info.end_of_text,
                "initial_id": name,
                "origin": origin,
            }
        )

    step = BATCH_TOKENS * len(DOMAINS)
    common = round(args.common * total / step) * step
    told = {"base": base, "frozen": place / "blobs" / name, "corpus": corpus.path, "held_out": held_out}
    tasks = [Task(True, spec(common), **told), Task(False, spec(total), **told)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        routed, one = pool.map(run, tasks)
    torch.set_num_threads(1)
    untrained = losses_of(RoutedModel.load(base), corpus, held_out)[DEFAULT]
    return {"base": untrained, "one": one, "routed": routed}


def run(task: Task) -> dict[str, float]:
    """Train as a task says; return the held-out loss of each domain."""
    torch.set_num_threads(1)
    corpus, began = open_corpus(task.corpus), time.monotonic()
    steps, peers = task.spec.total_tokens // BATCH_TOKENS, len(DOMAINS)
    blocks: Mapping[str, Tensor]
    if task.is_swarm:
        blocks = train_swarm(task.spec, corpus, peers, steps // peers, frozen=task.frozen).blocks
    else:
        blocks = {COMMON: train_central(task.spec, corpus, steps=steps, frozen=task.frozen)}
    print(f"{'swarm' if task.is_swarm else 'one'}: trained in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return losses_of(_routed(task, blocks, corpus), corpus, task.held_out)[DEFAULT]


def _routed(task: Task, blocks: Mapping[str, Tensor], corpus: Corpus) -> RoutedModel:
    """Return the routed form of the adapters, each merged into the model, as `fuse` makes it."""
    strategy = Strategy.of(task.spec.strategy, len(DOMAINS))
    names = strategy.sub_models if task.is_swarm else (COMMON,)
    base = map_base(task.frozen, task.spec.model).float()
    models: list[Any] = [build_one(task.spec, strategy, blocks, name, base) for name in names]
    tables = torch.stack([torch.from_numpy(corpus.counts(domain).astype("int64")) for domain in corpus.info.domains])
    if not task.is_swarm:
        tables = tables.sum(dim=0, keepdim=True)
    infos = tuple(SubModelInfo(name=name, domain=name.replace(".", "")) for name in names)
    return RoutedModel(infos, tuple(models), Router(tables.numpy().astype("uint64")), corpus.info.end_of_text, None)


if __name__ == "__main__":
    exit_with(main)
