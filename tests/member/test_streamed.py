"""Shards come before training needs them, and what goes wrong with their store is said and survived."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

import peer.member.stream
from benchmarks.patience import HANG_S, until_async
from configs.errors import DataError, NetworkError, StateError
from configs.run import RunSpec
from peer.corpus.data import BLOBS, Sampler, open_corpus
from peer.corpus.remote import RemoteCorpus, open_remote
from peer.corpus.source import Source
from peer.member.stream import FILE, Stream
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

CONTEXT, BATCH = 16, 4
ROOM = 5  # shards that may lie here


class Home:
    """A store, a stream from it, and how far training is."""

    def __init__(self, folder: Path, smallest_run: Callable[..., RunSpec]) -> None:
        texts = {"up": [f"up {n} " * 40 for n in range(160)]}
        self.store = folder / "store"
        info = prepare_texts(texts, self.store, Plan(vocab_size=300, context_length=CONTEXT, shard_tokens=700))
        spec = smallest_run(tokenizer_sha256=info.tokenizer_sha256, end_of_text=info.end_of_text)
        model = spec.model.model_copy(update={"context_length": CONTEXT})
        inner = spec.inner.model_copy(update={"batch_tokens": BATCH * CONTEXT})
        self.spec = spec.model_copy(update={"model": model, "inner": inner})
        self.shards = open_corpus(self.store).info.domains[0].shards
        assert len(self.shards) > 3 * ROOM
        self.folder = folder
        self.step = 0
        self.arrivals = 0
        self.open()

    def open(self) -> None:
        most_bytes = ROOM * max(shard.size_bytes for shard in self.shards)
        self.corpus: RemoteCorpus = open_remote(self.store.as_uri(), self.folder / "cache", most_bytes)
        self.stream = Stream(self.corpus, self.spec, self.folder)
        self.stream.position = lambda: self.step
        self.sources: list[Source] = self.stream.sources(list(self.corpus.info.domains))
        self.sampler = Sampler(self.sources, CONTEXT, self.stream.seed)

    def here(self) -> list[str]:
        return [shard.content_id for shard in self.shards if self.corpus.blob(shard.content_id).is_file()]

    def hide(self, is_hidden: bool) -> None:
        """Take all shards out of the store, or put them back."""
        for shard in self.shards:
            path = self.store / BLOBS / shard.content_id
            beside = path.with_suffix(".hidden")
            if is_hidden and path.exists():
                path.rename(beside)
            if not is_hidden and beside.exists():
                beside.rename(path)

    async def arrived(self) -> None:
        self.arrivals += 1

    def lacks(self, step: int) -> list[str]:
        return self.sampler.lacking(step, BATCH)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smallest_run: Callable[..., RunSpec]) -> Home:
    monkeypatch.setattr(peer.member.stream, "LOOK_S", 0.01)
    monkeypatch.setattr(peer.member.stream, "FIRST_RETRY_S", 0.02)
    return Home(tmp_path, smallest_run)


async def until(is_so: Callable[[], object], what: str) -> None:
    async def look() -> bool:
        await asyncio.sleep(0.01)
        return bool(is_so())

    await until_async(look, lambda answer: answer, what)


def test_each_shard_is_here_when_its_step_comes_and_there_are_never_too_many(home: Home) -> None:
    async def main() -> None:
        await home.stream.begin(home.sources)
        assert len(home.here()) == 1 and not home.lacks(0)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(home.stream.follow(home.sources, home.arrived))
            seen = set[str]()
            for step in range(0, 300, 3):
                home.step = step
                await until(lambda step=step: not home.lacks(step), f"the text of step {step}")  # type: ignore[misc]
                assert len(home.here()) <= ROOM
                seen.update(home.here())
            await until(lambda: len(home.here()) == ROOM, "what comes next is fetched, too")
            following.cancel()
        assert len(seen) == len(home.shards)
        assert home.arrivals >= len(home.shards) - 1

    asyncio.run(asyncio.wait_for(main(), HANG_S))


def test_a_store_that_is_away_is_said_once_and_survived(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        await home.stream.begin(home.sources)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(home.stream.follow(home.sources, home.arrived))
            await until(lambda: len(home.here()) == ROOM, "the cache is full")
            assert home.stream.warning == ""
            home.hide(True)
            home.step = next(step for step in range(1, 500) if home.lacks(step)) - 1  # training goes on until here
            await until(lambda: home.stream.warning, "it is seen")
            assert not home.lacks(home.step) and not home.stream.is_waiting
            cause, _, cure = home.stream.warning.partition("; ")
            assert cause.startswith("no text could be fetched for") and "training goes on with what is here" in cure
            home.step += 1
            await until(lambda: home.stream.is_waiting, "training waits")
            assert home.stream.warning.startswith(f"training waits for text from {home.store.as_uri()}: ")
            home.hide(False)
            await until(lambda: not home.lacks(home.step), "text comes again")
            await until(lambda: not home.stream.warning, "that is seen, too")
            following.cancel()

    with caplog.at_level(logging.INFO), pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer.member.stream, "WAIT_S", 0.05)
        asyncio.run(asyncio.wait_for(main(), HANG_S))
    said = [record.getMessage() for record in caplog.records if record.name == "peer.member.stream"]
    assert [line.split(":")[0].split(",")[0] for line in said] == [
        "text cannot be fetched",
        f"training waits for text from {home.store.as_uri().split(':')[0]}",
        "text comes again",
    ]


def test_the_first_shard_must_be_had_and_a_later_change_is_put_off(home: Home) -> None:
    home.hide(True)
    with pytest.raises(DataError, match="is not there; name the folder of a whole corpus"):
        asyncio.run(home.stream.begin(home.sources))
    home.hide(False)
    asyncio.run(home.stream.begin(home.sources))
    home.hide(True)
    home.step = next(step for step in range(1, 500) if home.lacks(step))
    with pytest.raises(NetworkError, match="is not there"):
        asyncio.run(home.stream.begin(home.sources))


def test_what_lies_here_is_enough_to_begin_again(home: Home) -> None:
    asyncio.run(home.stream.begin(home.sources))
    home.hide(True)
    home.open()
    asyncio.run(home.stream.begin(home.sources))
    damaged = home.corpus.blob(home.here()[0])
    damaged.write_bytes(bytes(damaged.stat().st_size))
    home.open()
    with pytest.raises(DataError, match="is not there"):  # it is read before it counts
        asyncio.run(home.stream.begin(home.sources))


def test_the_position_comes_back(home: Home) -> None:
    assert home.stream.begun_at == 0
    home.stream.keep_position(77)
    home.open()
    assert home.stream.begun_at == 77
    (home.folder / FILE).write_text('{"position": -1}')
    with pytest.raises(StateError, match=r"position\.json is damaged .*delete it"):
        home.open()
    (home.folder / FILE).unlink()
    home.open()
    assert home.stream.begun_at == 0


def test_following_ends_when_it_is_begun_anew(home: Home) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(home.stream.follow(home.sources, home.arrived))
            await until(lambda: home.arrivals, "a shard")
            second = tasks.create_task(home.stream.follow(home.sources, home.arrived))
            await first
            second.cancel()

    asyncio.run(asyncio.wait_for(main(), HANG_S))


def test_what_comes_is_counted_and_waits_for_its_turn(home: Home) -> None:
    async def main() -> None:
        came, may_go = list[int](), asyncio.Event()

        async def on_bytes(count: int) -> None:
            came.append(count)
            await may_go.wait()

        home.stream.on_bytes = on_bytes
        begun = asyncio.create_task(home.stream.begin(home.sources))
        await until(lambda: came, "the first piece")
        assert not home.here()
        may_go.set()
        await begun
        assert sum(came) == sum(shard.size_bytes for shard in home.shards if shard.content_id in home.here())

    asyncio.run(asyncio.wait_for(main(), HANG_S))


def test_who_leaves_does_not_wait_for_a_fetch(home: Home) -> None:
    async def main() -> None:
        asked = asyncio.Event()

        async def on_bytes(count: int) -> None:
            asked.set()
            await asyncio.Event().wait()

        home.stream.on_bytes = on_bytes
        following = asyncio.create_task(home.stream.follow(home.sources, home.arrived))
        await asked.wait()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert not home.here()

    asyncio.run(asyncio.wait_for(main(), HANG_S))
