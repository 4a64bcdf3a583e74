"""Which text a peer fetches: what the fewest others train on, one shard of each domain before a second of any."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

import peer.member.library
from benchmarks.patience import HANG_S
from configs.corpus import ShardInfo
from configs.errors import DataError, NetworkError
from configs.load import load
from peer.corpus.data import BLOBS, Sampler, open_corpus, open_tokens
from peer.corpus.examples import Example, corpus_encoder, heldout_examples
from peer.corpus.remote import open_remote
from peer.member.library import FIRST_TRIES, RETRY_S, Library, retry_seconds
from peer.member.own_text import match
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.train.partition import COMMON, Strategy
from protocols.state import keep_seconds


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


def fetched_by(library: Library, monkeypatch: pytest.MonkeyPatch, lost: set[str]) -> list[str]:
    """Let downloads succeed at once, save those of `lost`; return the list of what was tried."""
    tried: list[str] = []

    async def download(*given: Any, **options: float) -> None:
        _, _, wanted, size_bytes, target = given
        tried.append(wanted)
        assert options["deadline_s"] == keep_seconds(size_bytes, None)
        if wanted in lost:
            raise NetworkError("nobody has it")
        target.write_bytes(bytes(size_bytes))

    monkeypatch.setattr(peer.member.library, "download", download)
    return tried


@pytest.mark.parametrize("kind", ["experts", "replicas"])
def test_a_shard_that_nobody_has_delays_no_other_and_is_tried_again(
    library: Library, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    strategy = Strategy("experts" if kind == "experts" else "replicas", 2)
    sub_model = "expert.0" if kind == "experts" else COMMON
    first = library.wanted(strategy, sub_model, "me")
    lost = {first[0].content_id}
    tried, arrivals = fetched_by(library, monkeypatch, lost), 0
    monkeypatch.setattr(peer.member.library, "retry_seconds", lambda size_bytes, tries: 0.0)

    async def arrived() -> None:
        nonlocal arrivals
        arrivals += 1
        if arrivals == len(first) - 1:
            assert library.path(first[0]) is None
            lost.clear()  # somebody comes who has it

    fetching = library.fetch_in_background(strategy, sub_model, "me", lambda: ["anybody"], arrived)
    asyncio.run(asyncio.wait_for(fetching, HANG_S))
    assert arrivals == len(first) and tried.count(first[0].content_id) >= 2
    everything = [blob for domain in library.domains for blob in (*domain.shards, domain.counts)]
    assert all(library.path(blob) is not None for blob in everything)


def test_only_the_last_begun_goes_on_in_the_background(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = Strategy("experts", 2)
    lost = {library.domains[0].shards[0].content_id}
    fetched_by(library, monkeypatch, lost)
    monkeypatch.setattr(peer.member.library, "retry_seconds", lambda size_bytes, tries: 0.001)

    async def arrived() -> None:
        pass

    async def main() -> None:
        before = asyncio.create_task(library.fetch_in_background(strategy, "expert.0", "me", list, arrived))
        await asyncio.sleep(0)
        after = asyncio.create_task(library.fetch_in_background(strategy, "expert.1", "me", list, arrived))
        await asyncio.wait_for(before, HANG_S)
        lost.clear()
        await asyncio.wait_for(after, HANG_S)

    asyncio.run(main())


@pytest.mark.parametrize("is_own", [True, False])
def test_a_flipped_bit_is_noticed_and_the_shard_fetched_again(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_own: bool
) -> None:
    """What was prepared here is the user's, and left where it is; what was fetched is deleted."""
    strategy, source = Strategy("experts", 2), open_corpus(tmp_path / "corpus")
    shards = library.domains[0].shards
    if is_own:
        library.corpus = source
    else:
        for shard in shards:
            shutil.copy(source.blob(shard.content_id), library.folder / BLOBS)
    broken = (source.path if is_own else library.folder) / BLOBS / shards[1].content_id
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 1
    broken.write_bytes(data)
    tried, seen = fetched_by(library, monkeypatch, set()), []

    async def arrived() -> None:
        seen.append([source.path for source in library.sources(strategy, "expert.0")])

    fetching = library.fetch_in_background(strategy, "expert.0", "me", lambda: ["anybody"], arrived)
    asyncio.run(asyncio.wait_for(fetching, HANG_S))
    assert len(seen[0]) == len(shards) - 1 and str(broken) not in seen[0]
    assert tried[0] == shards[1].content_id and len(seen[-1]) == len(shards)
    assert broken.read_bytes() == (data if is_own else bytes(len(data))), "what came stands in its place"


