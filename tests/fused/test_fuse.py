"""Fused models load by plain Transformers and compute what their sub-models compute."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import fused_example
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.families import FAMILIES, SIZES
from benchmarks.fused_forms import forced
from configs.corpus import INPUT, TaskFormat
from configs.errors import DataError, UsageError
from configs.run import InnerSpec, ModelSpec, RoundSpec, RunSpec, StrategySpec
from peer.answers.chat import ChatTemplate, Turn
from peer.corpus.data import Source
from peer.corpus.examples import TaskEncoder
from peer.fused.card import Format
from peer.fused.fuse import fuse
from peer.fused.generate import Generation
from peer.fused.mixture import build_mixture
from peer.fused.parts import Parts, build_sub_model
from peer.fused.routed import RoutedModel
from peer.fused.sampling import Sampling
from peer.fused.tune import Tuning
from peer.train.family import canonical

MODEL = ModelSpec(
    vocab_size=300,
    hidden_size=32,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    mlp_size=48,
    context_length=32,
    rope_theta=5_000.0,
    rms_norm_eps=3e-5,
)
RECIPE = Path(__file__).parents[2] / "docs" / "operations.md"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tokenizer_json() -> bytes:
    return fused_example.tokenizer_json()


def parts_of(
    kind: str,
    tokenizer_json: bytes,
    blocks: tuple[str, ...],
    tie: bool = True,
    layers: int = 3,
    model: ModelSpec = MODEL,
) -> Parts:
    model = model.model_copy(update={"tie_embeddings": tie, "num_layers": layers})
    spec = RunSpec(
        name="test",
        total_tokens=1000,
        model=model,
        strategy=StrategySpec.model_validate({"kind": kind}),
        inner=InnerSpec(learning_rate=1e-3, batch_tokens=64),
        rounds=RoundSpec(tick_seconds=1.0, double_tokens=100),
        genesis=0.0,
        tokenizer_sha256="0" * 64,
        end_of_text=0,
    )
    random = np.random.default_rng(0)
    counts = {name: random.integers(0, 100, 300).astype(np.uint64) for name in ("python", "docs", "cpp")}
    parts = Parts(spec, {}, counts, tokenizer_json)
    generator = torch.Generator().manual_seed(0)
    states = {}
    for name in (*parts.strategy.sub_models, "model"):
        layout = parts.strategy.layout(name, model)
        for block in layout.blocks:
            if block in blocks and block not in states:
                states[block] = torch.empty(layout.block_size(block)).normal_(0.0, 0.1, generator=generator)
    return Parts(spec, states, counts, tokenizer_json)


EXPERTS = ("trunk", "expert.0", "expert.1", "expert.2")


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize(
    ("family", "mixture"), [(None, "mixtral"), ("llama", "mixtral"), ("mistral", "mixtral"), ("qwen3", "qwen3_moe")]
)
def test_forced_route_of_the_mixture_is_the_sub_model(
    tokenizer_json: bytes, family: str | None, mixture: str, tie: bool
) -> None:
    model = MODEL
    if family is not None:
        own = {**SIZES, **FAMILIES[family], "tie_word_embeddings": tie, "vocab_size": 300, "num_hidden_layers": 3}
        model = MODEL.model_copy(update={"config": canonical({**own, "model_type": family}, "config.json")})
    parts = parts_of("experts", tokenizer_json, EXPERTS, tie, model=model)
    models = {name: build_sub_model(parts, name) for name in parts.sub_models}
    mixtral = build_mixture(parts, models)
    assert mixtral.config.model_type == mixture
    tokens = torch.randint(0, 300, (2, 32), generator=torch.Generator().manual_seed(1))
    for index, model in enumerate(models.values()):
        with torch.no_grad(), forced(mixtral, index):
            difference = (mixtral(input_ids=tokens).logits - model(input_ids=tokens).logits).abs().max()
        assert difference < 1e-5


def test_mixtral_loads_by_plain_transformers_and_routes(tokenizer_json: bytes, tmp_path: Path) -> None:
    parts = parts_of("experts", tokenizer_json, EXPERTS)
    fuse(parts, tmp_path / "fused", "mixtral")
    built = build_mixture(parts, {name: build_sub_model(parts, name) for name in parts.sub_models})
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fused")
    assert type(loaded).__name__ == "MixtralForCausalLM"
    tokens = torch.arange(1, 31)[None]
    with torch.no_grad():
        output = loaded(input_ids=tokens, output_router_logits=True)
        assert torch.equal(output.logits, built(input_ids=tokens).logits)
    # Top-1 weighs its expert by exactly one, and the gates are not all zeros.
    assert all(logits.abs().max() > 0 for logits in output.router_logits)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_every_folder_is_a_model_that_its_neighbours_may_read(
    tokenizer_json: bytes, tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        fuse(parts_of("experts", tokenizer_json, EXPERTS), tmp_path / "fused")
    finally:
        os.umask(before)
    for path in (tmp_path / "fused").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path
    for name in EXPERTS[1:]:
        folder = tmp_path / "fused" / name
        assert AutoTokenizer.from_pretrained(folder)("fish").input_ids
        assert AutoModelForCausalLM.from_pretrained(folder).config.vocab_size == 300


def test_one_of_several_sub_models_is_a_llama_by_its_name(tokenizer_json: bytes, tmp_path: Path) -> None:
    parts = parts_of("experts", tokenizer_json, EXPERTS)
    with pytest.raises(UsageError, match=r"name it with --sub-model \(expert.0, expert.1, expert.2\)"):
        fuse(parts, tmp_path / "fused", "llama")
    with pytest.raises(UsageError, match=r"no sub-model 'expert.7'; name one of expert.0, expert.1, expert.2, model"):
        fuse(parts, tmp_path / "fused", "llama", "expert.7")
    fuse(parts, tmp_path / "fused", "llama", "expert.1")
    tokens = torch.arange(1, 31)[None]
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fused")(tokens).logits
        assert torch.equal(loaded, build_sub_model(parts, "expert.1")(tokens).logits)


def test_a_tune_teaches_the_mixtral_the_text_and_the_gates_its_domains(tokenizer_json: bytes, tmp_path: Path) -> None:
    parts = parts_of("experts", tokenizer_json, EXPERTS)
    inner = parts.spec.inner.model_copy(update={"learning_rate": 0.1})
    parts = replace(parts, spec=parts.spec.model_copy(update={"inner": inner}))
    sources = {}
    for index, domain in enumerate(parts.counts):
        tokens = np.arange(20_000) % (20 + index) + 100 * index
        (tmp_path / domain).write_bytes(tokens.astype("<u2").tobytes())
        sources[domain] = [Source(str(tmp_path / domain), 300)]
    tuning = Tuning(sources, tokens=128 * 60)
    models = {name: build_sub_model(parts, name) for name in parts.sub_models}
    untuned = build_mixture(parts, models, tuning)
    fuse(parts, tmp_path / "tuned", "mixtral", tuning=tuning)
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned")
    text = torch.arange(30)[None] % 20
    with torch.no_grad():
        before, after = (float(model(input_ids=text, labels=text).loss) for model in (untuned, tuned))
    assert after < before - 0.5
    with torch.no_grad():
        chosen = tuned(input_ids=text, output_router_logits=True).router_logits[-1].argmax(dim=-1)
    assert (chosen == 0).float().mean() > 0.8  # the first expert's domain
    with pytest.raises(DataError, match="no domain 'docs'"):
        build_mixture(parts, models, Tuning({"python": sources["python"]}, 640))
    with pytest.raises(UsageError, match="only a Mixtral is tuned"):
        fuse(parts, tmp_path / "routed", "routed", tuning=tuning)
    with pytest.raises(UsageError, match="shorter than one step"):
        fuse(parts, tmp_path / "short", "mixtral", tuning=Tuning(sources, 127))


@pytest.mark.parametrize("format", ["routed", "mixtral", "llama"])
def test_tokenizer_loads_by_plain_transformers(tokenizer_json: bytes, tmp_path: Path, format: str) -> None:
    parts = parts_of("experts", tokenizer_json, EXPERTS)
    fuse(parts, tmp_path / "fused", format, "expert.1" if format == "llama" else None)  # type: ignore[arg-type]
    loaded = AutoTokenizer.from_pretrained(tmp_path / "fused")
    ours = Tokenizer.from_str(tokenizer_json.decode())
    text = "  Fish — 'swim'\n\ttogether, 12 naïve größer."
    assert loaded(text)["input_ids"] == ours.encode(text).ids
    assert loaded.decode(ours.encode(text).ids) == text
    assert loaded.eos_token_id == 0


def test_a_model_of_chats_reads_turns_served_as_it_did_in_training(tokenizer_json: bytes, tmp_path: Path) -> None:
    form = TaskFormat(prompt=INPUT, window=64, chat="plain")
    fuse(replace(parts_of("replicas", tokenizer_json, ("model",)), task=form), tmp_path / "fused", "llama")
    model = RoutedModel.load(tmp_path / "fused")
    assert model.task == form and model.tokenizer is not None
    served = ChatTemplate.read(tmp_path / "fused", model.tokenizer)
    assert served is not None
    asked = TaskEncoder(form, model.tokenizer, model.end_of_text).question("is a cod a fish?", 64)
    assert served.tokens([Turn(role="user", content="is a cod a fish?")]) == asked


def test_llama_of_replicas_is_the_model(tokenizer_json: bytes, tmp_path: Path) -> None:
    parts = parts_of("replicas", tokenizer_json, ("model",))
    fuse(parts, tmp_path / "fused", "llama")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fused")
    tokens = torch.arange(1, 31)[None]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=tokens).logits, build_sub_model(parts, "model")(input_ids=tokens).logits)
    assert loaded.config.use_cache


@pytest.mark.parametrize(("form", "kind"), [("llama", "replicas"), ("mixtral", "experts")])
def test_onnx_runtime_computes_the_same(
    tokenizer_json: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Format, kind: str
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx (onnxruntime and onnxscript)")
    pytest.importorskip("onnxscript", reason="needs the extra onnx (onnxruntime and onnxscript)")
    recipe = RECIPE.read_text(encoding="utf-8").split("## The model in other runtimes")[1]
    export, ask = re.findall(r"^```python\n(.*?)^```", recipe, re.DOTALL | re.MULTILINE)[:2]
    parts = parts_of(kind, tokenizer_json, ("model", *EXPERTS), layers=1)  # the export takes 1.5 s a layer
    fuse(parts, tmp_path / "model", form)
    monkeypatch.chdir(tmp_path)
    exec(export)
    found: dict[str, list[int]] = {}
    exec(ask, found)

    loaded = AutoModelForCausalLM.from_pretrained("model")
    session = onnxruntime.InferenceSession("model.onnx")
    for shape in ((1, 1), (3, 32)):
        tokens = torch.randint(0, 300, shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = loaded(input_ids=tokens).logits.numpy()
        assert np.abs(session.run(["logits"], {"input_ids": tokens.numpy()})[0] - expected).max() < 1e-6
    tokens = torch.tensor([found["tokens"]])
    with torch.no_grad():
        likeliest = loaded(input_ids=tokens).logits.argmax(dim=-1)
    assert torch.equal(likeliest[0, -33:-1], tokens[0, -32:])


def test_routed_form_holds_the_sub_models(tokenizer_json: bytes, tmp_path: Path) -> None:
    parts = parts_of("branches", tokenizer_json, ("branch.0", "branch.1", "branch.2"))
    fuse(parts, tmp_path / "fused")
    model = RoutedModel.load(tmp_path / "fused")
    assert [(info.name, info.domain) for info in model.sub_models] == [
        ("branch.0", "python"),
        ("branch.1", "docs"),
        ("branch.2", "cpp"),
    ]
    for name, loaded in zip(parts.sub_models, model.models, strict=True):
        ours = dict(build_sub_model(parts, name).named_parameters())
        assert all(torch.equal(ours[key], value) for key, value in loaded.named_parameters())
    assert np.array_equal(model.router.counts, np.stack(list(parts.counts.values())))


def test_before_parting_there_is_one_sub_model(tokenizer_json: bytes, tmp_path: Path) -> None:
    parts = parts_of("experts", tokenizer_json, ("model",))
    fuse(parts, tmp_path / "fused")
    model = RoutedModel.load(tmp_path / "fused")
    assert [(info.name, info.domain) for info in model.sub_models] == [("model", "all")]
    assert np.array_equal(model.router.counts[0], sum(parts.counts.values()))
    with pytest.raises(UsageError, match="experts that have parted"):
        fuse(parts, tmp_path / "mixtral", "mixtral")


def test_a_block_that_nobody_has_is_derived_or_named(tokenizer_json: bytes, tmp_path: Path) -> None:
    derived = parts_of("experts", tokenizer_json, ("model", "trunk", "expert.0", "expert.1"))
    expert = dict(build_sub_model(derived, "expert.2").named_parameters())
    common = dict(build_sub_model(derived, "model").named_parameters())
    key = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(expert[key], common[key])
    with pytest.raises(DataError, match=r"block 'expert\.2' is missing"):
        fuse(parts_of("experts", tokenizer_json, EXPERTS[:3]), tmp_path / "fused")
    assert list(tmp_path.iterdir()) == []


def test_refuses_a_taken_directory_and_a_block_of_another_run(tokenizer_json: bytes, tmp_path: Path) -> None:
    parts = parts_of("replicas", tokenizer_json, ("model",))
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        fuse(parts, tmp_path)
    other = Parts(parts.spec, {"model": torch.zeros(7)}, parts.counts, tokenizer_json)
    with pytest.raises(DataError, match="another run"):
        fuse(other, tmp_path / "fused")


def test_generation_streams_is_seeded_and_explains_itself(tokenizer_json: bytes, tmp_path: Path) -> None:
    fuse(parts_of("experts", tokenizer_json, EXPERTS), tmp_path / "fused")
    model = RoutedModel.load(tmp_path / "fused")
    sampling = Sampling(max_tokens=50, seed=3)  # runs over the context of 32
    generation = Generation(model, "A shoal of fish", sampling)
    pieces = list(generation)
    assert len(pieces) > 1
    assert "".join(pieces) == "".join(Generation(model, "A shoal of fish", sampling))
    assert "".join(pieces) != "".join(Generation(model, "A shoal of fish", Sampling(max_tokens=50, seed=4)))
    segments = generation.segments()
    assert "".join(part.text for part in segments if part.is_prompt) == "A shoal of fish"
    assert all(1 / 3 <= part.weight <= 1 and part.domain in ("python", "docs", "cpp") for part in segments)
    greedy = Sampling(max_tokens=5, temperature=0)
    assert "".join(Generation(model, fused_example.TEXT, greedy)) == "".join(
        Generation(model, fused_example.TEXT, greedy)
    )


@pytest.mark.parametrize("no_repeat_ngram", [0, 3])
def test_greedy_generation_of_one_sub_model_is_that_of_transformers(
    tokenizer_json: bytes, tmp_path: Path, no_repeat_ngram: int
) -> None:
    """Temperature 0 is the likeliest token, always; a text without circles is what one has to ask for."""
    fuse(parts_of("replicas", tokenizer_json, ("model",)), tmp_path / "fused", "llama")
    sampling = Sampling(max_tokens=20, temperature=0, no_repeat_ngram=no_repeat_ngram)
    generation = Generation(RoutedModel.load(tmp_path / "fused"), "fish", sampling)
    list(generation)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "fused")
    count = len(Tokenizer.from_str(tokenizer_json.decode()).encode("fish").ids)
    inputs = torch.tensor([[0, *generation.tokens[:count]]])
    theirs = loaded.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=20,
        do_sample=False,
        no_repeat_ngram_size=no_repeat_ngram,  # theirs counts those of the prompt too, which is too short to have any
    )
    assert generation.tokens == theirs[0, 1:].tolist()


def test_bad_prompts_and_directories_are_one_clear_line(tokenizer_json: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fused"
    fuse(parts_of("experts", tokenizer_json, EXPERTS), path)
    with pytest.raises(DataError, match="prompt is empty"):
        Generation(RoutedModel.load(path), "")
    with pytest.raises(DataError, match="no model directory"):
        RoutedModel.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no config\.json"):
        RoutedModel.load(tmp_path / "empty")

    manifest = json.loads((path / "shoal.json").read_text())
    damages = {
        "shoal.json": b"{",
        "counts.safetensors": b"\x00" * 100,
        "tokenizer.json": b"[]",
        "expert.1/model.safetensors": (path / "expert.1/model.safetensors").read_bytes()[:1000],
        "expert.1/config.json": b'{"model_type": "nonsense"}',
    }
    escape = manifest | {"sub_models": [{"name": "../fused", "domain": "all"}]}
    for name, damaged in (*damages.items(), ("shoal.json", json.dumps(escape).encode())):
        sound = (path / name).read_bytes()
        (path / name).write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            RoutedModel.load(path)
        assert "\n" not in str(caught.value)
        (path / name).write_bytes(sound)
    RoutedModel.load(path)
