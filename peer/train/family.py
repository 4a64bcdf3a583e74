"""Models that people have: what a run knows of any causal LM of Transformers, by its own `config.json`.

A plain Llama is described by a `ModelSpec` alone (`partition.py`, `model.py`). Every other model brings its
configuration, which travels in the run spec: read, bounded and made canonical here. Nothing of it is run: Transformers'
own classes are built from it, and keys that would load code or change how it computes are refused.

Transformers is imported only where something is built or listed; it takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from configs.errors import DataError
from configs.run import MAX_CONFIG_CHARS

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Keys that name code, kernels or another arithmetic: a model that needs them cannot be trained here as what it is.
REFUSED = ("auto_map", "quantization_config", "custom_pipelines", "trust_remote_code", "kernel_config")
# Keys that say nothing of what the model computes, or are set by whoever builds it.
DROPPED = frozenset(
    (
        # where it comes from
        *("architectures", "_name_or_path", "name_or_path", "transformers_version", "torch_dtype", "dtype", "prefix"),
        # of classifiers and of what is returned
        *("id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "tokenizer_class", "use_cache"),
        *("return_dict", "output_hidden_states", "output_attentions", "chunk_size_feed_forward", "is_encoder_decoder"),
        # how it is computed
        *("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "torchscript"),
        # what tokens mean, but for padding, of which some embeddings take no gradient
        *("bos_token_id", "eos_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id"),
    )
)
# Families whose logits are the head of the last hidden state, at most capped as Gemma 2 does: the loss can be made in
# chunks. Of any other the model makes its own logits.
PLAIN_HEADS = frozenset(
    ("llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma2", "gemma3_text", "olmo2", "phi3", "gpt2")
)
COUNTS = ("n_layer", "n_head", "n_layers", "n_heads")
MAX_MODULES = 1024  # of layers, heads, experts
MAX_NUMBER = 1e9  # of any other number: a rotary base is the largest that is seen
LAYERS = ("layers", "h", "blocks")  # as families call the list of their decoder layers


def canonical(config: Mapping[str, Any], where: str) -> str:
    """Return a model's configuration as it stands in a run spec. Raises DataError: why no run can have it."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise DataError(f"{where} is of {kind!r}; take any causal LM that Transformers has")
    class_name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    classes = [class_name] if isinstance(class_name, str) else list(class_name)
    if (said := config.get("architectures") or classes) and not set(said) & set(classes):
        raise DataError(f"{where} is of {said[0]}, and a run can begin only with a {classes[0]}")
    if named := [key for key in REFUSED if config.get(key)]:
        raise DataError(f"{where}: {named[0]} asks for other code or another arithmetic; take the plain model")
    _check_numbers(config, where)
    try:
        full = CONFIG_MAPPING[kind].from_dict(dict(config)).to_dict()
    except Exception as error:  # whatever a configuration class says of a value
        raise DataError(f"{where}: {str(error).splitlines()[0][:200]}; mend it, or take another model") from None
    kept = {key: value for key, value in full.items() if key not in DROPPED}
    try:
        text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} cannot be written down ({error}); take the plain model") from None
    if len(text) > MAX_CONFIG_CHARS:
        raise DataError(
            f"{where} is too large: {len(text)} characters, and a run takes {MAX_CONFIG_CHARS}; take another model"
        )
    return text


def config_of(text: str) -> Any:
    """Return the configuration that a run spec names. Raises DataError if it is none that Transformers has here."""
    from transformers import CONFIG_MAPPING

    kept = json.loads(text)
    kind = kept.pop("model_type", None)
    if kind not in CONFIG_MAPPING or any(kept.get(key) for key in REFUSED):
        raise DataError(f"this run's model is of {kind!r}, which the Transformers here does not have; update it")
    _check_numbers(kept, "this run's model")
    config = CONFIG_MAPPING[kind](**kept, use_cache=False)
    has_capped_scores = getattr(config, "attn_logit_softcapping", None) is not None
    config._attn_implementation = "eager" if has_capped_scores else "sdpa"  # the other one cannot cap
    return config


def _check_numbers(fields: Mapping[str, Any], where: str) -> None:
    """Raise DataError for numbers by which modules and lists without end would be made."""
    for key, value in fields.items():
        most = MAX_MODULES if key.startswith("num_") or key in COUNTS else MAX_NUMBER
        if isinstance(value, int | float) and not -most <= value <= most:
            raise DataError(f"{where} has {key} {value:g}, and at most {most:g} is allowed; take another model")


def build(text: str) -> PreTrainedModel:
    """Return the model, float32 on torch's default device, its parameters unset, its buffers as they should be."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with no_init_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config_of(text), dtype=torch.float32)
    model.tie_weights()
    return model.eval()  # without dropout: it is for many passes over little text, and a run makes one over much


@lru_cache(maxsize=8)
def shapes(text: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Return names and shapes of the parameters in the order of `named_parameters()`; a tied weight stands once."""
    return tuple((name, tuple(parameter.shape)) for name, parameter in _empty(text).named_parameters())


@lru_cache(maxsize=8)
def matrices(text: str) -> dict[str, bool]:
    """Return the modules of the layers that multiply with a matrix, and whether it is stored as (in, out), as GPT-2's.

    These are what an adapter changes.
    """
    from transformers.pytorch_utils import Conv1D

    model = _empty(text)
    return {
        name: isinstance(module, Conv1D)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and any(f".{layers}." in f".{name}." for layers in LAYERS)
    }


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers of a model."""
    for name in LAYERS:
        if isinstance(found := getattr(model.base_model, name, None), nn.ModuleList):
            return found
    raise DataError(f"no list of layers is known of {type(model).__name__}; take another model")


def head_of(model: PreTrainedModel) -> Callable[[Tensor], Tensor] | None:
    """Return what makes the logits (N, V) of the last hidden state (N, H); None: only the model itself can."""
    if model.config.model_type not in PLAIN_HEADS:
        return None
    head: Callable[[Tensor], Tensor] = model.get_output_embeddings()
    cap = getattr(model.config, "final_logit_softcapping", None)
    if cap is None:
        return head
    return lambda hidden: cap * torch.tanh(head(hidden) / cap)


def read_weights(folder: Path, text: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters of the model in `folder`, float32, by name. Raises DataError: missing or misshapen ones.

    They are read by Transformers, which knows the older names of each family; nothing in a file is run.
    """
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config_of(text),
            dtype=torch.float32,
            trust_remote_code=False,
            local_files_only=True,
            weights_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # OSError, ValueError, RuntimeError, SafetensorError, pickle's own
        reason = str(error).splitlines()[0][:300]
        raise DataError(f"{folder}: the weights cannot be read: {reason}; take another copy of the model") from None
    wrong = {key: info.get(key) for key in ("missing_keys", "mismatched_keys") if info.get(key)}
    for what, names in wrong.items():
        raise DataError(
            f"{folder}: {len(names)} tensors are {what.split('_')[0]}, such as {min(map(str, names))}; "
            "take another copy of the model"
        )
    if spare := sorted(map(str, info.get("unexpected_keys") or ())):
        raise DataError(
            f"{folder}: {len(spare)} tensors belong to no model of this kind, such as {spare[0]}; "
            "take the model without what was added to it"
        )
    for name, parameter in model.named_parameters():
        yield name, parameter.detach()


def _empty(text: str) -> PreTrainedModel:
    try:
        with torch.device("meta"):
            return build(text)
    except DataError:  # it says by itself what is wrong
        raise
    except Exception as error:  # whatever a model's class says of numbers that do not fit together
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"no model can be made of this configuration ({reason}); take another") from None
