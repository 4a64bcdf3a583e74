"""An adapter by itself, as PEFT keeps them: a few megabytes beside the model that it was trained on."""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from configs.run import RunSpec
from peer.train.adapters import is_turned
from peer.train.partition import adapted_modules

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def write_adapter(spec: RunSpec, factors: Mapping[str, Tensor], out: Path) -> None:
    """Write the factors of one adapter, by their names, into the folder `out`, for `PeftModel.from_pretrained`."""
    adapter = spec.model.adapter
    assert adapter is not None
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None if spec.origin is None else spec.origin.name,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": is_turned(spec.model),
        "inference_mode": True,
        "target_modules": sorted({name.rsplit(".", 1)[1] for name, _ in adapted_modules(spec.model)}),
    }
    out.mkdir(exist_ok=True)
    named = {f"base_model.model.{name.replace('.default.', '.')}": value for name, value in factors.items()}
    save_file({name: value.contiguous() for name, value in named.items()}, out / WEIGHTS, {"format": "pt"})
    (out / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
