"""A damaged state directory starts all the same if others have what was in it; else one line says what is wrong."""

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hivemind.p2p import P2PDaemonError

from configs.errors import NetworkError, StateError
from configs.files import write_json
from configs.load import Settings, load
from configs.machine import PeerConfig
from configs.protocol import PROTOCOL_VERSION
from configs.state_format import FORMAT_FILE, STATE_FORMAT
from dht.address_book import AddressBook
from dht.identity import Identity
from peer import __version__
from peer.corpus.data import BLOBS, TOKENIZER_FILE
from peer.member.chronicle import FILE, Chronicle
from peer.member.entry import DOMAINS_FILE, HINTS_FILE, RUN_FILE, Entry, enter, saved_hints, saved_spec
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.workers.progress import Progress
from protocols.describe import Describe
from protocols.shards import Shards
from protocols.traffic import Traffic

ADDRESS = "/ip4/127.0.0.1/tcp/4001"
CONTEXT: Any = SimpleNamespace(remote_id="somebody")


class Stub:
    """Calls a service that lives in this process."""

    def __init__(self, service: Any) -> None:
        self._service = service

    async def rpc_describe(self, request: Any) -> Any:
        return await self._service.rpc_describe(request, CONTEXT)

    async def rpc_manifest(self, request: Any) -> Any:
        return self._service.rpc_manifest(request, None)

    async def rpc_chunks(self, request: Any) -> Any:
        return self._service.rpc_chunks(request, CONTEXT)


class MuteStub:
    """Calls a peer that is there and answers nothing."""

    async def rpc_describe(self, request: Any) -> Any:
        raise P2PDaemonError("stream reset")


class FakeNetwork:
    """A network of one other peer, which has `entry`, and of `mute` ones; of nobody if there is no entry."""

    def __init__(self, entry: Entry | None, mute: Sequence[str] = ()) -> None:
        self._entry, self._mute = entry, mute

    async def connect(self, addresses: Any) -> list[str]:
        if self._entry is None:
            raise NetworkError("nobody answers")
        return [*self._mute, "other"]

    def stub(self, service: Any, peer: str, run_id: str = "") -> Any:
        assert self._entry is not None
        if peer in self._mute:
            return MuteStub()
        library = self._entry.library
        if service is Shards:
            return Stub(Shards(library.lookup, Traffic()))
        tokenizer = library.tokenizer_id, len(library.tokenizer_json)
        records = self._entry.domain_records
        return Stub(Describe(self._entry.spec, tokenizer, lambda: records, dict, "0"))


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return Identity.load_or_create(tmp_path_factory.mktemp("keys") / "identity.key")


@pytest.fixture
def start(tmp_path: Path, key: Identity) -> Callable[..., Entry]:
    """Return what starts a peer in a folder."""
    texts = {name: [f"{name} {n} " * 40 for n in range(60)] for name in ("up", "down")}
    prepare_texts(texts, tmp_path / "corpus", Plan(vocab_size=300, context_length=16, shard_tokens=1000))
    plan = load("tiny").run
    assert plan is not None
    rounds = plan.rounds.model_copy(update={"tick_seconds": 1.0})
    inner = plan.inner.model_copy(update={"batch_tokens": 64})
    model = plan.model.model_copy(update={"context_length": 16})
    plan = plan.model_copy(update={"model": model, "rounds": rounds, "inner": inner})

    def start(folder: str, network: FakeNetwork, **given: Any) -> Entry:
        config = PeerConfig(state_dir=tmp_path / folder, **given)
        book = AddressBook(tmp_path / "book.json")
        book.note("12D3KooWGjMmYBVzWvJmYvKhNyQyYv5LrmPFMfQzyPKwmbVCgfNo", [ADDRESS], 1.0)
        book.peers = lambda: {"other": [ADDRESS]}  # type: ignore[method-assign]
        return asyncio.run(enter(Settings(run=plan, peer=config), key, cast(Any, network), book))

    return start


@pytest.fixture
def other(start: Callable[..., Entry], tmp_path: Path) -> Entry:
    """What the other peer of the run has, which founded it."""
    return start("other", FakeNetwork(None), data=tmp_path / "corpus")


@pytest.fixture
def again(tmp_path: Path, start: Callable[..., Entry], other: Entry) -> Callable[[bool], Entry]:
    """Return what starts again in the folder "mine", with or without the other peer."""
    other.save(tmp_path / "mine")
    (tmp_path / "mine" / "corpus" / BLOBS).mkdir(parents=True)
    (tmp_path / "mine" / "corpus" / TOKENIZER_FILE).write_bytes(other.library.tokenizer_json)
    return lambda with_other: start("mine", FakeNetwork(other if with_other else None))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("name", [DOMAINS_FILE, f"corpus/{TOKENIZER_FILE}"])
