"""What is written as GGUF is read by llama.cpp, which then finds the same tokens likely as Transformers does."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fused_example
import pytest
import torch
from test_fuse import EXPERTS, parts_of
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks.families import FAMILIES, write_model
from configs.errors import DataError, UsageError
from peer.fused.fuse import fuse
from peer.fused.parts import build_sub_model

pytest.importorskip("gguf", reason="needs the extra gguf")
xllamacpp = pytest.importorskip("xllamacpp", reason="needs llama.cpp (xllamacpp)")

from peer.fused.gguf_file import ARCHITECTURES, write_gguf  # noqa: E402
from peer.fused.gguf_vocabulary import CUTS, pre_tokenizer  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 3, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": {"num_local_experts": 3, "num_experts_per_tok": 2, "head_dim": 16, "moe_intermediate_size": 48}
    | {"norm_topk_prob": True},
}
PROMPTS = (
    "A shoal of fish",
    "swims together, and nobody is in charge.",
    "12 naïve fish — 3456 größer",
    "  two spaces,\n\tand a tab\n\n",
    "don't it's WE'LL",
    "x",
    "日本語 текст",
    "fish(fish)==[1,2,3];",
    "A",
    "nobody 🐟 together",
)


@pytest.fixture(scope="module")
def tokenizer_json() -> bytes:
    return fused_example.tokenizer_json()


def words(folder: Path, raw: bytes, **said: Any) -> Path:
    """Write a tokenizer, and what tokens mean, into the folder of a model."""
    (folder / "tokenizer.json").write_bytes(raw)
    (folder / "tokenizer_config.json").write_text("{}")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "bos_token_id": None, "eos_token_id": 0, **said}))
    return folder


class Runtime:
    """llama.cpp with one model."""

    def __init__(self, path: Path, tokenizer_json: bytes) -> None:
        self._letter = Tokenizer.from_buffer(tokenizer_json).token_to_id("A")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.warmup, params.cpuparams.n_threads = 64, 1, False, 1
        params.verbosity = -1
        self._server = xllamacpp.Server(params)

    def likeliest(self, prompt: str | Sequence[int]) -> tuple[dict[int, float], int]:
        """Return the logarithms of the likeliest next tokens, and how many tokens the prompt has."""
        # Nothing is told of a part of a character, or of an end: so "A" is what it always takes.
        asked = {"prompt": prompt, "n_predict": 1, "n_probs": 5, "logit_bias": [[self._letter, 1000.0]]}
        found = self._server.handle_completions(asked)
        listed = found["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        return {each["id"]: each["logprob"] for each in listed}, found["usage"]["prompt_tokens"]


def expected(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=torch.tensor([list(tokens)])).logits[0, -1]
    return logits.log_softmax(dim=-1)


@pytest.fixture(params=sorted(ARCHITECTURES))
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for kind, own in MIXTURES.items():
        monkeypatch.setitem(FAMILIES, kind, own)
    yield str(request.param)


def test_llama_cpp_finds_the_same_tokens_likely(family: str, tokenizer_json: bytes, tmp_path: Path) -> None:
    folder = words(write_model(tmp_path / "model", family), tokenizer_json)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    write_gguf(model, folder, tmp_path / "model.gguf", "fish", "float32")
    runtime = Runtime(tmp_path / "model.gguf", tokenizer_json)
    longest = 8 if family == "mistral" else 24  # of the one the window is the context
    for seed in range(3):
        tokens = torch.randint(1, 300, (longest - 1,), generator=torch.Generator().manual_seed(seed)).tolist()
        found, _ = runtime.likeliest(tokens)
        theirs = expected(model, tokens)
        for token, value in found.items():
            assert value == pytest.approx(float(theirs[token]), abs=5e-3), (family, token)


SENTENCEPIECE = {
    "normalizer": normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    "decoder": decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
}


def trained(cut: str) -> tuple[bytes, int | None]:
    """Return a tokenizer that cuts texts in one of the known ways, and the token that it puts before them."""
    text = [fused_example.TEXT + "It's 12345 fish, isn't it? größer naïve " * 10]
    if cut == "sentencepiece":
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer, tokenizer.decoder = SENTENCEPIECE["normalizer"], SENTENCEPIECE["decoder"]
        special = ["<|endoftext|>", "<unk>", "<s>"]
        trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=[*special, *bytes_], show_progress=False)
        tokenizer.train_from_iterator(text, trainer)
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
        raw = json.loads(tokenizer.to_str())
        raw["added_tokens"] = [each for each in raw["added_tokens"] if each["content"] not in bytes_]
        return json.dumps(raw).encode(), 2
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in ("gpt-2", "smollm"))
    tokenizer = Tokenizer(models.BPE())
    if cut == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), plain])
    elif cut == "gpt-2":
        tokenizer.pre_tokenizer = plain
    else:
        from tokenizers import Regex

        regex = next(regex for (regex, _), name in CUTS.items() if name == cut)
        split = pre_tokenizers.Split(Regex(regex), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    raw = json.loads(tokenizer.to_str())
    raw["model"]["ignore_merges"] = cut == "llama-bpe"
    return json.dumps(raw).encode(), None


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", *CUTS.values(), "sentencepiece"])
def test_llama_cpp_reads_texts_as_the_tokenizer_does(cut: str, tmp_path: Path) -> None:
    raw, begin = trained(cut)
    if begin is None:
        assert pre_tokenizer(json.loads(raw)) == cut
    folder = words(write_model(tmp_path / "model", "qwen2"), raw, bos_token_id=begin)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    write_gguf(model, folder, tmp_path / "model.gguf", "fish", "float32")
    runtime = Runtime(tmp_path / "model.gguf", raw)
    tokenizer = Tokenizer.from_buffer(raw)
    for prompt in PROMPTS:
        tokens = tokenizer.encode(prompt).ids
        found, count = runtime.likeliest(prompt)
        assert (count, next(iter(found))) == (len(tokens), int(expected(model, tokens).argmax())), prompt


@pytest.mark.parametrize(("kind", "blocks"), [("replicas", ("model",)), ("experts", EXPERTS)])
def test_what_is_fused_is_one_file_with_its_card(
    kind: str, blocks: tuple[str, ...], tokenizer_json: bytes, tmp_path: Path
) -> None:
    parts = parts_of(kind, tokenizer_json, blocks)
    fuse(parts, tmp_path / "fused", "gguf")
    assert sorted(path.name for path in (tmp_path / "fused").iterdir()) == ["README.md", "model.gguf"]
    tokens = [5, 40, 77, 100]
    found, _ = Runtime(tmp_path / "fused" / "model.gguf", tokenizer_json).likeliest(tokens)
    if kind == "replicas":
        theirs = expected(build_sub_model(parts, "model"), tokens)
        assert max(abs(value - float(theirs[token])) for token, value in found.items()) < 1e-3


def test_the_files_that_llama_cpp_cannot_have_are_one_line(tokenizer_json: bytes, tmp_path: Path) -> None:
    parts = parts_of("branches", tokenizer_json, ("branch.0", "branch.1", "branch.2"))
    with pytest.raises(UsageError, match=r"a GGUF file holds one sub-model: name it with --sub-model \(branch.0"):
        fuse(parts, tmp_path / "fused", "gguf")
    fuse(parts, tmp_path / "fused", "gguf", "branch.1")

    folder = words(write_model(tmp_path / "model", "qwen2"), tokenizer_json)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    raw = json.loads(tokenizer_json)
    for change, says in (
        ({"pre_tokenizer": {"type": "Whitespace"}}, "no pre-tokenizer that cuts texts"),
        ({"normalizer": {"type": "Lowercase"}}, "no pre-tokenizer that cuts texts"),
        ({"model": {**raw["model"], "type": "Unigram"}}, "of kind BPE only"),
        ({"model": {**raw["model"], "merges": []}}, "without merges"),
    ):
        words(folder, json.dumps({**raw, **change}).encode())
        with pytest.raises(DataError, match=says):
            write_gguf(model, folder, tmp_path / "no.gguf", "fish", "float32")
    words(folder, tokenizer_json)
    model.config.rope_parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    with pytest.raises(DataError, match="positions that are scaled as yarn"):
        write_gguf(model, folder, tmp_path / "no.gguf", "fish", "float32")
    model.config.model_type = "opt"
    with pytest.raises(DataError, match="no GGUF is written of opt, only of llama, mistral"):
        write_gguf(model, folder, tmp_path / "no.gguf", "fish", "float32")


def test_without_the_package_the_message_says_what_to_install(
    tokenizer_json: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peer.fused.fuse.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install gguf"):
        fuse(parts_of("replicas", tokenizer_json, ("model",)), tmp_path / "fused", "gguf")
    assert not (tmp_path / "fused").exists()


def test_a_dtype_a_template_and_a_begin_are_kept(tokenizer_json: bytes, tmp_path: Path) -> None:
    from gguf import GGUFReader

    folder = words(write_model(tmp_path / "model", "llama"), tokenizer_json, bos_token_id=5, eos_token_id=[7, 9])
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    write_gguf(model, folder, tmp_path / "model.gguf", "not-a-phi3", "bfloat16")  # a name that would mislead it
    reader = GGUFReader(tmp_path / "model.gguf")
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["tokenizer.chat_template"] == "{{ messages[0].content }}"
    meant = {key: said.get(f"tokenizer.ggml.{key}_token_id") for key in ("bos", "eos", "eot")}
    assert meant == {"bos": 5, "eos": 7, "eot": 9} and said["tokenizer.ggml.add_bos_token"] is False
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == "BF16" and kinds["blk.0.attn_norm.weight"] == "F32"
    assert PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))("fish").input_ids
    tokens = [5, 40, 77, 100]
    found, _ = Runtime(tmp_path / "model.gguf", tokenizer_json).likeliest(tokens)
    theirs = expected(model.to(torch.bfloat16).float(), tokens)
    assert max(abs(value - float(theirs[token])) for token, value in found.items()) < 1e-2
