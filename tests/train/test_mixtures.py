"""Which models' MLPs become experts of a mixture that Transformers has, and which are refused when a run is founded."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from benchmarks.families import FAMILIES, SIZES
from configs.errors import DataError
from peer.train import family
from peer.train.mixtures import check_experts, mixture_config


def text_of(kind: str, **changes: Any) -> str:
    config = {**SIZES, "model_type": kind, **FAMILIES[kind], **changes}
    return family.canonical(config, "config.json")


@pytest.mark.parametrize(("kind", "mixture"), [("llama", "mixtral"), ("mistral", "mixtral"), ("qwen3", "qwen3_moe")])
def test_a_family_has_a_mixture_with_its_sizes(tmp_path: Path, kind: str, mixture: str) -> None:
    check_experts(tmp_path, text_of(kind))
    found = mixture_config(family.config_of(text_of(kind)), experts=3, votes=2)
    assert (found.model_type, found.num_local_experts, found.num_experts_per_tok) == (mixture, 3, 2)


@pytest.mark.parametrize("kind", sorted(FAMILIES.keys() - {"llama", "mistral", "qwen3"}))
def test_any_other_is_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError) as caught:
        check_experts(tmp_path, text_of(kind))
    line = str(caught.value)
    assert kind in line and str(tmp_path) in line and "set run.strategy.kind to replicas, branches" in line


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("llama", {"attention_bias": True}, "self_attn.k_proj.bias"),
        ("llama", {"mlp_bias": True}, "mlp.down_proj.bias"),
        ("qwen3", {"attention_bias": True}, None),  # its mixture has them, too
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "look further back"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, None),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}, None),
    ],
)
def test_what_the_mixture_has_not_is_named(
    tmp_path: Path, kind: str, changes: dict[str, Any], says: str | None
) -> None:
    with nullcontext() if says is None else pytest.raises(DataError, match=says):
        check_experts(tmp_path, text_of(kind, **changes))


def test_a_window_of_every_layer_is_the_mixture_s() -> None:
    assert mixture_config(family.config_of(text_of("mistral")), 2, 1).sliding_window == 8
    for since, window in ((0, 8), (2, None)):
        changes = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": since}
        own = json.loads(text_of("qwen3", **changes))
        assert mixture_config(CONFIG_MAPPING["qwen3"](**own), 2, 1).sliding_window == window
