"""An adapter by itself is what PEFT reads, also where matrices are stored the other way round."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from benchmarks.families import write_model
from configs.run import AdapterSpec, ModelSpec, RunSpec
from peer.fused.adapter import write_adapter
from peer.train.adapters import first_factors, merge
from peer.train.pretrained import read_parameters, read_pretrained

PLAN = ModelSpec(
    vocab_size=320, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_size=48, context_length=24,
    adapter=AdapterSpec(rank=4, alpha=12),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_peft_computes_what_the_merged_model_computes(
    kind: str, tmp_path: Path, smallest_run: Callable[..., RunSpec]
) -> None:
    base = write_model(tmp_path / "base", kind)
    spec, origin = read_pretrained(base, PLAN)
    strategy = {"kind": "adapters", "common_tokens": 0}
    inner = {"learning_rate": 0.1, "batch_tokens": 24}
    run = smallest_run(model=spec.model_dump(), strategy=strategy, inner=inner, initial_id="0" * 64, origin=origin)
    factors = first_factors(spec, 1)
    generator = torch.Generator().manual_seed(2)
    for name, value in factors.items():
        if ".lora_B." in name:
            value.normal_(0.0, 0.1, generator=generator)
    write_adapter(run, factors, tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    named = merge(spec, torch.cat([each.reshape(-1) for each in read_parameters(base, spec)]), factors)
    merged = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in merged.named_parameters():
            parameter.copy_(named[name])
    adapted = PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    tokens = torch.randint(0, 320, (2, 16), generator=generator)
    with torch.no_grad():
        logits = adapted(input_ids=tokens).logits
        assert (logits - merged(input_ids=tokens).logits).abs().max() <= 1e-4
        with adapted.disable_adapter():
            assert (logits - adapted(input_ids=tokens).logits).abs().max() > 1e-2
