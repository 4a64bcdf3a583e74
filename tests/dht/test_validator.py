import msgpack
import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.dht.validation import DHTRecord
from hivemind.utils import MSGPackSerializer

from configs.corpus import DomainInfo, ShardInfo
from configs.errors import PeerError
from dht import validator
from dht.identity import Identity
from dht.records import (
    MIN_LIFETIME_S,
    DomainRecord,
    GroupRecord,
    MemberPlace,
    MemberRecord,
    domain_key,
    member_key,
    open_envelope,
    open_record,
    sign_record,
)
from dht.validator import RecordValidator

NOW = 1_000_000.0
TICK_S = 20.0


def entry(identity: Identity, run_id: str, **changes: object) -> DHTRecord:
    """A good entry of the DHT, as a node sees it, with some of its parts changed."""
    parts = {
        "raw_key": member_key(run_id),
        "subkey": identity.peer_id,
        "value": sign_record(identity, "member", MemberRecord(run_id=run_id), NOW),
        "expiration_time": NOW + 60.0,
        **changes,
    }
    return DHTRecord(
        DHTID.generate(source=parts["raw_key"]).to_bytes(),
        MSGPackSerializer.dumps(parts["subkey"]),
        MSGPackSerializer.dumps(parts["value"]),
        parts["expiration_time"],
    )


def test_good_records_are_accepted_whatever_the_clock_says(identities: list[Identity], run_id: str) -> None:
    assert RecordValidator(run_id, TICK_S).validate(entry(identities[0], run_id))  # NOW is long ago


