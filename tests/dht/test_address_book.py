from pathlib import Path

import pytest
from hivemind.p2p import PeerID

from configs.errors import StateError
from dht.address_book import MAX_PEERS, AddressBook

PEERS = [PeerID(b"\x12\x20" + index.to_bytes(32, "big")).to_base58() for index in range(MAX_PEERS + 10)]


def at(host: str, peer_id: str) -> list[str]:
    return [f"/ip4/{host}/tcp/1/p2p/{peer_id}"]


def test_what_was_noted_is_found_in_the_morning(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "state" / "peers.json")
    assert book.peers() == {}
    assert book.note(PEERS[0], at("1.2.3.4", PEERS[0]), now=1.0)
    assert book.note(PEERS[1], at("1.2.3.5", PEERS[1]), now=3.0)
    assert not book.note(PEERS[0], at("1.2.3.4", PEERS[0]), now=2.0)
    book.save()
    assert list(AddressBook(tmp_path / "state" / "peers.json").peers().items()) == [
        (PEERS[1], at("1.2.3.5", PEERS[1])),
        (PEERS[0], at("1.2.3.4", PEERS[0])),
    ]
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["peers.json"]


def test_the_oldest_make_room(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "peers.json")
    for seen, peer in enumerate(PEERS):
        book.note(peer, at("1.2.3.4", peer), now=float(seen))
    kept = book.peers()
    assert len(kept) == MAX_PEERS
    assert next(iter(kept)) == PEERS[-1]


def test_what_strangers_call_an_address_cannot_spoil_the_next_start(tmp_path: Path) -> None:
    book = AddressBook(tmp_path / "peers.json")
    book.note(PEERS[0], ["junk", *at("1.2.3.4", PEERS[1]), *at("1.2.3.4", PEERS[0])], now=1.0)
    book.note(PEERS[1], ["/ip4/1.2.3.4"], now=2.0)
    book.note(PEERS[2], ["/", f"/ip4/1.2.3.4/tcp/1/noise/p2p/{PEERS[2]}"], now=2.0)
    assert book.peers() == {PEERS[0]: at("1.2.3.4", PEERS[0])}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"peers": {"x": {"addresses": ["a"], "seen": 1}}}', "\x00"])
def test_a_damaged_book_begins_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "peers.json"
    path.write_text(content)
    book = AddressBook(path)
    assert book.peers() == {}
    book.save()
    assert AddressBook(path).peers() == {}


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot write"):
        AddressBook(tmp_path / "file" / "peers.json").save()
