"""What a machine was told at one start of a daemon counts at the next, and the command says so."""

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

import peer.daemon
import peer.workers.ranks
from configs.errors import StateError
from configs.files import write_file, write_json
from configs.kept import MACHINE_FILE, to_keep
from configs.load import PRESETS, Settings, load
from configs.machine import NO_HINTS, Hints, PeerConfig
from dht.address_book import AddressBook
from dht.identity import Identity
from peer.commands.main import join, main, start
from peer.commands.options import PEER_OPTIONS
from peer.member.entry import HINTS_FILE, RUN_FILE, Entry, enter, saved_hints
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

ADDRESS = "/ip4/203.0.113.7/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
Command = Callable[..., PeerConfig]


@pytest.fixture
def shoal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Command]:
    """Return a function that runs a command up to the daemon, and returns what that is told.

    The daemon itself is a fake, which writes what the real one does when it has begun.
    """
    told: list[Settings] = []

    def begin(settings: Settings) -> None:
        told.append(settings)
        write_file(settings.peer.state_dir / RUN_FILE, b"{}")
        write_json(settings.peer.state_dir / MACHINE_FILE, to_keep(settings))

    def run(*arguments: str) -> PeerConfig:
        assert main([*arguments, "--state-dir", str(tmp_path / "state")]) == 0
        return told.pop().peer

    monkeypatch.setattr(peer.daemon, "run", begin)
    monkeypatch.setattr(peer.workers.ranks, "preload", list)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").write_text((PRESETS / "tiny.toml").read_text() + "\n[peer]\nthreads = 1\n")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield run
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "corpus.json").write_text("{}")
    return folder


def test_what_a_founder_was_told_comes_back(shoal: Command, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data", "corpus", "--port", "4001", "--threads", "2", "--private", "--up-mbit", "20", "--device", "cpu"]
    first = shoal("start", "--config", "tiny", *given)
    assert "kept settings" not in capsys.readouterr().err
    again = shoal("start")
    assert again == first.model_copy(update={"data": corpus})
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"data {corpus}, devices cpu, port 4001, private yes, threads 2, up_mbit 20.0" in said
    assert f"(from {again.state_dir / MACHINE_FILE})" in said
    back = shoal("join", ADDRESS)
    assert back == again.model_copy(update={"initial_peers": (ADDRESS,)})
    assert shoal("start") == again  # the address is for one start


def test_what_is_replaced_is_said_and_kept(shoal: Command, capsys: pytest.CaptureFixture[str]) -> None:
    shoal("start", "--config", "tiny", "--port", "4001", "--threads", "2", "--no-private")
    capsys.readouterr()
    assert shoal("start", "--config", "tiny", "--port", "4002").threads == 1
    said = capsys.readouterr().err
    assert ": private no; --port 4002 replaces 4001; tiny's threads 1 replaces 2\n" in said
    assert shoal("start").port == 4002


def test_it_is_forgotten_with_the_file(shoal: Command, tmp_path: Path) -> None:
    shoal("start", "--config", "tiny", "--port", "4001", "--host", "127.0.0.1")
    kept = tmp_path / "state" / MACHINE_FILE
    values = json.loads(kept.read_text())
    assert values == {"host": "127.0.0.1", "port": 4001, "threads": 1}
    del values["port"]
    kept.write_text(json.dumps(values))
    assert (shoal("start").port, shoal("start").host) == (0, "127.0.0.1")
    kept.unlink()
    assert shoal("start").model_fields_set == {"state_dir"}


def test_text_stays_private_unless_it_is_said(shoal: Command, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shoal("start", "--config", "tiny", "--data", "corpus", "--private")
    assert shoal("start", "--data", str(corpus)).private
    assert not shoal("start", "--no-private").private


def test_a_key_of_a_later_version_stops_nobody(
    shoal: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shoal("start", "--config", "tiny")
    write_json(tmp_path / "state" / MACHINE_FILE, {"port": 4001, "a_new_key": 1})
    assert shoal("start").port == 4001
    said = capsys.readouterr().err
    assert " WARN" in said and said.count("a_new_key") == 1
    assert json.loads((tmp_path / "state" / MACHINE_FILE).read_text()) == {"port": 4001, "a_new_key": 1}


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ('{"data": "/gone"}', 2, "keeps /gone as this machine's data, but there is no prepared corpus any more"),
        ('{"private": true}', 2, "or say --no-private"),
        ('{"port": -1}', 1, "port = -1"),
        ("{", 1, "is damaged"),
    ],
)
def test_what_cannot_be_taken_up_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, code: int, says: str
) -> None:
    (tmp_path / MACHINE_FILE).write_text(content)
    assert main(["start", "--config", "tiny", "--state-dir", str(tmp_path)]) == code
    said = capsys.readouterr().err
    assert said.startswith("shoal: ") and said.count("\n") == 1 and says in said
    assert (tmp_path / MACHINE_FILE).read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == [MACHINE_FILE]


