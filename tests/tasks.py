"""A small task that a tiny model learns in seconds, as files and as a trained model."""

import json
from pathlib import Path

import numpy as np
import torch

from configs.run import InnerSpec, ModelSpec
from peer.corpus.data import Corpus, Sampler, Source, open_corpus
from peer.prepare.engine import prepare
from peer.prepare.plan import Plan
from peer.train.inner import Inner
from peer.train.model import TokenLoss, initial_parameters
from peer.train.partition import COMMON, Strategy
from peer.train.sharded import Ranks, Rows, build_sharded

WINDOW = 32
COLOURS = ("red", "green", "blue", "black")
THINGS = ("fish", "bird", "stone", "ship", "cloud", "tree")


def records(count: int = 400, has_options: bool = False) -> list[dict[str, object]]:
    """Return examples: a number, a colour and a thing; the colour is asked for."""
    found: list[dict[str, object]] = []
    for number in range(count):
        colour, thing = COLOURS[number * 7 % 4], THINGS[number * 11 % 6]
        found.append({"input": f"{colour} {thing} {number}", "target": f"it is {colour}", "source": "made up"})
        if has_options:
            found[-1]["options"] = [f"it is {each}" for each in COLOURS]
    return found


def task_file(path: Path, lines: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def mixed_corpus(folder: Path) -> Corpus:
    """Prepare the task, in several shards, beside a domain of text."""
    task_file(folder / "texts" / "colours.jsonl", records(has_options=True))
    tales = (f"a tale of {number} fish and a bird " * 40 for number in range(20))
    (folder / "texts" / "tales.txt").write_text("\n\n".join(tales), encoding="utf-8")
    plan = Plan(vocab_size=300, context_length=WINDOW, shard_tokens=4000)
    prepare(sorted((folder / "texts").iterdir()), folder / "corpus", plan)
    return open_corpus(folder / "corpus")


def model_spec(corpus: Corpus, hidden_size: int = 32) -> ModelSpec:
    return ModelSpec(
        vocab_size=corpus.info.vocab_size,
        hidden_size=hidden_size,
        num_layers=2,
        num_heads=2,
        num_kv_heads=2,
        mlp_size=2 * hidden_size,
        context_length=WINDOW,
    )


def train(corpus: Corpus, spec: ModelSpec, steps: int) -> tuple[torch.Tensor, list[float]]:
    """Train on all domains in this process. Returns the flat parameters, and the loss of each step."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layout = Strategy("replicas", 1).layout(COMMON, spec)
    ranks = Ranks(0, 1, torch.device("cpu"))
    module: TokenLoss = build_sharded(spec, ranks.device, None)
    rows = Rows(module, layout)
    named = initial_parameters(spec, 0)
    flat = torch.cat([named[slot.name].reshape(-1) for slot in layout.slots])
    rows.copy_in(flat, layout.blocks)
    inner = Inner(InnerSpec(learning_rate=0.01, batch_tokens=16 * WINDOW), module, ranks, is_bfloat16=False)
    inner.use(layout, is_fresh=True)
    sources = [
        Source(str(corpus.blob(shard.content_id)), spec.vocab_size, 1.0, domain.task is not None)
        for domain in corpus.info.domains
        for shard in domain.shards
    ]
    sampler = Sampler(sources, WINDOW, seed=0)
    losses = [inner.step(sampler.batch(step, 16), 16, {COMMON: 0.01}) for step in range(steps)]
    assert np.isfinite(losses).all()
    rows.copy_out(flat)
    return flat, losses
