"""What a pretrained model says of itself is found again in what is fused; its copy spares a download."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from configs.content import content_id_of
from configs.errors import DataError
from peer.block.store import BlockStore, initial_state
from peer.commands.main import main
from peer.corpus.data import BLOBS
from peer.fused.fuse import fuse
from peer.fused.parts import Parts
from peer.fused.routed import RoutedModel
from peer.member.entry import Entry
from peer.train.origin import FILES, MAX_FILE_BYTES, read_files, read_origin
from peer.train.partition import Strategy
from peer.train.pretrained import copy_base
from peer.visit.gather import Sources, gather

VOCABULARY = 320
TEMPLATE = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}</s>{% endfor %}"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory, letters: Any) -> Path:
    """A small random Llama in bfloat16, with all that a model for chats has beside its weights."""
    folder = tmp_path_factory.mktemp("pretrained") / "Tiny-Instruct"
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=5, eos_token_id=0, pad_token_id=7,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    letters.save(str(folder / "tokenizer.json"))
    end = {
        "content": "</s>",
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "__type": "AddedToken",
    }
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    generation = {"bos_token_id": 5, "eos_token_id": [9, 0], "pad_token_id": 7, "temperature": 0.6, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- tiny\n---\n# Tiny\n")
    return folder


@pytest.fixture(scope="module")
def fish(tmp_path_factory: pytest.TempPathFactory, chat_model: Path) -> Path:
    from peer.prepare.engine import prepare_texts
    from peer.prepare.plan import Plan

    texts = {name: [f"{name} {number} swims " * 20 for number in range(20)] for name in ("cod", "eel")}
    out = tmp_path_factory.mktemp("corpus") / "fish"
    prepare_texts(texts, out, Plan(tokenizer=chat_model, context_length=32))
    return out


def parts_of(entry: Entry, folder: Path) -> Parts:
    spec, strategy = entry.spec, Strategy(entry.spec.strategy.kind, 2)
    state = initial_state(spec, strategy, folder)
    counts = {domain.name: torch.ones(VOCABULARY).long().numpy() for domain in entry.library.domains}
    base = entry.library.frozen()
    return Parts(spec, {"model": state.phi}, counts, entry.library.tokenizer_json, base=base, files=read_files(folder))


@pytest.mark.parametrize("kind", ["replicas", "branches", "adapters"])
def test_nothing_of_it_is_lost(
    kind: str, chat_model: Path, fish: Path, founded: Callable[..., Entry], tmp_path: Path
) -> None:
    entry = founded(tmp_path / "state", {"kind": kind}, data=fish, init_from=chat_model)
    origin = entry.spec.origin
    assert origin is not None and origin.name == "Tiny-Instruct" and origin.licence == "apache-2.0"
    assert (origin.dtype, origin.context_length, entry.spec.model.context_length) == ("bfloat16", 64, 32)
    assert (origin.begin, origin.ends, origin.pad) == (5, (9, 0), 7)
    names = Strategy(kind, 2).sub_models
    fuse(parts_of(entry, chat_model), tmp_path / "routed")
    fuse(parts_of(entry, chat_model), tmp_path / "plain", "llama", names[-1])
    theirs = load_file(chat_model / "model.safetensors")
    for out in (tmp_path / "plain", *(tmp_path / "routed" / path.name for path in (tmp_path / "routed").glob("*.?"))):
        for name in FILES:
            if (chat_model / name).exists():
                assert (out / name).read_bytes() == (chat_model / name).read_bytes(), name
        told = json.loads((out / "config.json").read_text())
        assert told["max_position_embeddings"] == 64 and told["eos_token_id"] == [9, 0] and told["dtype"] == "bfloat16"
        ours = load_file(out / "model.safetensors")
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
        turns = [{"role": "user", "content": "hey"}]
        assert AutoTokenizer.from_pretrained(out).apply_chat_template(turns, tokenize=False) == "<user>hey</s>"
        assert AutoModelForCausalLM.from_pretrained(out).generation_config.temperature == 0.6
        model = RoutedModel.load(out)
        assert (model.end_of_text, model.context_length) == (0, 64), "of several ends, the one that texts have"
    card = (tmp_path / "plain" / "README.md").read_text()
    assert "\nbase_model: Tiny-Instruct\n" in card and "\nlicense: apache-2.0\n" in card


def test_the_small_files_are_the_fuser_s_own_or_those_of_a_copy(
    chat_model: Path,
    fish: Path,
    founded: Callable[..., Entry],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The founder has kept them; of anybody else's state directory `--base` makes the same model."""
    state = tmp_path / "state"
    entry = founded(state, {"kind": "adapters"}, data=fish, init_from=chat_model)
    entry.save(state)
    entry.library.keep_counts()
    strategy = Strategy("adapters", 2)
    store = BlockStore(state / "blocks", entry.spec, strategy, cast(Any, None), cast(Any, None))
    asyncio.run(store.put(initial_state(entry.spec, strategy)))
    assert gather(Sources([str(state)])).files == read_files(chat_model)
    for path in (state / "origin").iterdir():
        path.unlink()
    lacking = gather(Sources([str(state)]))
    assert not lacking.files
    assert "name a copy of it with --base DIR" in caplog.text
    fuse(lacking, tmp_path / "bare", "llama")
    assert AutoTokenizer.from_pretrained(tmp_path / "bare").eos_token == "</s>"
    blob = state / "corpus" / BLOBS / str(entry.spec.initial_id)
    blob.unlink()
    assert main(["fuse", str(state), "--base", str(chat_model), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == TEMPLATE


def test_a_copy_of_the_base_is_taken_and_no_other_model(
    chat_model: Path, fish: Path, founded: Callable[..., Entry], tmp_path: Path
) -> None:
    spec = founded(tmp_path / "state", {"kind": "adapters"}, data=fish, init_from=chat_model).spec
    blobs = tmp_path / "blobs"
    copy_base(chat_model, spec, blobs)
    (blob,) = blobs.iterdir()
    assert blob.name == spec.initial_id == content_id_of(blob.read_bytes())
    weights = sum(value.nbytes for value in load_file(chat_model / "model.safetensors").values())
    assert blob.stat().st_size == weights, "in its own dtype"
    blob.unlink()
    with pytest.raises(DataError, match="its weights are others"):
        copy_base(chat_model, spec.model_copy(update={"initial_id": "0" * 64}), blobs)
    assert not list(blobs.iterdir())
    with pytest.raises(DataError, match=r"not what this run began with \(Tiny-Instruct\): its tokenizer\.json is ano"):
        copy_base(chat_model, spec.model_copy(update={"tokenizer_sha256": "0" * 64}), blobs)
    with pytest.raises(DataError, match="began with no pretrained model"):
        copy_base(chat_model, spec.model_copy(update={"origin": None}), blobs)


def test_what_a_model_says_is_bounded(chat_model: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((chat_model / name).read_bytes())
    told = read_origin(tmp_path, 64)
    assert (told.begin, told.ends, told.pad, told.licence) == (5, (0,), 7, ""), "by config.json, if need be"
    (tmp_path / "README.md").write_text(f"---\nlicense: {'x' * 100}\n---\n")
    with pytest.raises(DataError, match="licence"):
        read_origin(tmp_path, 64)
    (tmp_path / "chat_template.jinja").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(DataError, match="at most"):
        read_files(tmp_path)
