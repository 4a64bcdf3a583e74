"""Which mixture of experts of Transformers the MLPs of a family make, and whether a model's do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from configs.errors import DataError
from peer.train.family import config_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Family → the mixture that is the same model but for its MLPs. Both are of the same attention, norms and embeddings.
MIXTURES = {"llama": "mixtral", "mistral": "mixtral", "qwen3": "qwen3_moe"}
KEPT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "initializer_range"),
    # Transformers' defaults differ between the architectures: without these the logits are off.
    *("rms_norm_eps", "rope_parameters", "tie_word_embeddings", "pad_token_id", "attention_bias"),
)
MLP = {f"{part}_proj.weight" for part in ("gate", "up", "down")}


def mixture_config(config: PreTrainedConfig, experts: int, votes: int) -> PreTrainedConfig:
    """Return the configuration of the mixture whose experts are MLPs of models of `config`; `votes` answer a token.

    Raises DataError: there is none.
    """
    from transformers import CONFIG_MAPPING

    kind = MIXTURES.get(config.model_type)
    if kind is None:
        raise DataError(f"experts are made of Llama, Mistral and Qwen3, and this model is of {config.model_type}")
    own = {key: getattr(config, key) for key in KEPT if hasattr(config, key)}
    own |= {"sliding_window": _window(config), "num_local_experts": experts, "num_experts_per_tok": votes}
    if kind == "qwen3_moe":
        own["moe_intermediate_size"] = own["intermediate_size"]
        own["norm_topk_prob"] = True  # so that the weights of those that answer a token are one together
        own["use_sliding_window"] = own["sliding_window"] is not None
    return CONFIG_MAPPING[kind](**own)


def check_experts(folder: Path, text: str) -> None:
    """Raise DataError if the MLPs of the model in `folder`, of the configuration `text`, make no mixture with its rest.

    It says what to do.
    """
    try:
        _check(text)
    except DataError as error:
        raise DataError(f"{folder}: {error}; set run.strategy.kind to replicas, branches or adapters") from None


def _check(text: str) -> None:
    from transformers import AutoModelForCausalLM

    config = config_of(text)
    with torch.device("meta"):
        dense = AutoModelForCausalLM.from_config(config)
        mixture = AutoModelForCausalLM.from_config(mixture_config(config, 2, 1))
    own, theirs = _outside(dense), _outside(mixture)
    if odd := sorted(set(own.items()) ^ set(theirs.items())):
        raise DataError(f"no mixture of experts has this model's {odd[0][0]}")
    within = {name.split(".mlp.")[1] for name, _ in dense.named_parameters() if ".mlp." in name}
    if strange := sorted(MLP ^ within):
        raise DataError(f"no mixture of experts has this model's mlp.{strange[0]}")


def _outside(model: PreTrainedModel) -> dict[str, Any]:
    """Return the shapes of what is in no MLP, by name."""
    return {name: tuple(each.shape) for name, each in model.named_parameters() if ".mlp." not in name}


def _window(config: PreTrainedConfig) -> int | None:
    """Return how far back all layers look, None for everything. Raises DataError if some look further than others."""
    window: int | None = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if len(kinds) > 1:
        raise DataError("no mixture of experts has layers of which some look further back than others, as this model")
    return None if kinds == {"full_attention"} else window
