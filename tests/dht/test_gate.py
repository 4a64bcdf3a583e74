"""Real libp2p peers of a closed run, and somebody who was not invited."""

import asyncio
import time
import typing
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hivemind.dht.protocol import DHTProtocol
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2PContext, P2PHandlerError, PeerID, ServicerBase
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer

from benchmarks.patience import HANG_S
from configs.errors import NetworkError
from dht.admission import HAS_ENDED, HOW_TO_JOIN, Admission
from dht.gate import FOR_TRAINING, Bytes, refusal
from dht.identity import Identity
from dht.invitations import Revocations, Right, invite, packed_revocations, public_half, revoke
from dht.limits import AT_ONCE, HELD, PATIENCE
from dht.network import Network, open_network
from dht.p2pd import FAILURES
from dht.records import MemberRecord, sign_record
from dht.validator import check

TICK_S = 30.0
MESSAGE = dht_pb2.PingRequest
KEY = Ed25519PrivateKey.generate()
ADMISSION = public_half(KEY)


class Echo(ServicerBase):
    """One method of each form, and one that is only for those who train."""

    async def rpc_echo(self, request: MESSAGE, context: P2PContext) -> MESSAGE:
        return request

    async def rpc_wait(self, request: MESSAGE, context: P2PContext) -> MESSAGE:
        await asyncio.Event().wait()
        return request

    async def rpc_keep(self, request: MESSAGE, context: P2PContext) -> MESSAGE:
        return request

    async def rpc_stream(self, request: MESSAGE, context: P2PContext) -> typing.AsyncIterator[MESSAGE]:
        for _ in range(3):
            yield request


def admitted(
    path: Path, rights: set[Right], *, days: float = 1.0, is_visiting: bool = False, key: Ed25519PrivateKey = KEY
) -> Admission:
    peer_id = Identity.load_or_create(path).peer_id
    now = time.time()
    chain = invite(key, public_half(key), peer_id, rights, now, now + days * 86_400)
    return Admission(public_half(key), chain, is_visiting=is_visiting)


@asynccontextmanager
async def networks(paths: list[Path], admissions: list[Admission | None]) -> AsyncIterator[list[Network]]:
    """Peers that serve `Echo`, and know each other's addresses."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_network(path, host="127.0.0.1", admission=admission))
            for path, admission in zip(paths, admissions, strict=True)
        ]
        for network in opened:
            await network.serve(Echo(), "test")
        for network in opened[1:]:
            await network.connect(await opened[0].addresses())
        yield opened


async def refused(asked: Callable[[], object]) -> str:
    with pytest.raises(P2PHandlerError) as caught:
        await asked()  # type: ignore[misc]
    return refusal(caught.value)


def test_no_handler_answers_an_outsider(identity_paths: list[Path], run_id: str) -> None:
    """Whatever is registered at p2pd, by Hivemind's DHT too, now or later: it is asked by the name that p2pd knows."""

    async def main() -> None:
        member = admitted(identity_paths[0], {"read", "train"})
        async with networks(identity_paths[:2], [member, None]) as (inside, outsider):
            await inside.open_dht([], run_id, TICK_S)
            served = inside.p2p._client.control.unary_handlers
            assert {"DHTProtocol.rpc_find", "DHTProtocol.rpc_ping", "DHTProtocol.rpc_store"} < set(served)
            tried = 0
            for name in set(served) - {"shoal.present"}:
                for request in (dht_pb2.PingRequest(), dht_pb2.FindRequest(), dht_pb2.StoreRequest()):
                    said = await refused(
                        lambda n=name, r=request: outsider.p2p.call_protobuf_handler(
                            PeerID.from_base58(inside.peer_id), n, r, MESSAGE
                        )
                    )
                    assert said == HOW_TO_JOIN, name
                    tried += 1
            stream = await outsider.stub(Echo, inside.peer_id, "test").rpc_stream(MESSAGE())
            assert await refused(lambda: anext(stream)) == HOW_TO_JOIN
            assert tried >= 15
            assert not list(inside.node.protocol.routing_table.get_nearest_neighbors(DHTID.generate(), 5))

    uvloop.run(main())


