"""The functions do what the commands do, with typed results; also where an event loop runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from fused_example import BRANCHES, CONTEXT, TEXT, write_fused
from tokenizers import Tokenizer

import shoal
from configs.run import RunSpec
from peer.fused.sampling import Sampling
from peer.prepare.cleaning import Cleaning
from peer.prepare.plan import Plan
from peer.sources.documents import Reading
from peer.sources.listing import Listing
from shoal.models import Drawing, Preparing


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, smallest_run: Callable[..., RunSpec]) -> shoal.Model:
    return shoal.load_model(write_fused(tmp_path_factory.mktemp("fused") / "model", smallest_run(**BRANCHES)))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for domain in ("up", "down"):
        folder = tmp_path / "texts" / domain
        folder.mkdir(parents=True)
        for number in range(40):
            (folder / f"{number}.txt").write_text(f"{domain} {number}: {TEXT}")
    return tmp_path / "texts"


def test_text_becomes_a_corpus_that_a_model_is_scored_on(texts: Path, tmp_path: Path, model: shoal.Model) -> None:
    corpus = shoal.prepare(texts, tmp_path / "corpus", tokenizer=model.path, context_length=CONTEXT)
    assert [domain.name for domain in corpus.info.domains] == ["down", "up"]
    scores = shoal.evaluate(model, corpus, max_tokens=200)
    assert scores.perplexities.keys() == {"down", "up"}
    assert scores.foretelling.mean > 1
    for place in (corpus.path, corpus.path.as_uri()):
        assert shoal.evaluate(model, place, max_tokens=200).perplexities == scores.perplexities
    with pytest.raises(shoal.DataError, match="has no task to answer"):
        shoal.evaluate(model, corpus, metrics=True)
    for name, place in {"alike": corpus.path, "like one at a URL": corpus.path.as_uri()}.items():
        alike = shoal.prepare(texts, tmp_path / name, like=place, context_length=CONTEXT)
        assert alike.info.tokenizer_sha256 == corpus.info.tokenizer_sha256
    other = shoal.prepare([texts], tmp_path / "other", vocab_size=400, context_length=CONTEXT)
    with pytest.raises(shoal.DataError, match="with another tokenizer"):
        shoal.evaluate(model, other)


def test_a_model_writes_and_says_who_spoke(model: shoal.Model) -> None:
    heard: list[str] = []
    answer = shoal.generate(model, "A shoal", max_tokens=8, seed=1, heard=heard.append)
    assert answer.text == "".join(heard)
    assert answer == shoal.generate(model, "A shoal", max_tokens=8, seed=1)
    assert {segment.sub_model for segment in answer.segments} <= set(model.sub_models)
    assert answer.segments[0].is_prompt
    with pytest.raises(shoal.ConfigError, match=r"generate: temperature = -1"):
        shoal.generate(model, "A shoal", temperature=-1)
    with pytest.raises(shoal.DataError, match="was not trained on a task"):
        shoal.generate(model, "A shoal", task=True)


def test_what_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(shoal.DataError, match=r"no such file or folder: .*nowhere; check the path"):
        shoal.prepare(tmp_path / "nowhere", tmp_path / "corpus")
    with pytest.raises(shoal.DataError, match="no model directory at"):
        shoal.load_model(tmp_path / "nowhere")
    with pytest.raises(shoal.UsageError, match="neither a directory nor an address"):
        shoal.fuse("nowhere", tmp_path / "model")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(shoal.UsageError, match="already exists"):
        shoal.fuse(tmp_path, tmp_path / "full")


def test_fusing_asks_the_network_also_where_a_loop_runs(tmp_path: Path) -> None:
    async def in_a_notebook() -> None:
        with pytest.raises(shoal.NetworkError):  # nobody listens there
            shoal.fuse("/ip4/127.0.0.1/tcp/9/p2p/QmXNWMqduUsDFW3ujHZ5ZyJ7AgaR65YriqPN92Tb8GKbDX", tmp_path / "model")

    asyncio.run(in_a_notebook())


def test_all_that_the_command_can_say_of_text_can_be_said(tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    for number in range(60):
        (folder / f"{number}.py").write_text(f"def f{number}(x):\n    return x + {number}\n" * 8)
    (folder / "old.txt").write_bytes(
        "".join(f"Grüße an Nummer {n}, dein Bäcker.\n" for n in range(90)).encode("cp1252")
    )
    stages: set[str] = set()
    corpus = shoal.prepare(
        folder,
        tmp_path / "corpus",
        vocab_size=400,
        context_length=8,
        extensions=".py",
        encoding="cp1252",
        document="line",
        heldout=folder / "7.py",
        min_characters=10,
        is_deduplicated=True,
        near=0.9,
        max_bad=0.5,
        progress=lambda stage, done, total: stages.add(stage),
    )
    assert [domain.name for domain in corpus.info.domains] == ["found"]
    assert {"reading", "tokenizing"} <= stages
    tokenizer = Tokenizer.from_buffer(corpus.tokenizer_json())
    held_out = tokenizer.decode(corpus.heldout(corpus.info.domains[0]).tolist())
    assert "f7(x)" in held_out and "f8(x)" not in held_out


def test_columns_and_addresses_of_tasks(tmp_path: Path) -> None:
    rows = "".join(
        f"A story of {n} sheep.,How many sheep were number {n}?,{n},{'test' if n % 9 == 0 else 'train'}\n"
        for n in range(90)
    )
    (tmp_path / "quiz.csv").write_text("story,question,answer,part\n" + rows)
    corpus = shoal.prepare(
        [(tmp_path / "quiz.csv").as_uri()],
        tmp_path / "corpus",
        vocab_size=300,
        context_length=64,
        prompt_columns="{story} {question}",
        target_column="answer",
        split_column="part",
        prompt="{input} ->",
        keep="start",
    )
    [domain] = corpus.info.domains
    assert domain.task is not None and domain.task.examples == 80 and domain.heldout.tokens == 10
    assert corpus.info.task_format is not None
    assert (corpus.info.task_format.prompt, corpus.info.task_format.keep) == ("{input} ->", "start")


def test_options_that_are_none_or_do_not_go_together_are_refused(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(shoal.UsageError, match="has no option vocabulary; it has vocab_size, "):
        shoal.prepare(texts, tmp_path / "corpus", vocabulary=400)  # type: ignore[call-arg]
    with pytest.raises(shoal.UsageError, match="leave out vocab_size, tokenizer and domains"):
        shoal.prepare(texts, tmp_path / "corpus", like=tmp_path, domains=2)


def test_what_the_functions_take_is_what_the_commands_take() -> None:
    fields = {name for kind in (Plan, Listing, Reading, Cleaning) for name in kind.__dataclass_fields__}
    assert Preparing.__annotations__.keys() - {"document", "prompt_columns"} <= fields
    assert Drawing.__annotations__.keys() <= Sampling.model_fields.keys()
