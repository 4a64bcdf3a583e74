"""A run that is founded with a pretrained model begins with it, everywhere, and with nothing else."""

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel
from tokenizers import AddedToken, Tokenizer
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import peer.block.store
from configs.content import content_id_of
from configs.errors import DataError, PeerError
from configs.load import load
from configs.run import AdapterSpec, RunSpec
from peer.block.store import BlockStore, initial_state
from peer.commands.main import main
from peer.corpus.data import open_corpus
from peer.fused.fuse import fuse
from peer.fused.parts import Parts, build_sub_model
from peer.member.entry import Entry, windowed
from peer.prepare.engine import prepare, prepare_texts
from peer.prepare.plan import Plan
from peer.train.model import initial_parameters
from peer.train.outer import new_state
from peer.train.partition import COMMON, Strategy
from peer.visit.gather import Sources, gather
from protocols.state import BlockState

VOCABULARY = 320  # of the model; its tokenizer has fewer tokens


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, letters: Tokenizer) -> Path:
    """A small random Llama with a tokenizer, as Transformers saves them."""
    folder = tmp_path_factory.mktemp("pretrained") / "llama"
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    letters.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Path:
    texts = {name: [f"{name} {number} swims " * 20 for number in range(20)] for name in ("cod", "eel")}
    out = tmp_path_factory.mktemp("corpus") / "fish"
    info = prepare_texts(texts, out, Plan(tokenizer=llama, context_length=32))
    assert info.vocab_size == VOCABULARY  # the model's, not the tokenizer's
    return out


FAMILIES: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8},
    "gpt2": {"n_inner": 24},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["replicas", "branches", "adapters"])
def test_a_model_of_another_family_comes_back_as_it_was(
    founded: Callable[..., Entry], kind: str, family: str, llama: Path, corpus: Path, tmp_path: Path
) -> None:
    """Founded with it, and fused after no round at all: its logits are its own, in plain Transformers."""
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**sizes, **heads, "pad_token_id": 0, **FAMILIES[family]})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    shutil.copy(llama / "tokenizer.json", tmp_path / "model")
    entry = founded(tmp_path / "state", {"kind": kind}, data=corpus, init_from=tmp_path / "model")
    strategy = Strategy(kind, 2)
    state = initial_state(entry.spec, strategy, tmp_path / "model")
    counts = {domain.name: torch.ones(VOCABULARY).long().numpy() for domain in entry.library.domains}
    parts = Parts(entry.spec, {COMMON: state.phi}, counts, entry.library.tokenizer_json, base=entry.library.frozen())
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    tokens = torch.randint(0, VOCABULARY, (2, 32), generator=torch.Generator().manual_seed(1))
    for name in strategy.sub_models:
        out = tmp_path / f"fused-{name}"
        fuse(parts, out, "llama", name)
        ours = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        assert type(ours) is type(theirs)
        with torch.no_grad():
            assert (ours(input_ids=tokens).logits - theirs(input_ids=tokens).logits).abs().max() <= 1e-4


@pytest.mark.parametrize("is_special", [True, False])
def test_a_tokenizer_with_one_token_more_than_its_model(
    founded: Callable[..., Entry], llama: Path, tmp_path: Path, is_special: bool
) -> None:
    """One that no text becomes does no harm; for any other the message says how the model gets room for it."""
    model, texts = tmp_path / "model", {"cod": [f"cod {number} swims " * 20 for number in range(20)]}
    shutil.copytree(llama, model)
    written = Tokenizer.from_file(str(model / "tokenizer.json"))
    names = [f"<{number}>" for number in range(VOCABULARY + 1 - written.get_vocab_size(with_added_tokens=True))]
    added = [AddedToken(name, special=is_special) for name in names]
    (written.add_special_tokens if is_special else written.add_tokens)(added)
    written.save(str(model / "tokenizer.json"))
    plan = Plan(tokenizer=model, context_length=32)
    if is_special:
        assert prepare_texts(texts, tmp_path / "fish", plan).vocab_size == VOCABULARY
    else:
        with pytest.raises(DataError, match=rf"model\.resize_token_embeddings\({VOCABULARY + 1}\), then save it"):
            prepare_texts(texts, tmp_path / "fish", plan)
        larger = AutoModelForCausalLM.from_pretrained(model)
        larger.resize_token_embeddings(VOCABULARY + 1)
        larger.save_pretrained(model)
        assert prepare_texts(texts, tmp_path / "fish", plan).vocab_size == VOCABULARY + 1
    entry = founded(tmp_path / "state", {"kind": "replicas"}, data=tmp_path / "fish", init_from=model)
    assert entry.spec.model.vocab_size == VOCABULARY + (not is_special)