def test_each_option_of_a_daemon_is_a_setting() -> None:
    assert PEER_OPTIONS.keys() <= PeerConfig.model_fields.keys()
    for command in (start, join):
        assert PEER_OPTIONS.keys() < inspect.signature(command).parameters.keys()


def entry(hints: Hints) -> Entry:
    plan = load("tiny").run
    assert plan is not None
    return Entry(cast(Any, plan), (b"signed",), cast(Any, None), (), False, hints=hints)


def test_hints_are_kept_with_the_run(tmp_path: Path) -> None:
    entry(NO_HINTS).save(tmp_path)
    assert not (tmp_path / HINTS_FILE).exists() and saved_hints(tmp_path) == NO_HINTS
    entry(Hints(threads=1, copies=2)).save(tmp_path)
    assert saved_hints(tmp_path) == Hints(threads=1, copies=2)
    assert json.loads((tmp_path / HINTS_FILE).read_text()) == {"threads": 1, "copies": 2}


@pytest.mark.parametrize("content", ["{", '{"threads": 4096}', '{"threads": "1"}', "[]"])
def test_damaged_hints_are_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / HINTS_FILE).write_text(content)
    with pytest.raises(StateError, match=HINTS_FILE) as error:
        saved_hints(tmp_path)
    assert "\n" not in str(error.value)


def test_who_founds_and_goes_on_suggests_what_the_preset_said(tmp_path: Path) -> None:
    texts = {"cod": [f"cod {number} swims " * 20 for number in range(20)]}
    prepare_texts(texts, tmp_path / "corpus", Plan(vocab_size=300, context_length=32))
    preset = tmp_path / "mine.toml"
    tiny = (PRESETS / "tiny.toml").read_text().replace("context_length = 128", "context_length = 32")
    preset.write_text(tiny.replace("tick_steps = 3", "tick_seconds = 3.0") + "\n[peer]\nthreads = 1\n")
    founding = load(str(preset), state_dir=tmp_path / "state", data=tmp_path / "corpus", threads=8)
    (tmp_path / "state").mkdir()
    identity = Identity.load_or_create(tmp_path / "state" / "identity.key")
    for settings in (founding, load(state_dir=tmp_path / "state", data=tmp_path / "corpus")):
        book = AddressBook(tmp_path / "state" / "address_book.json")
        entered = asyncio.run(enter(settings, identity, cast(Any, None), book))
        assert entered.hints == Hints(threads=1) and entered.is_founder is (settings is founding)
        entered.save(tmp_path / "state")


def test_what_the_founder_suggests_is_said_where_it_counts(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level("INFO", logger="peer.member.entry")
    joined = entry(Hints(threads=1, copies=2))
    settings = load(state_dir=tmp_path, threads=4)
    advised = joined.advised(settings).peer
    assert (advised.threads, advised.copies) == (4, 2)
    assert caplog.messages == ["the run's founder suggests copies 2"]
    assert to_keep(settings) == {"threads": 4}
    caplog.clear()
    assert replace(joined, hints=NO_HINTS).advised(settings) == settings and not caplog.messages