@pytest.mark.parametrize("damage", [cut_off, empty, Path.unlink])
def test_what_others_have_is_fetched_again(
    tmp_path: Path, again: Callable[[bool], Entry], name: str, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "mine" / name
    sound = again(False)
    before = path.read_bytes()
    damage(path)
    with pytest.raises(StateError, match=r"restore it, or start while another peer") as error:
        again(False)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    entry = again(True)
    assert entry.domain_records == sound.domain_records and entry.library.has_tokenizer
    entry.save(tmp_path / "mine")
    assert path.read_bytes() == before


def test_whoever_was_reached_may_describe_the_run(start: Callable[..., Entry], other: Entry) -> None:
    entry = start("third", FakeNetwork(other, mute=["mute"]), initial_peers=(ADDRESS,))
    assert entry.spec == other.spec and entry.peers == ("mute", "other") and entry.library.has_tokenizer
    with pytest.raises(NetworkError, match="stream reset"):
        start("fourth", FakeNetwork(other, mute=["mute", "other"]), initial_peers=(ADDRESS,))


def test_who_was_in_the_run_comes_back_although_nobody_has_the_time_to_describe_it(
    start: Callable[..., Entry], other: Entry, again: Callable[[bool], Entry]
) -> None:
    assert again(True).spec == other.spec
    entry = start("mine", FakeNetwork(other, mute=["mute", "other"]), initial_peers=(ADDRESS,))
    assert entry.spec == other.spec and entry.library.has_tokenizer


def test_a_blob_that_was_cut_off_is_wanted_again(tmp_path: Path, again: Callable[[bool], Entry]) -> None:
    library = again(False).library
    shard = library.domains[0].shards[0]
    path = tmp_path / "mine" / "corpus" / BLOBS / shard.content_id
    path.write_bytes(bytes(shard.size_bytes))
    assert library.path(shard) == path
    cut_off(path)
    assert library.path(shard) is None


def test_a_tokenizer_that_vanishes_is_one_line(tmp_path: Path, again: Callable[[bool], Entry]) -> None:
    library = again(False).library
    (tmp_path / "mine" / "corpus" / TOKENIZER_FILE).unlink()
    with pytest.raises(StateError, match="is missing; start again"):
        _ = library.tokenizer_json


def test_what_an_earlier_version_has_written_is_read_and_what_a_later_one_has_is_left_alone(
    tmp_path: Path, again: Callable[[bool], Entry]
) -> None:
    folder = tmp_path / "mine"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert json.loads((folder / FORMAT_FILE).read_bytes()) == {"format": STATE_FORMAT, "shoal": __version__}
    write_json(folder / FORMAT_FILE, {"format": STATE_FORMAT + 1, "shoal": "9.0"})
    with pytest.raises(StateError, match=r"written by shoal 9\.0 in format 2; .*pip install -U shoal"):
        again(True)
    del before[folder / FORMAT_FILE]
    assert all(path.read_bytes() == data for path, data in before.items())
    (folder / FORMAT_FILE).unlink()  # the first version wrote none
    assert again(True).library.has_tokenizer
    run = json.loads((folder / RUN_FILE).read_bytes())
    write_json(folder / RUN_FILE, {**run, "protocol": PROTOCOL_VERSION + 1, "a_new_key": 1})
    with pytest.raises(StateError, match=rf"{RUN_FILE}: .*the run needs {PROTOCOL_VERSION + 1}: pip install -U shoal"):
        again(True)


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"rounds": "many"}', b'{"tokens": -1}', b'{"starts": 1.5}', b"\xff"]
)
def test_counters_that_are_none_are_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StateError, match=r"is damaged .*; delete it") as error:
        Chronicle(tmp_path)
    assert str(tmp_path / FILE) in str(error.value) and "\n" not in str(error.value)


def test_a_run_that_is_damaged_comes_back_as_advised(
    tmp_path: Path, start: Callable[..., Entry], other: Entry, again: Callable[[bool], Entry]
) -> None:
    network, address = FakeNetwork(other), f"{ADDRESS}/p2p/other"
    assert again(True).spec == other.spec
    cut_off(tmp_path / "mine" / RUN_FILE)
    for given in ({}, {"initial_peers": (address,)}):
        with pytest.raises(StateError, match="move it away and join again by the address of another peer"):
            start("mine", network, **given)
    (tmp_path / "mine" / RUN_FILE).unlink()
    assert start("mine", network, initial_peers=(address,)).spec == other.spec


def test_counters_come_back(tmp_path: Path) -> None:
    first = Chronicle(tmp_path)
    first.trained(Progress(tokens=70))
    first.sub_model = "expert.1"
    first.save()
    second = Chronicle(tmp_path)
    assert (second.tokens, second.sub_model, second.restarts) == (70, "expert.1", 1)


def test_other_files_that_are_damaged_are_one_line(tmp_path: Path) -> None:
    (tmp_path / RUN_FILE).write_bytes(b"{}")
    with pytest.raises(StateError, match="move it away and join again"):
        saved_spec(tmp_path)
    (tmp_path / HINTS_FILE).write_bytes(b'{"threads": "many"}')
    with pytest.raises(StateError, match="delete it"):
        saved_hints(tmp_path)