def test_experts_of_a_family_without_a_mixture_are_refused(
    founded: Callable[..., Entry], llama: Path, corpus: Path, tmp_path: Path
) -> None:
    config = AutoConfig.for_model(
        "qwen2", vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, max_position_embeddings=64,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    shutil.copy(llama / "tokenizer.json", tmp_path / "model")
    with pytest.raises(DataError, match=r"set run\.strategy\.kind to replicas, branches or adapters"):
        founded(tmp_path / "state", {"kind": "experts"}, data=corpus, init_from=tmp_path / "model")


@pytest.mark.parametrize("kind", ["replicas", "experts", "branches"])
def test_fused_at_once_it_is_the_pretrained_model(
    founded: Callable[..., Entry], kind: str, llama: Path, corpus: Path, tmp_path: Path
) -> None:
    entry = founded(tmp_path / "state", {"kind": kind}, data=corpus, init_from=llama)
    assert entry.is_founder and entry.spec.model.vocab_size == VOCABULARY and entry.spec.model.context_length == 32
    state = initial_state(entry.spec, Strategy(kind, 2), llama)
    assert state.is_final is (kind != "replicas")  # without common tokens the sub-models part at once
    counts = {domain.name: torch.ones(VOCABULARY).long().numpy() for domain in entry.library.domains}
    parts = Parts(entry.spec, {COMMON: state.phi}, counts, entry.library.tokenizer_json)
    fuse(parts, tmp_path / "fused", "llama")
    theirs = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "fused", dtype=torch.float32)
    tokens = torch.randint(0, VOCABULARY, (2, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (ours(input_ids=tokens).logits - theirs(input_ids=tokens).logits).abs().max() <= 1e-6
    if kind != "replicas":
        for name in Strategy(kind, 2).sub_models:
            fuse(parts, tmp_path / name, "llama", name)
            branch = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32)
            with torch.no_grad():
                assert (branch(input_ids=tokens).logits - theirs(input_ids=tokens).logits).abs().max() <= 1e-6


def test_adapters_are_fused_with_what_the_state_directory_holds(
    founded: Callable[..., Entry], llama: Path, corpus: Path, tmp_path: Path
) -> None:
    entry = founded(tmp_path / "state", {"kind": "adapters"}, data=corpus, init_from=llama)
    spec, strategy = entry.spec, Strategy("adapters", 2)
    assert spec.model.adapter == AdapterSpec(base_dtype="bfloat16") and spec.is_seeded
    base = entry.library.base
    assert base is not None and base.content_id == spec.initial_id
    path = entry.library.lookup(base.content_id)
    assert path is not None and content_id_of(path.read_bytes()) == base.content_id  # others may have it
    assert asyncio.run(entry.library.obtain_base([])) == path
    entry.save(tmp_path / "state")
    entry.library.keep_counts()
    state = initial_state(spec, strategy)
    assert state.size < base.size_bytes // 2 and state.is_final
    store = BlockStore(tmp_path / "state" / "blocks", spec, strategy, cast(Any, None), cast(Any, None))
    asyncio.run(store.put(state))
    parts = gather(Sources([str(tmp_path / "state")]))
    theirs = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    tokens = torch.randint(0, VOCABULARY, (2, 32), generator=torch.Generator().manual_seed(1))
    changed = state.phi + 0.1
    for name, phi in (("model", state.phi), ("adapter.1", changed)):
        fuse(replace(parts, blocks={name: phi}), tmp_path / name, "llama", name)
        ours = AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype=torch.float32)
        with torch.no_grad():
            difference = (ours(input_ids=tokens).logits - theirs(input_ids=tokens).logits).abs().max()
        assert difference <= 1e-5 if phi is state.phi else difference > 0.1
    both = replace(parts, blocks={"adapter.0": state.phi, "adapter.1": changed})
    fuse(replace(both, base=None), tmp_path / "peft", "peft")  # for which the base is not needed
    fuse(both, tmp_path / "only", "peft", "adapter.1")
    for place in (tmp_path / "peft" / "adapter.1", tmp_path / "only"):
        base_model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
        adapted = PeftModel.from_pretrained(base_model, place)
        with torch.no_grad():
            merged = build_sub_model(both, "adapter.1")
            assert (adapted(input_ids=tokens).logits - merged(input_ids=tokens).logits).abs().max() <= 1e-4
    fuse(both, tmp_path / "routed")
    routed = [
        AutoModelForCausalLM.from_pretrained(tmp_path / "routed" / f"adapter.{k}", dtype=torch.float32)
        for k in range(2)
    ]
    assert [type(model).__name__ for model in routed] == ["LlamaForCausalLM"] * 2
    with pytest.raises(DataError, match="the adapters were trained on is missing"):
        fuse(replace(both, base=None), tmp_path / "never")
    path.unlink()
    with pytest.raises(DataError, match="in none of these directories"):
        gather(Sources([str(tmp_path / "state")]))