def test_to_begin_any_shard_will_do(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = Strategy("experts", 2)
    wanted = [shard.content_id for shard in library.wanted(strategy, "expert.0", "me")][:FIRST_TRIES]
    tried = fetched_by(library, monkeypatch, set(wanted[:-1]))
    asyncio.run(library.fetch_first(strategy, "expert.0", "me", ["anybody"]))
    assert sorted(tried) == sorted(wanted)
    library.domains[0] = library.domains[1]
    fetched_by(library, monkeypatch, {shard.content_id for shard in library.domains[1].shards})
    with pytest.raises(NetworkError, match="nobody has it"):
        asyncio.run(library.fetch_first(strategy, "expert.1", "me", ["anybody"]))


def test_what_could_not_be_had_is_asked_for_less_and_less_often() -> None:
    assert retry_seconds(1000, 0) == keep_seconds(1000, None) < retry_seconds(10**8, 0)
    delays = [retry_seconds(1000, tries) for tries in range(20)]
    assert delays == sorted(delays) and delays[1] == 2 * delays[0] and delays[-1] == RETRY_S


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


def test_what_is_held_out_becomes_token_files_to_be_scored(library: Library, tmp_path: Path) -> None:
    plan = Plan(tokenizer=tmp_path / "corpus", context_length=16, shard_tokens=1000, heldout_share=0.2)
    examples = [Example(f"say {n}", f"{n} times", (f"{n} times",)) for n in range(60)]
    info = prepare_texts({"up": examples, "down": ["down " * 400, "and down " * 400]}, tmp_path / "both", plan)
    library.domains, library.corpus = list(info.domains), open_corpus(tmp_path / "both")
    library.set_tokenizer((tmp_path / "both" / "tokenizer.json").read_bytes())
    library.spec = library.spec.model_copy(update={"end_of_text": info.end_of_text})
    found = library.heldout_sources(Strategy("replicas", 2), "model")
    assert list(found) == ["up", "down"] and [source.is_task for source in found.values()] == [True, False]
    assert library.heldout_sources(Strategy("experts", 2), "expert.1") == {"down": found["down"]}
    window = library.spec.model.context_length
    for name, source in found.items():
        (row,) = Sampler([source], window, seed=0).batch(0, 1)
        assert bool((row < 0).any()) is (name == "up")
    made = Path(found["up"].path)
    tokens = open_tokens(made, info.vocab_size, is_task=True)
    held = heldout_examples(library.corpus, info.domains[0])
    encoded = corpus_encoder(library.corpus).encode(held)
    learnt = sum(int((each.marked() >= 0).sum()) for each in encoded if each is not None)
    assert int((tokens >= 0).sum()) == learnt
    written = made.stat().st_mtime_ns
    assert library.heldout_sources(Strategy("replicas", 2), "model") == found
    assert made.stat().st_mtime_ns == written
    library.corpus = None
    assert library.heldout_sources(Strategy("replicas", 2), "model") == {}


@pytest.mark.parametrize("has_near", [True, False])
def test_a_frozen_model_comes_from_the_nearest_that_have_it(
    library: Library, monkeypatch: pytest.MonkeyPatch, has_near: bool
) -> None:
    asked: list[list[str]] = []

    async def download(*given: Any, **options: Any) -> None:
        _, peers, _, size_bytes, target = given
        asked.append(peers)
        if peers == ["near"] and not has_near:
            raise NetworkError("it has no such blob")
        target.write_bytes(bytes(size_bytes))

    monkeypatch.setattr(peer.member.library, "download", download)
    library.base = ShardInfo(content_id="0" * 64, tokens=0, size_bytes=8)
    assert asyncio.run(library.obtain_base([["near"], ["near", "far"]])) == library.path(library.base)
    assert asked == ([["near"]] if has_near else [["near"], ["near", "far"]])
    library.base = ShardInfo(content_id="1" * 64, tokens=0, size_bytes=8)
    has_near = False
    with pytest.raises(NetworkError, match="no such blob"):
        asyncio.run(library.obtain_base([["near"]]))


def test_shards_of_a_store_come_when_they_are_needed_and_are_asked_of_nobody(library: Library, tmp_path: Path) -> None:
    strategy, url = Strategy("experts", 2), (tmp_path / "corpus").as_uri()
    remote = open_remote(url, tmp_path / "remote", 10**9)
    streamed = Library(tmp_path / "streamed", library.spec, library.domains, nobody, remote)
    assert streamed.can_train(strategy, "expert.1") and not streamed.wanted(strategy, COMMON, "me")
    (source,) = streamed.sources(strategy, "expert.1")
    shards = library.domains[1].shards
    assert [Path(part.path).name for part in source.parts] == [shard.content_id for shard in shards]
    assert [streamed.lookup(shard.content_id) for shard in shards] == [None] * len(shards)
    assert set(streamed.heldout_sources(strategy, COMMON)) == {"up", "down"}
    asyncio.run(streamed.fetch_first(strategy, "expert.1", "me", []))
    here = [shard for shard in shards if streamed.lookup(shard.content_id) is not None]  # and is served to others
    assert 0 < len(here) < len(shards)
    assert streamed.leases(strategy, "expert.1") == [shard.content_id for shard in here]
    streamed.domains = [domain.model_copy(update={"is_public": False}) for domain in streamed.domains]
    assert streamed.lookup(here[0].content_id) is None  # private text never leaves
    assert streamed.can_train(strategy, "expert.1")


def test_who_joins_tries_what_somebody_trains_on_if_nothing_else_is_to_be_had(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    strategy = Strategy("experts", 2)
    shards = {shard.content_id for shard in library.domains[0].shards}
    present = library.wanted(strategy, "expert.0", "me")[0].content_id
    library.leased = lambda: {present: 1}
    monkeypatch.setattr(peer.member.library, "FIRST_TRIES", 3)
    tried = fetched_by(library, monkeypatch, shards - {present})
    asyncio.run(library.fetch_first(strategy, "expert.0", "me", ["anybody"]))
    assert len(tried) == 3 and tried[-1] == present


def test_a_cache_that_is_too_small_is_said_before_anything_is_fetched(library: Library, tmp_path: Path) -> None:
    remote = open_remote((tmp_path / "corpus").as_uri(), tmp_path / "remote", 100)
    streamed = Library(tmp_path / "streamed", library.spec, library.domains, nobody, remote)
    with pytest.raises(DataError, match=r"two shards of each domain that is trained need .*raise cache_gb"):
        asyncio.run(streamed.fetch_first(Strategy("experts", 2), "expert.1", "me", []))