def test_members_call_each_other_and_the_dht_works(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        admissions = [admitted(path, {"read", "train"}) for path in identity_paths[:2]]
        async with networks(identity_paths[:2], list(admissions)) as (one, two):
            await one.open_dht([], run_id, TICK_S)
            await two.open_dht([one.peer_id], run_id, TICK_S)
            assert (await two.stub(Echo, one.peer_id, "test").rpc_echo(MESSAGE(validate=True))).validate
            assert len([a async for a in await two.stub(Echo, one.peer_id, "test").rpc_stream(MESSAGE())]) == 3
            now, record = time.time(), MemberRecord(run_id=run_id)
            data = sign_record(two.identity, "member", record, now)
            assert await two.store(record.key, two.peer_id, data, now + 60)
            assert await one.fetch(record.key) == {two.peer_id: data}  # without the invitation, byte for byte
            assert set(admissions[0].known()) == set(admissions[1].known()) == {one.peer_id, two.peer_id}

    uvloop.run(main())


def test_who_may_read_may_not_train(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        admissions = [admitted(identity_paths[0], {"read", "train"}), admitted(identity_paths[1], {"read"})]
        async with networks(identity_paths[:2], list(admissions)) as (member, reader):
            stub = reader.stub(Echo, member.peer_id, "test")
            assert (await stub.rpc_echo(MESSAGE(validate=True))).validate
            assert "more rights" in await refused(lambda: stub.rpc_keep(MESSAGE()))
            await member.open_dht([], run_id, TICK_S)
            inside = PeerID.from_base58(member.peer_id)
            storing = "DHTProtocol.rpc_store", dht_pb2.StoreRequest(), dht_pb2.StoreResponse
            assert "more rights" in await refused(lambda: reader.p2p.call_protobuf_handler(inside, *storing))
            assert admissions[0].left_out(time.time()) == {reader.peer_id}

    uvloop.run(main())


def test_calls_that_are_given_up_leave_nothing_behind(identity_paths: list[Path]) -> None:
    async def main() -> None:
        async with networks(identity_paths[:2], [None, None]) as (one, two):
            stub = two.stub(Echo, one.peer_id, "test")
            answering = one.p2p._client.control._handler_tasks
            calls = [asyncio.ensure_future(stub.rpc_wait(MESSAGE())) for _ in range(8)]
            async with asyncio.timeout(HANG_S):
                while len(answering) < len(calls):
                    await asyncio.sleep(0.01)
                for call in calls:
                    call.cancel()
                while answering:
                    await asyncio.sleep(0.01)

    uvloop.run(main())


def test_what_is_refused_is_not_even_read(identity_paths: list[Path]) -> None:
    async def main() -> None:
        async with networks(identity_paths[:2], [admitted(identity_paths[0], {"read"}), None]) as (inside, outsider):
            call = outsider.p2p.call_protobuf_handler
            name, nonsense = "test::Echo.rpc_echo", Bytes(b"\xff" * 64)
            assert await refused(lambda: call(inside.p2p.peer_id, name, nonsense, MESSAGE)) == HOW_TO_JOIN

    uvloop.run(main())


def test_a_member_started_anew_is_met_again(identity_paths: list[Path]) -> None:
    """It has forgotten who was there; the caller, who does not know that, presents itself once more by itself."""

    async def main() -> None:
        admissions = [admitted(path, {"read", "train"}) for path in identity_paths[:2]]
        async with networks(identity_paths[:2], list(admissions)) as (one, two):
            stub = two.stub(Echo, one.peer_id, "test")
            await stub.rpc_echo(MESSAGE())
            del admissions[0]._known[two.peer_id]
            assert (await stub.rpc_echo(MESSAGE(validate=True))).validate
            del admissions[0]._known[two.peer_id]
            assert len([answer async for answer in await stub.rpc_stream(MESSAGE())]) == 3

    uvloop.run(main())


def test_a_revocation_reaches_everybody_and_ends_what_is_under_way(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        admissions = [admitted(path, {"read", "train"}) for path in identity_paths]
        kept: list[bytes] = []
        admissions[1]._keep = kept.append
        async with networks(identity_paths, list(admissions)) as (one, two, three):
            for network, others in ((one, []), (two, [one.peer_id]), (three, [one.peer_id])):
                await network.open_dht(others, run_id, TICK_S)
            stub = three.stub(Echo, one.peer_id, "test")
            stream = await stub.rpc_stream(MESSAGE())
            await anext(stream)
            two_hears = asyncio.Event()
            admissions[1].on_newer = two_hears.set
            out = revoke(KEY, Revocations(admission=ADMISSION), {three.peer_id: time.time()})
            admissions[0].take_revocations(packed_revocations(out))
            async with asyncio.timeout(30):
                await two_hears.wait()
            assert kept == [packed_revocations(out)]
            assert await refused(lambda: stub.rpc_echo(MESSAGE())) == HAS_ENDED
            assert admissions[1].left_out(time.time()) == {three.peer_id}
            # Its records are read no more, and nobody calls it.
            now, record = time.time(), MemberRecord(run_id=run_id)
            await three.store(record.key, three.peer_id, sign_record(three.identity, "member", record, now), now + 60)
            assert three.peer_id not in await one.fetch(record.key)
            assert await refused(lambda: two.stub(Echo, three.peer_id, "test").rpc_echo(MESSAGE())) is not None

    uvloop.run(main())


def test_a_member_does_not_call_who_is_none(identity_paths: list[Path]) -> None:
    async def main() -> None:
        other = Ed25519PrivateKey.generate()
        stranger = admitted(identity_paths[2], {"read", "train"}, key=other)
        member = admitted(identity_paths[0], {"read", "train"})
        async with networks(identity_paths, [member, None, stranger]) as (inside, open_one, closed_one):
            for peer, says in ((open_one, "is in no closed run"), (closed_one, HOW_TO_JOIN)):
                with pytest.raises(P2PHandlerError) as caught:
                    await inside.stub(Echo, peer.peer_id, "test").rpc_echo(MESSAGE())
                assert says in str(caught.value) or says == refusal(caught.value)

    uvloop.run(main())


def test_a_visitor_with_an_invitation_may_look_at_an_open_run(identity_paths: list[Path]) -> None:
    async def main() -> None:
        visitor = admitted(identity_paths[1], {"read"}, is_visiting=True)
        async with networks(identity_paths[:2], [None, visitor]) as (inside, guest):
            assert (await guest.stub(Echo, inside.peer_id, "test").rpc_echo(MESSAGE(validate=True))).validate

    uvloop.run(main())


def test_an_invitation_ends(identity_paths: list[Path]) -> None:
    async def main() -> None:
        member, guest = admitted(identity_paths[0], {"read", "train"}), admitted(identity_paths[1], {"read", "train"})
        async with networks(identity_paths[:2], [member, guest]) as (inside, other):
            stub = other.stub(Echo, inside.peer_id, "test")
            await stub.rpc_echo(MESSAGE())
            member._now = lambda: guest.grant.until
            assert await refused(lambda: stub.rpc_echo(MESSAGE())) == HAS_ENDED

    uvloop.run(main())


def test_a_node_keeps_no_record_without_the_invitation_of_its_signer(identities: list[Identity], run_id: str) -> None:
    """Also when a member stores it for somebody: the record of an outsider is in nobody's view."""
    now, record = time.time(), MemberRecord(run_id=run_id)
    inside, outsider = identities[0], identities[1]
    chain = invite(KEY, ADMISSION, inside.peer_id, {"read", "train"}, now, now + 60)
    door = Admission(ADMISSION, chain)
    reader = Admission(ADMISSION, invite(KEY, ADMISSION, outsider.peer_id, {"read"}, now, now + 60))
    key = DHTID.generate(source=record.key).to_bytes()

    def entry(identity: Identity, vouch: Callable[[bytes], bytes]) -> object:
        value = MSGPackSerializer.dumps(vouch(sign_record(identity, "member", record, now)))
        return check(key, MSGPackSerializer.dumps(identity.peer_id), value, now + 60, run_id, TICK_S, ADMISSION)

    assert entry(inside, door.vouch)
    for identity, vouch in ((inside, bytes), (outsider, door.vouch), (outsider, reader.vouch), (outsider, bytes)):
        with pytest.raises(Exception, match=r"invitation|may read|neither|msgpack"):
            entry(identity, vouch)


def test_who_calls_without_end_is_cut_off_and_the_others_are_answered(identity_paths: list[Path]) -> None:
    async def main() -> None:
        async with networks(identity_paths, [None, None, None]) as (inside, flooder, other):
            stub = flooder.stub(Echo, inside.peer_id, "test")
            calls = [asyncio.ensure_future(stub.rpc_wait(MESSAGE())) for _ in range(AT_ONCE + HELD + PATIENCE)]
            async with asyncio.timeout(HANG_S):  # the last of those refused cuts off those that wait, too
                ended = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(each, FAILURES) for each in ended)
            assert (await other.stub(Echo, inside.peer_id, "test").rpc_echo(MESSAGE(validate=True))).validate
            await flooder.connect(await inside.addresses())  # it may dial again, and is cut off at its first call
            with pytest.raises(FAILURES):
                await stub.rpc_echo(MESSAGE())

    uvloop.run(main())


def test_what_is_only_for_members_is_named_as_the_services_name_it() -> None:
    """A method that is renamed must not fall open to readers."""
    from protocols.offers import Offers
    from protocols.state import State

    methods = {name for service in (Offers, State, DHTProtocol) for name in dir(service) if name.startswith("rpc_")}
    assert methods > FOR_TRAINING
    assert {name for name in dir(Offers) if name.startswith("rpc_")} < FOR_TRAINING


def test_a_peer_that_joins_by_an_outsider_says_why(identity_paths: list[Path], run_id: str) -> None:
    async def main() -> None:
        member = admitted(identity_paths[0], {"read", "train"})
        async with networks(identity_paths[:2], [member, None]) as (inside, outsider):
            await inside.open_dht([], run_id, TICK_S)
            with pytest.raises(NetworkError, match="does not answer as a DHT node"):
                await outsider.open_dht([inside.peer_id], run_id, TICK_S)

    uvloop.run(main())
