"""Peers of other protocols are remembered with the reason, as long as their records are fresh."""

import pytest

from dht.apart import MAX_APART, Apart
from dht.identity import Identity
from dht.records import MemberRecord, sign_record


def signed(identity: Identity, run_id: str, issued: float) -> bytes:
    return sign_record(identity, "member", MemberRecord(run_id=run_id), issued)


def test_the_newest_word_of_a_peer_counts(identities: list[Identity], run_id: str) -> None:
    apart, (one, other) = Apart(), identities[:2]
    apart.note(one.peer_id, signed(one, run_id, 50.0), "too new", 100.0)
    assert apart.since(50.0) == {one.peer_id: "too new"} and apart.since(50.1) == {}
    apart.understood(one.peer_id, 49.0)  # an old record that is told again
    apart.note(one.peer_id, signed(one, run_id, 40.0), "older", 100.0)
    assert apart.since(0.0) == {one.peer_id: "too new"}
    apart.understood(one.peer_id, 51.0)
    assert apart.since(0.0) == {}
    apart.note(one.peer_id, signed(one, run_id, 100.1), "of the future", 100.0)
    apart.note(one.peer_id, signed(other, run_id, 50.0), "another's", 100.0)
    apart.note(one.peer_id, b"no record", "nothing", 100.0)
    assert apart.since(0.0) == {}


def test_they_are_bounded(identities: list[Identity], run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dht.apart.MAX_APART", 2)
    assert MAX_APART > 2
    apart = Apart()
    for identity in identities[:3]:
        apart.note(identity.peer_id, signed(identity, run_id, 50.0), "too new", 100.0)
    assert set(apart.since(0.0)) == {identity.peer_id for identity in identities[1:3]}
