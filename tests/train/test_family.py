"""The families that people have: what a run makes of each is what Transformers makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from benchmarks.families import FAMILIES, SIZES, write_model
from configs.errors import DataError
from configs.run import AdapterSpec, ModelSpec
from peer.train import family
from peer.train.model import TokenLoss, build_model
from peer.train.partition import COMMON, Strategy, adapted_modules, parameter_shapes
from peer.train.pretrained import read_parameters, read_pretrained
from peer.train.sharded import Rows, build_sharded

PLAN = ModelSpec(
    vocab_size=320, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, mlp_size=48, context_length=24
)


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny model of each family with random weights, as Transformers saves it."""
    return write_model(tmp_path / request.param, request.param)


def flat(folder: Path, spec: ModelSpec) -> torch.Tensor:
    return torch.cat([parameter.reshape(-1) for parameter in read_parameters(folder, spec)])


def test_its_loss_is_that_of_transformers(folder: Path) -> None:
    spec = read_pretrained(folder, PLAN)[0]
    assert spec.config is not None and spec.context_length == 24
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    layout = Strategy("replicas", 1).layout(COMMON, spec)
    module = build_sharded(spec, torch.device("cpu"), None)
    Rows(module, layout).copy_in(flat(folder, spec), [COMMON])
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.randint(0, 320, (2, 25), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = theirs(input_ids=tokens[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
        assert float(module(tokens)) == pytest.approx(float(expected), rel=1e-5)
    assert layout.size == sum(parameter.numel() for parameter in theirs.parameters())


def test_an_adapter_begins_as_the_model_and_is_merged_into_it(folder: Path) -> None:
    from peer.train.adapters import BASE, base_layout, first_factors, merge

    spec = read_pretrained(folder, PLAN.model_copy(update={"adapter": AdapterSpec(rank=4)}))[0]
    base = flat(folder, spec.model_copy(update={"adapter": None}))
    module = build_sharded(spec, torch.device("cpu"), None)
    Rows(module, base_layout(spec)).copy_in(base, [BASE])
    layout = Strategy("adapters", 1).layout(COMMON, spec)
    factors = torch.cat([each.reshape(-1) for each in first_factors(spec, 0).values()])
    Rows(module, layout).copy_in(factors, [COMMON])
    tokens = torch.randint(0, 320, (2, 25), generator=torch.Generator().manual_seed(2))
    plain = TokenLoss(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)).eval()
    with torch.no_grad():
        assert float(module(tokens)) == pytest.approx(float(plain(tokens)), rel=1e-5)
        learnt = factors + 0.1 * torch.randn(factors.shape, generator=torch.Generator().manual_seed(3))
        Rows(module, layout).copy_in(learnt, [COMMON])
        merged = merge(spec, base, layout.tensors(learnt))
        for name, parameter in plain.model.named_parameters():
            parameter.copy_(merged[name])
        assert float(module(tokens)) == pytest.approx(float(plain(tokens)), rel=1e-4)
    assert {name for name, _ in adapted_modules(spec)} == set(family.matrices(str(spec.config)))


def test_a_step_moves_every_parameter(folder: Path) -> None:
    spec = read_pretrained(folder, PLAN)[0]
    module = build_sharded(spec, torch.device("cpu"), None)
    Rows(module, Strategy("replicas", 1).layout(COMMON, spec)).copy_in(flat(folder, spec), [COMMON])
    tokens = torch.randint(0, 320, (2, 25), generator=torch.Generator().manual_seed(2))
    module(tokens).backward()
    still = [name for name, parameter in module.model.named_parameters() if parameter.grad is None]
    assert not still


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "vit"}, "any causal LM"),
        ({"model_type": "no such"}, "any causal LM"),
        ({"model_type": 7}, "any causal LM"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "Qwen2ForSequenceClassification"),
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, "auto_map asks for other code"),
        ({"quantization_config": {"bits": 4}}, "quantization_config asks for other code"),
        ({"max_position_embeddings": 8}, "at most 8 tokens"),
        ({"num_attention_heads": 0}, ""),
        ({"hidden_size": "wide"}, ""),
        ({"num_hidden_layers": 2**31}, "num_hidden_layers 2.14748e+09, and at most 1024 is allowed"),
        ({"vocab_size": 2**48}, "at most 1e+09 is allowed"),
        ({"note": "x" * 20_000}, "too large"),
    ],
)
def test_what_no_run_can_be_is_one_line(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    config = {**SIZES, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError) as caught:
        read_pretrained(tmp_path, PLAN)[0]
    line = str(caught.value)
    assert says in line and str(tmp_path) in line and "\n" not in line


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"model_type": 3}', "[" * 10_000, '{"model_type": "a", "b": [[[[[[[1]]]]]]]}']
)
def test_a_stranger_s_configuration_is_bounded_before_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match=r"a model.s configuration must be"):
        ModelSpec.model_validate({**PLAN.model_dump(), "config": text})


@pytest.mark.parametrize("text", ['{"model_type":"no such"}', '{"model_type":"qwen2","auto_map":{"a":"b"}}'])
def test_a_stranger_s_model_that_cannot_be_built_is_one_line(text: str) -> None:
    with pytest.raises(DataError, match="update it"):
        family.config_of(text)


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "hidden_size"])
def test_a_stranger_s_model_that_is_endless_is_not_built(tmp_path: Path, key: str) -> None:
    text = json.dumps({**SIZES, "model_type": "qwen2", key: 10**10})
    with pytest.raises(DataError, match=f"{key}.* is allowed"):
        family.config_of(text)


def test_numbers_that_do_not_fit_together_are_one_line() -> None:
    text = json.dumps({"model_type": "gpt2", "vocab_size": 320, "n_embd": 32, "n_head": 5, "n_layer": 1})
    with pytest.raises(DataError, match="no model can be made of this configuration") as caught:
        family.shapes(text)
    assert "\n" not in str(caught.value)


def test_a_plain_llama_needs_no_configuration(tmp_path: Path) -> None:
    config = CONFIG_MAPPING["llama"](**SIZES)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    spec = read_pretrained(tmp_path, PLAN)[0]
    assert spec.config is None and len(parameter_shapes(spec)) == len(dict(build_model(spec).named_parameters()))
