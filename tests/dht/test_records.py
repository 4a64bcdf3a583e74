import random
from collections.abc import Callable

import msgpack
import pytest
from pydantic import ValidationError

from configs.corpus import DomainInfo, ShardInfo
from configs.errors import PeerError, ProtocolError
from configs.protocol import PROTOCOL_VERSION
from dht.identity import Identity
from dht.records import (
    DomainRecord,
    GroupRecord,
    MemberRecord,
    Record,
    Report,
    group_key,
    member_key,
    open_entries,
    open_envelope,
    open_record,
    sign_record,
)

DIGEST = "ab" * 32


def member(run_id: str, **fields: object) -> MemberRecord:
    return MemberRecord.model_validate({"run_id": run_id, **fields})


def full_member(run_id: str) -> MemberRecord:
    return member(
        run_id,
        addresses=["/ip4/1.2.3.4/tcp/4000/p2p/" + "Q" * 46] * 16,
        holdings={"trunk": (2, 10), "expert.3": (4, 10)},
        sub_model="expert.3",
        keeps={f"expert.{k}": 7 for k in range(64)},
        report=Report(state="training", loss=2.5, tokens=10**12, digests={"trunk": [(k, DIGEST) for k in range(5)]}),
    )


def domain(run_id: str, shards: int = 1) -> DomainRecord:
    shard = ShardInfo(content_id=DIGEST, tokens=10, size_bytes=20)
    info = DomainInfo(name="law", shards=(shard,) * shards, heldout=shard, counts=shard, is_public=True)
    return DomainRecord(run_id=run_id, index=2, domain=info)


def test_records_come_back_as_they_were_signed(identities: list[Identity], run_id: str) -> None:
    record = full_member(run_id)
    opened = open_record(sign_record(identities[0], "member", record, 1000.5), "member", MemberRecord)
    assert opened == (record, identities[0].peer_id, 1000.5)
    largest = domain(run_id, shards=256)
    assert open_record(sign_record(identities[1], "domain", largest, 1.0), "domain", DomainRecord).record == largest


def test_an_entry_counts_where_its_signer_may_write_it_and_not_before_its_time(
    identities: list[Identity], run_id: str
) -> None:
    first, second = identities[0], identities[1]
    data = sign_record(first, "member", member(run_id), 50.0)

    def opened(found: dict[str, bytes], limit: int = 2, run_id: str = run_id, latest: float = 50.0) -> set[str]:
        return set(open_entries(found, limit, "member", MemberRecord, member_key(run_id), latest))

    assert opened({first.peer_id: data, second.peer_id: b"no record"}) == {first.peer_id}
    assert not opened({second.peer_id: data})
    assert not opened({first.peer_id: data}, run_id="f" * 32)
    assert not opened({first.peer_id: data}, latest=49.9)
    both = {first.peer_id: data, second.peer_id: sign_record(second, "member", member(run_id), 50.0)}
    assert opened(both) == set(both) and opened(both, limit=1) == {min(both)}


def test_any_changed_byte_is_noticed(identities: list[Identity], run_id: str) -> None:
    data = sign_record(identities[0], "member", member(run_id, sub_model="model"), 5.0)
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(PeerError):
            open_record(bytes(changed), "member", MemberRecord)


@pytest.fixture
def sign(monkeypatch: pytest.MonkeyPatch, identities: list[Identity], run_id: str) -> Callable[..., bytes]:
    """Return what signs a member's record as another version of Shoal does, with `more` in it."""

    def sign(protocol: int, oldest: int, model: type[Record] = MemberRecord, **more: object) -> bytes:
        class Later(model):  # type: ignore[valid-type,misc]
            a_new_key: dict[str, int] | None = None

        with monkeypatch.context() as patch:
            patch.setattr("dht.records.PROTOCOL_VERSION", protocol)
            patch.setattr("dht.records.OLDEST_PROTOCOL", oldest)
            kind = "member" if model is MemberRecord else "domain"
            fields = more if model is MemberRecord else domain(run_id).model_dump() | more
            return sign_record(identities[0], kind, Later(**{"run_id": run_id, **fields}), 5.0)

    return sign


def test_what_a_later_protocol_adds_to_a_record_is_passed_over_and_nothing_else(sign: Callable[..., bytes]) -> None:
    def opened(*version: int, **more: object) -> MemberRecord:
        return open_record(sign(*version, **more), "member", MemberRecord).record

    assert opened(PROTOCOL_VERSION + 1, 1, sub_model="m", a_new_key={"x": 1}).sub_model == "m"
    assert opened(PROTOCOL_VERSION + 1, PROTOCOL_VERSION).protocol == PROTOCOL_VERSION + 1
    with pytest.raises(PeerError, match="a_new_key: Extra inputs"):
        opened(PROTOCOL_VERSION, 1, a_new_key={"x": 1})
    with pytest.raises(ProtocolError, match=r"speaks protocol 2 to 3, this peer speaks 1: update this one"):
        opened(PROTOCOL_VERSION + 2, PROTOCOL_VERSION + 1)
    with pytest.raises(PeerError, match="oldest 2 is later than protocol 1"):
        opened(1, 2)


