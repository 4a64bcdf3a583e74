"""The functions do what the commands do, with typed results; also where an event loop runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from fused_example import BRANCHES, CONTEXT, TEXT, write_fused

import shoal
from configs.run import RunSpec
from peer.fused.sampling import Sampling
from peer.prepare.plan import Plan
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
    assert shoal.evaluate(model, corpus.path, max_tokens=200).perplexities == scores.perplexities
    with pytest.raises(shoal.DataError, match="has no task to answer"):
        shoal.evaluate(model, corpus, metrics=True)
    alike = shoal.prepare(texts, tmp_path / "alike", like=corpus.path, context_length=CONTEXT)
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
    with pytest.raises(shoal.DataError, match="there is nothing at"):
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


def test_what_the_functions_take_is_what_the_commands_take() -> None:
    assert Preparing.__annotations__.keys() <= Plan.__dataclass_fields__.keys()
    assert Drawing.__annotations__.keys() <= Sampling.model_fields.keys()
