"""Which text a peer fetches: what the fewest others train on, one shard of each domain before a second of any."""

from pathlib import Path
from typing import Any

import pytest

from configs.errors import NetworkError
from configs.load import load
from configs.run import RunSpec
from peer.library import Library
from peer.train.data import open_corpus
from peer.train.partition import COMMON, Strategy
from peer.train.prepare import Plan, prepare_texts


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
    spec = RunSpec.model_validate({**plan.model_dump(), "model": model.model_dump(), **founded})
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
