"""Examples as tokens: what counts in the loss, what is cut, and that no window cuts an example."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tasks import WINDOW, mixed_corpus, model_spec, records, task_file, train
from torch.nn import functional

from configs.corpus import DEFAULT_PROMPT, TaskFormat
from configs.errors import DataError
from peer.corpus.data import Corpus, Sampler, Source, open_corpus, open_tokens, token_dtype, unmarked
from peer.corpus.examples import Example, TaskEncoder, corpus_encoder, heldout_examples, heldout_tokens
from peer.corpus.packing import Packer
from peer.corpus.tokenizer import read_tokenizer
from peer.fused.evaluate import evaluate, split_documents
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.router import Router
from peer.prepare.engine import prepare, prepare_texts
from peer.prepare.plan import Plan
from peer.train.model import TokenLoss, build_model

PLAN = Plan(300, context_length=WINDOW)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return mixed_corpus(tmp_path_factory.mktemp("task"))


def shards(corpus: Corpus) -> list[np.ndarray]:
    domain = corpus.info.domains[0]
    assert len(domain.shards) > 1
    return [open_tokens(corpus.blob(shard.content_id), 300, is_task=True) for shard in domain.shards]


def test_windows_hold_whole_examples_of_which_the_targets_count(corpus: Corpus) -> None:
    tokenizer, end = read_tokenizer(corpus.path, 300).tokenizer, corpus.info.end_of_text
    seen = []
    for shard in shards(corpus):
        assert shard[0] == ~end and len(shard) % WINDOW == 1
        for window in shard[1:].reshape(-1, WINDOW):
            documents = split_documents(window, end)
            if (documents[-1] == ~end).all():
                documents.pop()  # what fills the window up
            for document in documents:
                counts = document >= 0
                first = int(counts.argmax())
                assert counts[first:].all() and not counts[:first].any()
                assert document[-1] == end
                prompt = tokenizer.decode(unmarked(document[:first]).tolist())
                seen.append((prompt, tokenizer.decode(document[first:-1].tolist())))
    held = [example.input for example in heldout_examples(corpus, corpus.info.domains[0])]
    wanted = [(DEFAULT_PROMPT.replace("{input}", str(r["input"])), r["target"]) for r in records()]
    assert sorted(seen) == sorted(pair for pair in wanted if pair[0].removesuffix("\n\n###\n") not in held)
    assert len(seen) == corpus.info.domains[0].task.examples
    assert len(held) == corpus.info.domains[0].heldout.tokens == 400 - len(seen)


def test_the_same_examples_give_the_same_bytes(corpus: Corpus, tmp_path: Path) -> None:
    folder = corpus.path.parent
    plan = Plan(vocab_size=300, context_length=WINDOW, shard_tokens=4000)
    info = prepare(sorted((folder / "texts").iterdir()), tmp_path / "again", plan).info
    assert info == corpus.info


def test_counts_are_those_of_the_examples(corpus: Corpus) -> None:
    stream = np.concatenate(shards(corpus))
    stream = unmarked(stream[stream != ~corpus.info.end_of_text])
    assert np.array_equal(corpus.counts(corpus.info.domains[0]), np.bincount(stream, minlength=300))


def test_a_corpus_of_text_says_nothing_of_tasks(tmp_path: Path) -> None:
    prepare_texts({"salt": [f"{number} grains of salt " * 10 for number in range(20)]}, tmp_path / "corpus", PLAN)
    written = json.loads((tmp_path / "corpus" / "corpus.json").read_text())
    assert set(written) == {"tokenizer_sha256", "vocab_size", "end_of_text", "domains"}
    assert set(written["domains"][0]) == {"name", "shards", "heldout", "counts", "is_public"}


@torch.no_grad()
def test_only_the_targets_count_in_the_loss(corpus: Corpus) -> None:
    torch.manual_seed(0)
    llama = build_model(model_spec(corpus))
    sources = [Source(str(corpus.blob(s.content_id)), 300, 1.0, True) for s in corpus.info.domains[0].shards]
    windows = Sampler(sources, WINDOW, seed=1).batch(0, 8)
    assert windows.dtype == torch.int64 and (windows < 0).any() and (windows[:, 1:] >= 0).any(dim=1).all()
    tokens = torch.where(windows < 0, ~windows, windows)
    each = functional.cross_entropy(llama(tokens[:, :-1]).logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    expected = sum(
        each[row, at - 1].item() for row in range(8) for at in range(1, WINDOW + 1) if int(windows[row, at]) >= 0
    )
    assert TokenLoss(llama)(windows).item() == pytest.approx(expected, rel=1e-5)
    assert TokenLoss(llama)(tokens).item() == pytest.approx(float(each.sum()), rel=1e-5)


def test_a_step_divides_by_the_tokens_that_count(corpus: Corpus) -> None:
    spec = model_spec(corpus)
    _, losses = train(Corpus(corpus.path, corpus.info.model_copy(update={"domains": corpus.info.domains[:1]})), spec, 1)
    assert losses[0] == pytest.approx(np.log(300), abs=0.3)  # one that knows nothing


@pytest.mark.parametrize(("vocab_size", "dtype"), [(1 << 15, "<i2"), ((1 << 15) + 1, "<i4")])
def test_marks_have_room(vocab_size: int, dtype: str) -> None:
    assert token_dtype(vocab_size, is_task=True) == np.dtype(dtype)
    assert np.iinfo(dtype).min <= ~(vocab_size - 1)


def test_a_full_window_is_closed_and_the_fullest_is_filled_first(tmp_path: Path) -> None:
    with (tmp_path / "windows").open("w+b") as file:
        packer = Packer(file, 8, 300, 0)
        for length in (5, 6, 2, 3, 8):
            packer.add(np.full(length, length))
        packer.finish()
    windows = np.fromfile(tmp_path / "windows", dtype="<i2").reshape(-1, 8)
    assert windows.tolist() == [[6] * 6 + [2] * 2, [5] * 5 + [3] * 3, [8] * 8]


def test_an_input_loses_its_beginning_for_the_target_to_fit(corpus: Corpus) -> None:
    vocabulary = read_tokenizer(corpus.path, 300)
    encoder = TaskEncoder(TaskFormat(prompt="Q: {input}\nA:", window=WINDOW), vocabulary.tokenizer, vocabulary.end)
    long = Example("begin " + "x" * 100 + " end", "it is blue", ("it is blue",))
    whole, cut, lost = encoder.encode(
        [Example("fish", "it is red", ("it is red",)), long, Example("fish", "y" * 200, ("y",))]
    )
    assert lost is None and whole is not None and cut is not None
    decode = vocabulary.tokenizer.decode
    assert not whole.lost and decode(whole.prompt.tolist()) == "Q: fish\nA:"
    assert cut.lost and len(cut.marked()) == WINDOW
    text = decode(cut.prompt.tolist())
    assert text.startswith("Q: x") and text.endswith("x end\nA:")
    assert decode(cut.answers[0][:-1].tolist()) == "it is blue" and cut.answers[0][-1] == vocabulary.end
    roomy = encoder.encode([long], room=20)[0]
    assert roomy is not None and len(roomy.prompt) == WINDOW - 20
    least = encoder.encode([long], room=WINDOW)[0]
    assert least is not None and decode(least.prompt.tolist()).endswith("d\nA:")


def test_examples_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    lines = [*records(60), {"input": "long", "target": "z q " * 100}, {"input": "fish " * 60, "target": "many"}]
    info = prepare(
        [task_file(tmp_path / "a.jsonl", lines)], tmp_path / "corpus", Plan(vocab_size=300, context_length=WINDOW)
    ).info
    task = info.domains[0].task
    assert task is not None and task.left_out == 1 and task.cut == 1
    assert task.examples + info.domains[0].heldout.tokens == 61


def test_special_tokens_in_examples_are_text(tmp_path: Path) -> None:
    lines = [*records(60), *({"input": f"<|endoftext|> {n}", "target": "<|endoftext|>"} for n in range(9))]
    prepare([task_file(tmp_path / "a.jsonl", lines)], tmp_path / "corpus", Plan(vocab_size=300, context_length=64))
    corpus = open_corpus(tmp_path / "corpus")
    shard = open_tokens(corpus.blob(corpus.info.domains[0].shards[0].content_id), 300, is_task=True)
    assert (shard == corpus.info.end_of_text).sum() == corpus.info.domains[0].task.examples


def test_held_out_examples_keep_references_and_options(tmp_path: Path) -> None:
    lines = records(40, has_options=True)
    for line in lines:
        line["targets"] = [line["target"], "another"]
    prepare([task_file(tmp_path / "a.jsonl", lines)], tmp_path / "corpus", Plan(vocab_size=300, context_length=64))
    corpus = open_corpus(tmp_path / "corpus")
    example = heldout_examples(corpus, corpus.info.domains[0], 1)[0]
    assert example.references == (example.target, "another") and len(example.options) == 4
    held = corpus.blob(corpus.info.domains[0].heldout.content_id)
    held.write_bytes(b"[1]" + held.read_bytes()[3:])
    with pytest.raises(DataError, match="does not hold examples"):
        heldout_examples(corpus, corpus.info.domains[0])


@pytest.mark.parametrize("prompt", ["no input", "{input}{input}", "{input}" + "x" * 2000, "{input} " + "long " * 40])
def test_a_prompt_format_must_have_one_input_and_be_short(tmp_path: Path, prompt: str) -> None:
    source = task_file(tmp_path / "a.jsonl", records(40))
    with pytest.raises(DataError, match="prompt format") as caught:
        prepare([source], tmp_path / "corpus", Plan(vocab_size=300, context_length=WINDOW, prompt=prompt))
    assert "\n" not in str(caught.value)


def test_a_model_must_read_whole_windows(corpus: Corpus) -> None:
    spec = model_spec(corpus)
    for length in (WINDOW, 2 * WINDOW):
        corpus.check_fits(spec.model_copy(update={"context_length": length}))
    with pytest.raises(DataError, match="SHOAL_RUN__MODEL__CONTEXT_LENGTH=32"):
        corpus.check_fits(spec.model_copy(update={"context_length": 48}))


@torch.no_grad()
def test_evaluation_scores_targets_alone(corpus: Corpus) -> None:
    llama = build_model(model_spec(corpus)).eval()
    llama.config.eos_token_id = corpus.info.end_of_text
    domain = corpus.info.domains[0]
    model = routed(llama, corpus)
    tokens = heldout_tokens(corpus, domain, 5)
    found = evaluate(model, {"colours": tokens, "tales": heldout_tokens(corpus, corpus.info.domains[1])})
    encoded = corpus_encoder(corpus).encode(heldout_examples(corpus, domain, 5))
    losses: list[float] = []
    for each in encoded:
        assert each is not None
        text = torch.tensor([[corpus.info.end_of_text, *each.prompt, *each.answers[0]]])
        logs = llama(text[:, :-1]).logits[0].log_softmax(dim=-1)
        losses += [-float(logs[at - 1, text[0, at]]) for at in range(1 + len(each.prompt), text.shape[1])]
    assert found.losses["colours"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert found.tokens["colours"] == len(losses) == int((tokens >= 0).sum())
    assert found.tokens["tales"] == corpus.info.domains[1].heldout.tokens
    with pytest.raises(DataError, match="hold no target"):
        evaluate(model, {"colours": tokens}, max_tokens=2)


def routed(llama: torch.nn.Module, corpus: Corpus) -> RoutedModel:
    counts = np.ones((1, corpus.info.vocab_size), dtype=np.uint64)
    info = SubModelInfo(name="model", domain="all")
    return RoutedModel((info,), (llama,), Router(counts), corpus.info.end_of_text, None)
