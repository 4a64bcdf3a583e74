"""A run begins with exactly the model that it is given, or says in one line why it cannot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from configs.content import content_id_of
from configs.errors import DataError
from configs.run import ModelSpec
from peer.train.partition import parameter_shapes
from peer.train.pretrained import parameters_id, read_parameters, read_pretrained, write_parameters

SPEC = ModelSpec(
    vocab_size=300,
    hidden_size=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    mlp_size=24,
    context_length=16,
    rope_theta=5_000.0,
    rms_norm_eps=3e-5,
    tie_embeddings=False,
)


PLAN = SPEC.model_copy(update={"num_layers": 5, "hidden_size": 64})  # of it only the context counts


def save_llama(folder: Path, *, dtype: torch.dtype = torch.float32, shards: str = "5GB", **changes: Any) -> Any:
    """Write a small random Llama as Transformers does, and return it."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        rms_norm_eps=3e-5,
        initializer_range=0.2,
        **{"rope_parameters": {"rope_type": "default", "rope_theta": 5_000.0}, **changes},
    )
    model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, max_shard_size=shards)
    return model


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    save_llama(tmp_path / "llama")
    return tmp_path / "llama"


def rewrite(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON or a safetensors file."""
    if file.suffix == ".json":
        config = json.loads(file.read_text())
        change(config)
        file.write_text(json.dumps(config))
    else:
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("shards", ["5GB", "10KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sizes_and_values_are_those_of_transformers(
    tmp_path: Path, is_tied: bool, shards: str, dtype: torch.dtype
) -> None:
    model = save_llama(tmp_path, dtype=dtype, shards=shards, tie_word_embeddings=is_tied)
    assert (tmp_path / "model.safetensors").exists() is (shards == "5GB")
    spec = read_pretrained(tmp_path, PLAN)[0]
    assert spec == SPEC.model_copy(update={"tie_embeddings": is_tied})
    parameters = list(read_parameters(tmp_path, spec))
    theirs = dict(model.named_parameters())
    assert [name for name, _ in parameter_shapes(spec)] == list(theirs)
    for mine, their in zip(parameters, theirs.values(), strict=True):
        assert mine.dtype == torch.float32 and torch.equal(mine, their.float())
    flat = torch.cat([parameter.reshape(-1) for parameter in parameters])
    assert parameters_id(parameters) == content_id_of(flat.numpy().tobytes())


def test_an_old_config_says_the_same(llama: Path) -> None:
    def as_of_old(config: dict[str, Any]) -> None:
        del config["rope_parameters"], config["head_dim"]
        config.update(rope_theta=5_000.0, rope_scaling=None, pretraining_tp=1, torch_dtype="float32")

    rewrite(llama / "config.json", as_of_old)
    assert read_pretrained(llama, PLAN)[0] == SPEC
    rewrite(
        llama / "model.safetensors",
        lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": t["model.norm.weight"].clone()}),
    )
    assert len(list(read_parameters(llama, SPEC))) == len(parameter_shapes(SPEC))


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5_000.0}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "mistral"}, "is of LlamaForCausalLM, and a run can begin only with a MistralForCausalLM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"rope_scaling": "x"}, "must be tables"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"max_position_embeddings": 8}, "at most 8 tokens, and run.model.context_length is 16"),
        ({"num_attention_heads": 3}, ""),
        ({"hidden_size": "wide"}, ""),
    ],
)
def test_what_no_run_can_be_is_one_line(llama: Path, change: dict[str, Any], says: str) -> None:
    rewrite(llama / "config.json", lambda config: config.update(change))
    with pytest.raises(DataError) as caught:
        read_pretrained(llama, PLAN)[0]
    line = str(caught.value)
    assert says in line and str(llama) in line and "\n" not in line


@pytest.mark.parametrize(
    "change",
    [
        {"rope_parameters": YARN},
        {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_act": "gelu"},
        {"head_dim": 8},
    ],
)
def test_a_llama_that_sizes_do_not_describe_brings_its_configuration(llama: Path, change: dict[str, Any]) -> None:
    rewrite(llama / "config.json", lambda config: config.update(change))
    spec = read_pretrained(llama, PLAN)[0]
    assert spec.config is not None and spec != SPEC


HEAD = "lm_head.weight"
NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda tensors: tensors.pop(NORM), f"1 tensors are missing, such as {NORM}"),
        (lambda tensors: tensors.pop(HEAD), "config.json says that it is not tied"),
        (lambda tensors: tensors.update({"model.layers.0.mlp.up_proj.bias": torch.ones(3)}), "up_proj.bias"),
        (lambda tensors: tensors.update({NORM: torch.ones(17)}), "has the shape (17,)"),
        (lambda tensors: tensors.update({NORM: torch.ones(16, dtype=torch.int8)}), "is torch.int8"),
        (lambda tensors: tensors.update({NORM: torch.full((16,), torch.nan)}), "not finite"),
    ],
)
def test_other_weights_are_one_line(llama: Path, change: Callable[[dict[str, Any]], object], says: str) -> None:
    rewrite(llama / "model.safetensors", change)
    with pytest.raises(DataError) as caught:
        list(read_parameters(llama, SPEC))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_head_that_is_tied_only_in_words(llama: Path) -> None:
    tied = SPEC.model_copy(update={"tie_embeddings": True})
    with pytest.raises(DataError, match="values differ"):
        list(read_parameters(llama, tied))
    rewrite(llama / "model.safetensors", lambda t: t.update({HEAD: t["model.embed_tokens.weight"].clone()}))
    assert len(list(read_parameters(llama, tied))) == len(parameter_shapes(tied))


def test_damaged_directories_are_one_line(llama: Path) -> None:
    with pytest.raises(DataError, match=r"name the directory of a Hugging Face model"):
        read_pretrained(llama / "nowhere", PLAN)[0]
    sound = (llama / "model.safetensors").read_bytes()
    (llama / "model.safetensors").write_bytes(sound[:200])
    with pytest.raises(DataError, match=r"model\.safetensors cannot be read"):
        list(read_parameters(llama, SPEC))
    (llama / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"has no model\.safetensors"):
        list(read_parameters(llama, SPEC))
    (llama / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3}}')
    with pytest.raises(DataError, match="which file each tensor is in"):
        list(read_parameters(llama, SPEC))
    (llama / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part.safetensors"}}')
    with pytest.raises(DataError, match=r"part\.safetensors cannot be read"):
        list(read_parameters(llama, SPEC))
    (llama / "config.json").write_text("{")
    with pytest.raises(DataError, match="is damaged"):
        read_pretrained(llama, PLAN)[0]


def test_a_blob_of_it_appears_whole_or_not_at_all(llama: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    name = write_parameters(llama, SPEC, blobs)
    assert [path.name for path in blobs.iterdir()] == [name] == [content_id_of((blobs / name).read_bytes())]
    assert name == parameters_id(read_parameters(llama, SPEC))
    rewrite(llama / "model.safetensors", lambda tensors: tensors.update({NORM: torch.full((16,), torch.inf)}))
    with pytest.raises(DataError, match="not finite"):
        write_parameters(llama, SPEC, blobs)
    assert [path.name for path in blobs.iterdir()] == [name]
