"""A small fused model of two domains, untrained, as `shoal fuse` writes it."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from configs.corpus import TaskFormat
from configs.run import RunSpec
from peer.fused.fuse import fuse
from peer.fused.parts import Parts

VOCABULARY, CONTEXT = 300, 32
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
# For `smallest_run`: two branches, of a model that has something to say.
BRANCHES = {
    "model": {**SIZES, "mlp_size": 24, "context_length": CONTEXT},
    "strategy": {"kind": "branches"},
    "inner": {"learning_rate": 0.1, "batch_tokens": CONTEXT},
}
TEXT = "A shoal of fish swims together, and nobody is in charge. " * 20


def tokenizer_json() -> bytes:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [TEXT],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return tokenizer.to_str().encode()


def write_fused(out: Path, spec: RunSpec, task: TaskFormat | None = None) -> Path:
    """Fuse two branches with parameters of chance into `out`. `spec`: of `BRANCHES`."""
    random = np.random.default_rng(0)
    counts = {name: random.integers(0, 100, VOCABULARY).astype(np.uint64) for name in ("up", "down")}
    parts = Parts(spec, {}, counts, tokenizer_json(), task)
    generator = torch.Generator().manual_seed(0)
    blocks = {
        name: torch.empty(parts.strategy.layout(name, spec.model).size).normal_(0.0, 0.3, generator=generator)
        for name in parts.strategy.sub_models
    }
    fuse(Parts(spec, blocks, counts, parts.tokenizer_json, task), out)
    return out