def test_nodes_of_all_versions_accept_the_same_records(
    identities: list[Identity], run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is in them but for what the key follows from: whether they can be read is not a node's question."""

    class Strange(MemberPlace):
        a_new_key: int = 0
        holdings: str = ""

    for version in ((1, 1), (2, 1), (9, 9)):
        with monkeypatch.context() as patch:
            patch.setattr("dht.records.PROTOCOL_VERSION", version[0])
            patch.setattr("dht.records.OLDEST_PROTOCOL", version[1])
            strange = Strange(run_id=run_id, a_new_key=1, holdings="everything")
            value = sign_record(identities[0], "member", strange, NOW)
        assert RecordValidator(run_id, TICK_S).validate(entry(identities[0], run_id, value=value))
        with pytest.raises(PeerError):
            open_record(value, "member", MemberRecord)


def test_a_regular_value_is_refused(identities: list[Identity], run_id: str) -> None:
    assert not RecordValidator(run_id, TICK_S).validate(entry(identities[0], run_id, subkey=None))
    good = entry(identities[0], run_id)
    assert not RecordValidator(run_id, TICK_S).validate(DHTRecord(good.key, b"", good.value, good.expiration_time))


def test_the_raw_key_is_compared_with_the_sha1_that_a_node_sees(identities: list[Identity], run_id: str) -> None:
    validator = RecordValidator(run_id, TICK_S)
    assert not validator.validate(entry(identities[0], run_id, raw_key=domain_key(run_id, 0)))
    assert not validator.validate(entry(identities[0], run_id, raw_key=member_key("f" * 32)))


def test_another_peer_s_subkey_is_refused(identities: list[Identity], run_id: str) -> None:
    assert not RecordValidator(run_id, TICK_S).validate(entry(identities[0], run_id, subkey=identities[1].peer_id))


def test_another_run_is_refused(identities: list[Identity], run_id: str) -> None:
    assert not RecordValidator("f" * 32, TICK_S).validate(entry(identities[0], run_id))


def test_a_far_expiration_is_refused(identities: list[Identity], run_id: str) -> None:
    validator = RecordValidator(run_id, TICK_S)
    far = NOW + MemberRecord.lifetime_s(TICK_S)
    assert validator.validate(entry(identities[0], run_id, expiration_time=far))
    for expiration in (far + 1, float("inf"), float("nan")):
        assert not validator.validate(entry(identities[0], run_id, expiration_time=expiration))


def test_an_old_record_that_is_stored_again_does_not_outlive_the_newer_ones(
    identities: list[Identity], run_id: str
) -> None:
    """Whatever expiration it is given, the next record expires later, and so is taken in its place."""
    validator = RecordValidator(run_id, TICK_S)
    renewed = NOW + 1.0
    latest = renewed + MemberRecord.lifetime_s(TICK_S)
    assert not validator.validate(entry(identities[0], run_id, expiration_time=latest))
    value = sign_record(identities[0], "member", MemberRecord(run_id=run_id), renewed)
    assert validator.validate(entry(identities[0], run_id, value=value, expiration_time=latest))
    assert MemberRecord.lifetime_s(0.1) == GroupRecord.lifetime_s(0.1) == MIN_LIFETIME_S


def test_what_is_never_in_the_dht_is_refused(identities: list[Identity], run_id: str) -> None:
    shard = ShardInfo(content_id="0" * 64, tokens=1, size_bytes=2)
    domain = DomainInfo(name="fish", shards=(shard,), heldout=shard, counts=shard, is_public=True)
    value = sign_record(identities[0], "domain", DomainRecord(run_id=run_id, index=0, domain=domain), NOW)
    assert not RecordValidator(run_id, TICK_S).validate(
        entry(identities[0], run_id, value=value, raw_key=domain_key(run_id, 0))
    )


def test_other_values_are_refused(identities: list[Identity], run_id: str) -> None:
    validator = RecordValidator(run_id, TICK_S)
    for value in ("text", 1, None, b"", b"\xc1", bytes(70_000), {"a": 1}, [b"x"], msgpack.ExtType(0x50, b"")):
        assert not validator.validate(entry(identities[0], run_id, value=value))


def nested(depth: int) -> bytes:
    """Return so many extensions, each of which is the only thing in the next."""
    data = b"\xc0"
    for _ in range(depth):
        size = len(data) + 1
        code = b"\xc8" + size.to_bytes(2, "big") if size > 255 else b"\xc7" + size.to_bytes(1, "big")
        data = code + bytes([MSGPackSerializer._TUPLE_EXT_TYPE_CODE]) + b"\x91" + data
    return data


def test_extensions_in_one_another_are_refused_before_they_fill_the_stack() -> None:
    with pytest.raises(ValueError, match="in one another"):
        MSGPackSerializer.loads(nested(10))
    with pytest.raises(ValueError, match="in one another"):  # without a bound this ends the process
        MSGPackSerializer.loads(nested(3600))
    assert MSGPackSerializer.loads(nested(2)) == ((None,),)
    dictionary = DictionaryDHTValue()
    dictionary.store("peer", b"record", NOW)
    assert MSGPackSerializer.loads(MSGPackSerializer.dumps(dictionary)).packb() == dictionary.packb()


def test_of_each_place_the_newest_entries_are_remembered_and_no_more(
    identities: list[Identity], run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record is renewed every other tick, for months."""
    known: dict[object, object] = {}
    monkeypatch.setattr(validator, "_known", known)
    monkeypatch.setattr(validator, "KEPT_PLACES", 2)
    opened = []
    monkeypatch.setattr(validator, "open_envelope", lambda data: opened.append(data) or open_envelope(data))

    def made(identity: Identity, issued: float) -> DHTRecord:
        value = sign_record(identity, "member", MemberRecord(run_id=run_id), issued)
        return entry(identity, run_id, value=value, expiration_time=issued + 60.0)

    told = [made(identities[0], NOW + number) for number in range(10)]
    for record in (*told, told[9], told[8], told[9]):  # the last two of them are repeated by others
        assert RecordValidator(run_id, TICK_S).validate(record)
    assert len(opened) == 10 and sum(map(len, known.values())) == 2  # type: ignore[arg-type]
    assert RecordValidator(run_id, TICK_S).validate(told[7]) and len(opened) == 11
    for identity in identities[:3]:
        assert RecordValidator(run_id, TICK_S).validate(made(identity, NOW))
    assert len(known) == 2
