"""Which text a peer fetches: what the fewest others train on, one shard of each domain before a second of any."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import DataError, NetworkError
from configs.load import load
from peer.corpus.data import open_corpus
from peer.corpus.examples import Example
from peer.corpus.prepare import Plan, prepare_texts
from peer.member.library import Library, match
from peer.train.partition import COMMON, Strategy


def nobody(peer: str) -> Any:
    raise NetworkError("no network here")


@pytest.fixture
def library(tmp_path: Path) -> Library:
    texts = {name: [f"{name} {n} " * 40 for n in range(60)] for name in ("up", "down")}
    info = prepare_texts(texts, tmp_path / "corpus", Plan(vocab_size=300, context_length=16, shard_tokens=1000))
    plan = load("tiny").run
    assert plan is not None
    model = plan.model.model_copy(update={"vocab_size": info.vocab_size, "context_length": 16})
    founded = {"genesis": 0.0, "tokenizer_sha256": info.tokenizer_sha256, "end_of_text": info.end_of_text}
    spec = plan.founded(1.0, model=model.model_dump(), **founded)
    return Library(tmp_path / "library", spec, info.domains, nobody, None)


def test_what_the_fewest_others_train_on_comes_first(library: Library) -> None:
    strategy = Strategy("experts", 2)
    free = [shard.content_id for shard in library.wanted(strategy, "expert.0", "me")]
    assert len(free) >= 4 and set(free) == {shard.content_id for shard in library.domains[0].shards}
    taken = set(free[: len(free) // 2])
    library.leased = lambda: dict.fromkeys(taken, 1)
    wanted = [shard.content_id for shard in library.wanted(strategy, "expert.0", "me")]
    assert set(wanted[-len(taken) :]) == taken and set(wanted) == set(free)


def test_domains_take_turns(library: Library) -> None:
    of = {shard.content_id: domain.name for domain in library.domains for shard in domain.shards}
    first = [of[shard.content_id] for shard in library.wanted(Strategy("experts", 2), COMMON, "me")[:4]]
    assert first == [library.domains[0].name, library.domains[1].name] * 2


def test_what_lies_here_is_leased_and_is_not_wanted(library: Library, tmp_path: Path) -> None:
    strategy = Strategy("experts", 2)
    assert library.leases(strategy, "expert.1") == []
    library.corpus = open_corpus(tmp_path / "corpus")
    assert library.leases(strategy, "expert.1") == [s.content_id for s in library.domains[1].shards][:32]
    assert library.wanted(strategy, "expert.1", "me") == []


def test_a_private_task_must_be_prepared_as_the_run_has_it(library: Library, tmp_path: Path) -> None:
    examples = [Example(f"say {n}", f"{n} times", (f"{n} times",)) for n in range(60)]
    plan = Plan(tokenizer=tmp_path / "corpus", context_length=16, shard_tokens=1000, is_private=True)
    prepare_texts({"up": examples}, tmp_path / "mine", plan)
    mine = open_corpus(tmp_path / "mine")
    runs = [domain.model_copy(update={"is_public": False}) for domain in library.domains]
    with pytest.raises(DataError, match=r"domain 'up' of .* is not as the run has it; prepare it of text"):
        match(mine, library.spec, runs)
    other = mine.info.domains[0].task
    assert other is not None
    runs[0] = mine.info.domains[0].model_copy(update={"shards": runs[0].shards})
    assert match(mine, library.spec, runs) == [mine.info.domains[0], runs[1]]
    longer = other.format.model_copy(update={"window": 32})
    runs[0] = runs[0].model_copy(update={"task": other.model_copy(update={"format": longer})})
    with pytest.raises(DataError, match="--context-length 32"):
        match(mine, library.spec, runs)


def test_the_worker_is_told_which_sources_are_tasks(library: Library, tmp_path: Path) -> None:
    plan = Plan(tokenizer=tmp_path / "corpus", context_length=16, shard_tokens=1000)
    examples = [Example(f"say {n}", f"{n} times", (f"{n} times",)) for n in range(60)]
    info = prepare_texts({"up": examples, "down": ["down " * 400, "and down " * 400]}, tmp_path / "both", plan)
    library.domains, library.corpus = list(info.domains), open_corpus(tmp_path / "both")
    for index, is_task in enumerate((True, False)):
        sources = library.sources(Strategy("experts", 2), f"expert.{index}")
        assert sources and all(source.is_task is is_task for source in sources)