def test_what_an_earlier_protocol_says_is_read_as_long_as_it_is_spoken(
    sign: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, lasting = sign(1, 1), sign(1, 1, DomainRecord)
    monkeypatch.setattr("configs.protocol.PROTOCOL_VERSION", 3)
    assert open_record(old, "member", MemberRecord).record.protocol == 1
    monkeypatch.setattr("configs.protocol.OLDEST_PROTOCOL", 2)
    with pytest.raises(ProtocolError, match=r"speaks protocol 1, this peer speaks 2 to 3: update that one"):
        open_record(old, "member", MemberRecord)
    assert open_record(lasting, "domain", DomainRecord)  # nobody needs to talk to who wrote it
    with pytest.raises(ProtocolError, match=r"speaks protocol 3, .* needs 4: pip install -U shoal"):
        open_record(sign(4, 4, DomainRecord), "domain", DomainRecord)


def test_a_record_of_the_first_protocol_has_the_bytes_it_always_had(identities: list[Identity], run_id: str) -> None:
    signed = open_envelope(sign_record(identities[0], "member", member(run_id, sub_model="m"), 5.0))
    assert signed.payload == f'{{"run_id":"{run_id}","sub_model":"m"}}'.encode()


def test_a_record_of_another_kind_or_signer_is_refused(identities: list[Identity], run_id: str) -> None:
    data = sign_record(identities[0], "domain", domain(run_id), 5.0)
    with pytest.raises(PeerError, match="a domain record stands where a member"):
        open_record(data, "member", MemberRecord)
    fields = open_envelope(data).model_dump() | {"peer_id": identities[1].peer_id}
    with pytest.raises(PeerError, match="wrong signature"):
        open_record(msgpack.packb(fields), "domain", DomainRecord)


def test_noise_raises_only_peer_errors(identities: list[Identity], run_id: str) -> None:
    noise = random.Random(0)
    samples = [noise.randbytes(noise.randrange(200)) for _ in range(300)]
    nested = b"\x81\xa4kind" * 5000 + b"\xc0"
    deep = b"\x91" * 20_000
    for data in [*samples, nested, deep, b"", msgpack.packb({"kind": "member"}), bytes(100_000)]:
        with pytest.raises(PeerError):
            open_record(data, "member", MemberRecord)


@pytest.mark.parametrize(
    "fields",
    [
        {"holdings": {"trunk": (-1, 5)}},
        {"holdings": {f"b.{k}": (0, 1) for k in range(65)}},
        {"holdings": {"../x": (0, 1)}},
        {"addresses": ["/ip4/1.2.3.4"] * 17},
        {"addresses": ["a" * 257]},
        {"keeps": {f"b.{k}": 0 for k in range(257)}},
        {"is_leaving": 1},
        {"sub_model": 3},
        {"unknown": 1},
        {"report": {"loss": float("nan")}},
        {"report": {"digests": {"b": [(0, DIGEST)] * 6}}},
    ],
)
def test_fields_are_strict_and_bounded(run_id: str, fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        member(run_id, **fields)


def test_a_record_too_large_is_not_signed(identities: list[Identity], run_id: str) -> None:
    keeps = {f"{k:03d}" + "x" * 60: 1 for k in range(256)}
    with pytest.raises(ValueError, match="exceeds 16384"):
        sign_record(identities[0], "member", member(run_id, keeps=keeps), 1.0)


def test_a_bucket_s_record_lies_under_run_block_tick_and_prefix(identities: list[Identity], run_id: str) -> None:
    record = GroupRecord(run_id=run_id, block="model", tick=7, prefix="01", holders=20.5)
    assert record.key == group_key(run_id, "model", 7, "01") == f"shoal/{run_id}/group/model/7/01"
    opened = open_record(sign_record(identities[0], "group", record, 1.0), "group", GroupRecord)
    assert opened == (record, identities[0].peer_id, 1.0)
    with pytest.raises(ValidationError):
        GroupRecord(run_id=run_id, block="model", tick=7, prefix="02", holders=20.5)
    with pytest.raises(ValidationError):
        GroupRecord(run_id=run_id, block="model", tick=7, prefix="0", holders=0.0)
