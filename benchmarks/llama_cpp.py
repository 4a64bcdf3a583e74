"""A model as `fuse --format gguf` writes it, in llama.cpp: the likeliest tokens after ten prompts beside Transformers'.

    pip install gguf xllamacpp
    python -m benchmarks.llama_cpp [--base DIR] [--quick] [--json FILE]

Both go on from each prompt by twelve tokens (two with `--quick`), always the likeliest, the text read by each one's own
tokenizer. Without `--base` the model is SmolLM2-135M-Instruct (`benchmarks/smollm2.py`), in bfloat16.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.report import at_least, exit_with, finish, parser
from benchmarks.smollm2 import base_or_smollm2

PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "def add(a, b):\n    return",
    "Water boils at 100 degrees",
    "1, 2, 3, 4,",
    "Dear Sir or Madam,",
    "Die Katze sitzt auf",
    "In 1969 the first man",
    "The opposite of hot is",
    "import numpy as",
)
TOKENS, QUICK_TOKENS = 12, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--base", type=Path, metavar="DIR", help="a Hugging Face model; else SmolLM2 is fetched")
    args = own.parse_args(argv)
    if lacking := [name for name in ("gguf", "xllamacpp") if find_spec(name) is None]:
        print(f"this needs other packages; say `pip install {' '.join(lacking)}`", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="shoal-llama-cpp-") as name:
        base = base_or_smollm2(args.base, Path(name))
        if base is None:
            return 1
        rows = _compare(base, Path(name) / "model.gguf", QUICK_TOKENS if args.quick else TOKENS)
    alike = [theirs == ours for _, theirs, ours in rows]
    bar = at_least("gguf", "prompts after which llama.cpp says what Transformers says", sum(alike), len(PROMPTS))
    table = Table("prompt", "Transformers", "llama.cpp", title="the likeliest tokens")
    for row in rows:
        table.add_row(*row)
    return finish(args, [bar], {"rows": rows}, [], table)


def _compare(base: Path, file: Path, count: int) -> list[tuple[str, str, str]]:
    """Return of each prompt what Transformers and what llama.cpp go on with."""
    import xllamacpp

    from peer.fused.gguf_file import write_gguf

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    write_gguf(model, base, file, base.name, "bfloat16")
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.verbosity = str(file), 512, 1, -1
    server = xllamacpp.Server(params)
    rows = []
    for prompt in PROMPTS:
        tokens = tokenizer(prompt, return_tensors="pt")
        theirs = model.generate(**tokens, max_new_tokens=count, do_sample=False)[0, tokens.input_ids.shape[1] :]
        found = server.handle_completions({"prompt": prompt, "n_predict": count, "temperature": 0})
        rows.append((prompt, tokenizer.decode(theirs), found["choices"][0]["text"]))
    return rows


if __name__ == "__main__":
    exit_with(main)
