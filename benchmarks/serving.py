"""Answers that are written side by side: tokens a second of 24 prompts, 16 at a time as `shoal serve` writes them.

    python -m benchmarks.serving [--base DIR] [--quick] [--json FILE]

Beside it the same answers one after the other, and Transformers' own `generate` on all 24 as one batch, which has to
know them all when it begins. Without `--base` the model is SmolLM2-135M-Instruct (`benchmarks/smollm2.py`).
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.llama_cpp import PROMPTS
from benchmarks.report import at_least, exit_with, finish, parser
from benchmarks.smollm2 import base_or_smollm2
from peer.fused.batch import Batch
from peer.fused.generate import Generation
from peer.fused.routed import RoutedModel
from peer.fused.sampling import Sampling

CLIENTS = 24
TOKENS, QUICK_TOKENS = 48, 8
GAIN = 2.0  # side by side over one after the other, at least


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--base", type=Path, metavar="DIR", help="a Hugging Face model; else SmolLM2 is fetched")
    args = own.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="shoal-serving-") as name:
        base = base_or_smollm2(args.base, Path(name))
        if base is None:
            return 1
        speeds = _speeds(base, QUICK_TOKENS if args.quick else TOKENS)
    table = Table("", "tokens a second", title=f"{CLIENTS} prompts")
    for kind, speed in speeds.items():
        table.add_row(kind, f"{speed:.1f}")
    gain = speeds["side by side"] / speeds["one by one"]
    bar = at_least("serving", "tokens a second, side by side over one after the other", gain, GAIN)
    return finish(args, [bar], {"speeds": speeds}, [], table)


def _speeds(base: Path, count: int) -> dict[str, float]:
    """Return the tokens a second of each way to write."""
    model = RoutedModel.load(base)
    prompts = [f"{PROMPTS[number % len(PROMPTS)]} ({number})" for number in range(CLIENTS)]
    # Of an answer that ends early nothing could be compared: the end is never drawn.
    sampling = Sampling(max_tokens=count, temperature=0, logit_bias=dict.fromkeys(model.ends, -1e9))
    batch = Batch(model)
    texts = {
        "one by one": [Generation(model, prompt, sampling) for prompt in prompts],
        "side by side": [Generation(model, prompt, sampling, batch=batch) for prompt in prompts],
    }
    found = {}
    for (kind, generations), threads in zip(texts.items(), (1, batch.most), strict=True):
        began = time.monotonic()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(list, generations))
        found[kind] = CLIENTS * count / (time.monotonic() - began)
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    began = time.monotonic()
    plain.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False)
    found["Transformers, one batch"] = CLIENTS * count / (time.monotonic() - began)
    return found


if __name__ == "__main__":
    exit_with(main)
