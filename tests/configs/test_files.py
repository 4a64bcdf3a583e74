"""Every file of a peer's own is written in one way, and read through one door."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.content import chunk_hashes
from dht.address_book import AddressBook
from dht.identity import Identity
from peer.http.local import announce_daemon
from protocols.sinks import FileSink

NAMES = ("address_book.json", "identity.key", "daemon.json", "blob")


def note_peers(folder: Path) -> Path:
    AddressBook(folder / "address_book.json").save()
    return folder / "address_book.json"


def make_key(folder: Path) -> Path:
    Identity.load_or_create(folder / "identity.key")
    return folder / "identity.key"


def announce(folder: Path) -> Path:
    announce_daemon(folder, "http://127.0.0.1:1/", "me")
    return folder / "daemon.json"


def finish(folder: Path) -> Path:
    with FileSink(folder / "blob") as sink:
        sink.start(chunk_hashes(b"whole"), 5)
        sink.write(0, b"whole")
        sink.finish()
    return folder / "blob"


@pytest.mark.parametrize("write", [note_peers, make_key, announce, finish])
def test_content_then_name_are_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Path]
) -> None:
    """A power cut after it leaves the file as it is: its bytes are synced before it has its name, its folder after."""
    fsync, kinds = os.fsync, list[tuple[bool, bool]]()

    def watch(descriptor: int) -> None:
        fsync(descriptor)
        is_named = any((tmp_path / name).exists() for name in NAMES)
        kinds.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), is_named))

    monkeypatch.setattr(os, "fsync", watch)
    path = write(tmp_path)
    assert kinds == [(False, False), (True, True)]
    assert list(tmp_path.iterdir()) == [path]
