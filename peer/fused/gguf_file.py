"""One model as a GGUF file, for llama.cpp and what is built on it. Needs the package gguf (extra `gguf`).

Names of tensors are those of the package's own tables; what a family keeps otherwise than llama.cpp is turned here.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    LlamaFileType,
    RopeScalingType,
    get_tensor_name_map,
)
from torch import Tensor
from transformers import PreTrainedModel

from configs.errors import DataError
from peer.fused.gguf_vocabulary import write_vocabulary

# Family of Transformers → architecture of llama.cpp.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3moe",
    "smollm3": "smollm3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "olmo2": "olmo2",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "granite": "granite",
}
TURNED = ("llama", "smollm3", "granite")  # which rotate pairs that lie side by side, where Transformers rotates halves
WINDOWED = ("gemma2", "gemma3", "phi3")  # which look back only so far, in some of the layers
TYPES = {  # dtype → of a file, of its matrices
    "float32": (LlamaFileType.ALL_F32, GGMLQuantizationType.F32),
    "float16": (LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16),
    "bfloat16": (LlamaFileType.MOSTLY_BF16, GGMLQuantizationType.BF16),
}
SIGNS = ("phi-3", "phi3", "modern-bert")  # names by which llama.cpp thinks that it knows the tokens
SCALES = {  # of Granite
    "attention_multiplier": "add_attention_scale",
    "embedding_multiplier": "add_embedding_scale",
    "residual_multiplier": "add_residual_scale",
    "logits_scaling": "add_logit_scale",
}


def write_gguf(model: PreTrainedModel, folder: Path, path: Path, name: str, dtype: str) -> None:
    """Write `model` into the new file `path`, matrices in `dtype`, with the tokenizer and the template of `folder`.

    `folder` is a Hugging Face directory, but for the weights. Raises DataError: llama.cpp has no such model, or no such
    tokenizer.
    """
    config: Any = model.config
    kind = ARCHITECTURES.get(config.model_type)
    if kind is None:
        raise DataError(
            f"no GGUF is written of {config.model_type}, only of {', '.join(ARCHITECTURES)}; choose another format"
        )
    writer = GGUFWriter(path, kind)
    if kind == "phi3" or not any(sign in name.lower() for sign in SIGNS):
        writer.add_name(name)
    writer.add_file_type(TYPES[dtype][0])
    _write_sizes(writer, config, kind)
    frequencies = _write_rope(writer, config)
    write_vocabulary(writer, folder, config.vocab_size)
    if frequencies is not None:
        writer.add_tensor("rope_freqs.weight", frequencies)
    for tensor, value in _tensors(model, kind):
        if value.ndim == 1 or dtype == "float32":
            writer.add_tensor(tensor, value.float().numpy())
        else:
            part = value.to(getattr(torch, dtype)).contiguous()
            shape = (*part.shape[:-1], part.shape[-1] * part.element_size())
            writer.add_tensor(tensor, part.view(torch.uint8).numpy(), raw_shape=shape, raw_dtype=TYPES[dtype][1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_sizes(writer: GGUFWriter, config: Any, kind: str) -> None:
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    window = getattr(config, "sliding_window", None)
    context_length = config.max_position_embeddings
    if window is not None and kind in WINDOWED:
        writer.add_sliding_window(window)
    elif window is not None:  # within the window the model computes the same
        context_length = min(context_length, window)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(context_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads if kind == "gpt2" else config.num_key_value_heads)
    writer.add_key_length(head_size)
    writer.add_value_length(head_size)
    if kind == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_dimension_count(head_size)
    if (experts := getattr(config, "num_local_experts", None)) is not None:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(getattr(config, "moe_intermediate_size", config.intermediate_size))
    if (cap := getattr(config, "attn_logit_softcapping", None)) is not None:
        writer.add_attn_logit_softcapping(cap)
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        writer.add_final_logit_softcapping(cap)
    for key, add in SCALES.items() if kind == "granite" else ():
        getattr(writer, add)(getattr(config, key))


def _write_rope(writer: GGUFWriter, config: Any) -> np.ndarray | None:
    """Write how positions are told, and return by what each frequency is divided, None: by nothing."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    if not rope:
        return None
    kind = rope.get("rope_type", "default")
    writer.add_rope_freq_base(rope["rope_theta"])
    if kind == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if kind == "llama3":
        return _divisors(config, rope["rope_theta"])
    if kind not in ("default", "linear"):
        raise DataError(f"no GGUF is written of positions that are scaled as {kind}; choose another format")
    return None


def _divisors(config: Any, theta: float) -> np.ndarray:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = theta ** -(torch.arange(0, 2 * len(scaled), 2) / (2 * len(scaled)))
    return np.asarray((plain / scaled).float().numpy())


def _tensors(model: PreTrainedModel, kind: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a model as llama.cpp names and lays them."""
    config: Any = model.config
    architecture = next(each for each in MODEL_ARCH if MODEL_ARCH_NAMES[each] == kind)
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        for own, value in _parts(name, parameter.detach(), config, kind):
            found = names.get_name(own, (".weight", ".bias"))
            if found is None:
                raise DataError(f"llama.cpp has no place for {own}; choose another format")
            yield found, value


def _parts(name: str, value: Tensor, config: Any, kind: str) -> Iterator[tuple[str, Tensor]]:
    """Yield what a tensor of Transformers is in llama.cpp, by the name that the package's tables know."""
    if name.endswith("experts.gate_up_proj"):
        gate, up = value.chunk(2, dim=1)
        yield name.replace("gate_up_proj", "gate_proj.weight"), gate
        yield name.replace("gate_up_proj", "up_proj.weight"), up
        return
    if name.endswith("experts.down_proj"):
        name += ".weight"
    elif kind in TURNED and ".q_proj." in name:
        value = _side_by_side(value, config.num_attention_heads)
    elif kind in TURNED and ".k_proj." in name:
        value = _side_by_side(value, config.num_key_value_heads)
    elif kind.startswith("gemma") and name.endswith("norm.weight"):
        value = value + 1
    elif kind == "gpt2" and name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
        value = value.T
    yield name, value


def _side_by_side(value: Tensor, heads: int) -> Tensor:
    """Return a projection whose rotated pairs, that lay half a head apart, are side by side."""
    halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return halves.transpose(1, 2).reshape(value.shape)