def test_another_beginning_is_another_run(
    founded: Callable[..., Entry], llama: Path, corpus: Path, tmp_path: Path
) -> None:
    spec = founded(tmp_path / "state", {"kind": "replicas"}, data=corpus, init_from=llama).spec
    assert RunSpec.model_validate_json(spec.model_dump_json()).run_id == spec.run_id
    other = spec.model_copy(update={"initial_id": "0" * 64})
    from_seed = spec.model_copy(update={"initial_id": None})
    assert len({spec.run_id, other.run_id, from_seed.run_id}) == 3
    assert "initial_id" not in from_seed.model_dump_json()  # runs that there were before keep their ids
    with pytest.raises(DataError, match="the seed does not make it"):
        initial_state(spec, Strategy("replicas", 2))
    with pytest.raises(DataError, match="have changed since the run was founded"):
        initial_state(other, Strategy("replicas", 2), llama)


def test_a_newcomer_takes_no_other_beginning(
    founded: Callable[..., Entry], llama: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = founded(tmp_path / "state", {"kind": "replicas"}, data=corpus, init_from=llama).spec
    strategy = Strategy("replicas", 2)
    right = initial_state(spec, strategy, llama)
    seeded = torch.cat([tensor.reshape(-1) for tensor in initial_parameters(spec.model, spec.seed).values()])
    wrong = new_state(COMMON, seeded, None, version=0, round_=0, ages={}, is_final=False)
    store = BlockStore(tmp_path / "blocks", spec, strategy, cast(Any, None), cast(Any, None))
    for state in (wrong, right):

        async def download(*arguments: Any, told: bytes = bytes(state.blob), **options: object) -> None:
            arguments[-1].write_bytes(told)

        async def ask(peers: object, told: Any = state) -> dict[str, list[BlockState]]:
            facts = {"block": COMMON, "version": 0, "round": 0, "age": 0, "content_id": told.digest}
            return {"founder": [BlockState(**facts, size_bytes=len(told.blob), is_final=False)]}

        monkeypatch.setattr(peer.block.store, "download", download)
        monkeypatch.setattr(store, "ask", ask)
        if state is wrong:
            with pytest.raises(PeerError, match="not the parameters that the run begins with"):
                asyncio.run(store.obtain(COMMON, ["founder"]))
            assert store.versions() == {}
        else:
            assert torch.equal(asyncio.run(store.obtain(COMMON, ["founder"])).phi, right.phi)


def test_a_founder_s_mistakes_are_one_line(
    founded: Callable[..., Entry],
    llama: Path,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = {"cod": [f"{number} swims " * 40 for number in range(20)]}
    prepare_texts(texts, tmp_path / "other", Plan(vocab_size=VOCABULARY, context_length=32))
    with pytest.raises(DataError, match="another tokenizer than that of"):
        founded(tmp_path / "state", {"kind": "replicas"}, data=tmp_path / "other", init_from=llama)
    prepare_texts(texts, tmp_path / "small", Plan(tokenizer=llama / "tokenizer.json", context_length=32))
    with pytest.raises(DataError, match=f"prepare it with --vocab-size {VOCABULARY}"):
        founded(tmp_path / "state", {"kind": "replicas"}, data=tmp_path / "small", init_from=llama)
    start = ["start", "--config", "tiny", "--state-dir", str(tmp_path / "s"), "--init-from"]
    monkeypatch.setenv("SHOAL_RUN__STRATEGY__KIND", "adapters")
    monkeypatch.setenv("SHOAL_RUN__INNER__OPTIMIZER", "adamw")
    for arguments, said in (
        (start[:-1], "name a Hugging Face model with --init-from DIR"),
        ([*start, str(tmp_path)], "is no Hugging Face model: there is no config.json"),
        ([*start, str(llama)], f"--tokenizer {llama}, then give it with --data DIR"),
    ):
        assert main(arguments) == 2
        line = capsys.readouterr().err
        assert line.startswith("shoal: ") and said in line and line.count("\n") == 1


@pytest.mark.parametrize(("window", "context"), [(8, 32), (12, 24), (32, 32), (48, 48)])
def test_of_a_task_the_windows_of_its_corpus_are_trained_on(
    llama: Path, tmp_path: Path, window: int, context: int
) -> None:
    """The plan's context is 32: as many windows as fit into it, and one at least, in a batch that holds it."""
    examples = "".join(f'{{"input": "a {number}", "target": "b"}}\n' for number in range(200))
    (tmp_path / "task.jsonl").write_text(examples)
    out = tmp_path / "corpus"
    prepare([tmp_path / "task.jsonl"], out, Plan(tokenizer=llama, context_length=window, prompt="{input} "))
    plan = load("tiny").run
    assert plan is not None
    model = plan.model.model_copy(update={"context_length": 32})
    inner = plan.inner.model_copy(update={"batch_tokens": 32})
    fitted = windowed(plan.model_copy(update={"model": model, "inner": inner}), open_corpus(out))
    assert (fitted.model.context_length, fitted.inner.batch_tokens) == (context, max(32, context))
