"""What a node of the DHT keeps, and is asked, is bounded for each signer and in all."""

import asyncio
import time
from pathlib import Path

import pytest
from hivemind.dht.routing import DHTID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PHandlerError
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer

from benchmarks.patience import HANG_S
from dht import storage
from dht.network import open_network
from dht.records import GroupRecord, group_key, sign_record
from dht.storage import MAX_KEYS, BoundedStorage

TICK_S = 30.0


def keys(count: int) -> list[DHTID]:
    return [DHTID.generate(source=str(number)) for number in range(count)]


def test_a_signer_has_only_so_many_bytes_and_may_renew_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES_OF_SIGNER", 1000)
    kept, soon = BoundedStorage(), time.time() + 60
    stored = [kept.store_subkey(key, "liar", bytes(100), soon) for key in keys(15)]
    assert stored == [True] * 10 + [False] * 5
    assert kept.store_subkey(keys(1)[0], "liar", bytes(100), soon + 1)
    assert not kept.store_subkey(keys(1)[0], "liar", bytes(100), soon)  # older than what is there
    assert kept.store_subkey(keys(15)[-1], "honest", bytes(100), soon)


def test_records_are_counted_until_they_expire() -> None:
    kept, now = BoundedStorage(), time.time()
    first, second = keys(2)
    for signer in ("ann", "bob"):
        assert kept.store_subkey(first, signer, b"", now + 60)
        assert kept.store_subkey(first, signer, b"new", now + 61)
    assert kept.store_subkey(second, "ann", b"", now + 0.05)
    assert kept.records() == 3
    time.sleep(0.06)
    assert kept.records() == 2


def test_what_has_expired_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES_OF_SIGNER", 1000)
    kept, now = BoundedStorage(), time.time()
    for key in keys(10):
        assert kept.store_subkey(key, "peer", bytes(100), now + 60)
    monkeypatch.setattr(storage, "get_dht_time", lambda: now + 61)
    assert kept.store_subkey(keys(11)[-1], "peer", bytes(100), now + 120)


def test_many_signers_together_have_only_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES", 1000)
    kept, soon, key = BoundedStorage(), time.time() + 60, keys(1)[0]
    stored = [kept.store_subkey(key, f"peer{number}", bytes(90), soon) for number in range(20)]
    assert sum(stored) == 11
    assert kept.store_subkey(key, "peer0", bytes(90), soon + 1)  # what is there may be renewed
    assert not kept.store_subkey(key, "peer0", bytes(200), soon + 2)


def test_whoever_is_known_is_not_crowded_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from a key's dictionary and not from the node, by however many names; nor by another who is known."""
    monkeypatch.setattr(storage, "MAX_BYTES_OF_KEY", 1000)
    monkeypatch.setattr(storage, "MAX_BYTES", 1500)
    known = {f"friend{number}" for number in range(20)}
    kept, soon, (members, other) = BoundedStorage(known.__contains__), time.time() + 60, keys(2)
    assert sum(kept.store_subkey(members, f"name{number}", bytes(100), soon) for number in range(420)) == 10
    assert sum(kept.store_subkey(other, f"name{number}", bytes(100), soon) for number in range(420)) == 5
    stored = [kept.store_subkey(members, f"friend{number}", bytes(100), soon) for number in range(12)]
    assert stored == [True] * 10 + [False] * 2
    found = kept.get(members)
    assert found is not None and {name for name, _ in found.value.items()} == {f"friend{n}" for n in range(10)}
    assert not kept.store_subkey(members, "name1", bytes(100), soon)
    assert kept.store_subkey(other, "friend1", bytes(100), soon)
    assert len(kept.get(other).value) == 5  # type: ignore[union-attr]  # one name had to go


def test_whoever_is_known_and_has_too_much_already_costs_nobody_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES_OF_SIGNER", 500)
    monkeypatch.setattr(storage, "MAX_BYTES_OF_KEY", 1000)
    kept, soon, key = BoundedStorage({"friend"}.__contains__), time.time() + 60, keys(1)[0]
    assert all(kept.store_subkey(key, f"name{number}", bytes(100), soon) for number in range(10))
    assert not kept.store_subkey(key, "friend", bytes(501), soon)
    assert kept.records() == 10
    assert kept.store_subkey(key, "friend", bytes(500), soon)
    assert kept.records() == 6


def test_one_question_and_one_flood_cost_a_node_only_so_much(
    identity_paths: list[Path], run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES_OF_SIGNER", 5000)

    async def main() -> None:
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as one,
            open_network(identity_paths[1], host="127.0.0.1") as two,
        ):
            await one.open_dht([], run_id, TICK_S)
            await two.open_dht(await two.connect(await one.addresses()), run_id, TICK_S)
            assert one.node is not None and two.node is not None
            stub = two.node.protocol.get_stub(one.p2p.peer_id)
            names = [key.to_bytes() for key in keys(MAX_KEYS + 1)]
            peer = two.node.protocol.node_info
            for many, is_answered in ((names[1:], True), (names, False)):
                request = dht_pb2.FindRequest(keys=many, peer=peer)
                if is_answered:
                    assert len((await stub.rpc_find(request, timeout=HANG_S)).results) == MAX_KEYS
                    continue
                with pytest.raises(P2PHandlerError, match="at most 64 are looked at"):
                    await stub.rpc_find(request, timeout=HANG_S)
            # A flood of well-formed records of one identity: the node keeps its share and goes on.
            now, taken = time.time(), 0
            for tick in range(20):
                record = GroupRecord(run_id=run_id, block="model", tick=tick, prefix="", holders=1.0)
                data = sign_record(two.identity, "group", record, now)
                key = DHTID.generate(source=group_key(run_id, "model", tick, ""))
                (stored,) = await two.node.protocol.call_store(
                    one.p2p.peer_id, [key], [MSGPackSerializer.dumps(data)], [now + 60], subkeys=[two.peer_id]
                )
                taken += bool(stored)
            assert taken == 5000 // len(data)

    asyncio.run(asyncio.wait_for(main(), HANG_S))
