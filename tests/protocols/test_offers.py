"""Offers, lists and seals over real libp2p in one loop; what a member sends wrong costs only itself."""

import asyncio
import gc
import random
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hivemind.p2p import P2P, P2PContext

from benchmarks.patience import HANG_S, patience
from configs.content import chunk_hashes, chunk_of, content_id_of
from configs.errors import NetworkError, PeerError
from dht.identity import Identity
from protocols.fetching import Fetch, Group
from protocols.gossip import Heard, Stand, Timing, close, fetch_sealed, gather, history
from protocols.offers import (
    COUNT_BYTES,
    KEPT_ROUNDS,
    MAX_PROOFS,
    MAX_WAIT_S,
    HistoryRequest,
    ListRequest,
    OfferList,
    OfferRequest,
    Offers,
    SealedRound,
)
from protocols.parcels import (
    Offer,
    OfferHeader,
    Parcel,
    SignedOffer,
    in_order,
    open_parcel,
    packed,
    sign_offer,
    unpacked,
)
from protocols.sealing import Mark
from protocols.traffic import Pace, Traffic
from protocols.wire import FRAME_BYTES, Frame, Frames, each_frame, end_of_stream

RUN, BLOCK = "run", "model"
PAYLOAD = random.Random(0).randbytes(3 * FRAME_BYTES + 17)
MARK = Mark(3, "c" * 64)
SOON = Timing(cut_s=HANG_S, end_s=HANG_S, fetch_s=HANG_S)  # all comes at once: no round is as long as that


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder: Path = tmp_path_factory.mktemp("identities")
    return [Identity.load_or_create(folder / str(index)) for index in range(3)]


def header(peer: str, payload: bytes = PAYLOAD, round_: int = 1, /, **fields: Any) -> OfferHeader:
    facts = {"codec": "float32", "tokens": 10, "norm": 1.0, "domain": "all"}
    about = {"run_id": RUN, "block": BLOCK, "round": round_, "peer": peer}
    size = {"size_bytes": len(payload), "content_id": content_id_of(payload)}
    return OfferHeader(**{**facts, **about, **size, **fields})


def offer_of(identity: Identity, payload: bytes = PAYLOAD, round_: int = 1) -> Offer:
    return sign_offer(identity, header(identity.peer_id, payload, round_), payload, chunk_hashes(payload))


async def accept(offer: Offer) -> None:
    """What a group checks of the values: nothing here."""


class Member:
    """A member of a group: its identity, its host, its books."""

    def __init__(self, identity: Identity, p2p: P2P) -> None:
        self.identity, self.p2p, self.offers = identity, p2p, Offers(Traffic())
        self.peer_id = identity.peer_id

    async def serve(self, wrapper: object = None) -> None:
        await self.offers.add_p2p_handlers(self.p2p, wrapper=wrapper)

    async def serve_offer(self, payload: bytes = PAYLOAD) -> None:
        """Answer the others, and have an offer for them."""
        await self.serve()
        await self.offers.put(offer_of(self.identity, payload))

    def group(self, members: "Sequence[Member]", round_: int = 1, max_bytes: int = 1 << 20) -> Group:
        hosts = {member.peer_id: member.p2p.peer_id for member in members}

        def stub(peer: str) -> Any:
            return Offers.get_stub(self.p2p, hosts[peer])

        return Group(RUN, BLOCK, round_, self.peer_id, sorted(hosts), max_bytes, stub, accept)

    async def exchange(self, members: "Sequence[Member]", round_: int = 1, timing: Timing = SOON) -> Heard:
        return await exchange(self.group(members, round_), self.offers, Stand([MARK], 800), timing)


async def exchange(group: Group, offers: Offers, stand: Stand, timing: Timing, making: Any = None) -> Heard:
    """One round of which all of the view decide."""
    lists = await gather(group, offers, stand, timing, making)
    assert all(heard.past == [MARK] for heard in lists.values())
    return await close(group, offers, lists, timing.fetch_s)


@asynccontextmanager
async def open_members(open_peers: Any, identities: Sequence[Identity]) -> AsyncIterator[list[Member]]:
    """Open a host for a member of each identity."""
    async with open_peers(len(identities)) as hosts:
        yield [Member(identity, p2p) for identity, p2p in zip(identities, hosts, strict=True)]


def test_three_members_seal_the_same_offers(open_peers: Any, identities: list[Identity]) -> None:
    async def main() -> None:
        async with open_members(open_peers, identities) as members:
            for member in members:
                await member.serve_offer(PAYLOAD + member.peer_id.encode())
            heard = await asyncio.gather(*(member.exchange(members) for member in members))
            assert heard[0].seal.reason == "sealed 3 of 3"
            for one in heard:
                assert one.seal == heard[0].seal and not one.missing
                assert set(one.lists) == {member.peer_id for member in members}
                assert {o.offer_id for o in one.offers.values()} == set(heard[0].seal.offers.values())
                assert all(o.payload == PAYLOAD + peer.encode() for peer, o in one.offers.items())
            assert {member.offers.traffic.bytes_in for member in members} == {2 * len(PAYLOAD + b"Q" * 46)}
            assert all(member.offers.traffic.bytes_out == 2 * len(PAYLOAD + b"Q" * 46) for member in members)

    uvloop.run(main())


class Values:
    """Stands for what a round decodes, which its group's check keeps."""

    async def check(self, offer: Offer) -> None:
        pass


def test_nothing_holds_on_to_a_round_that_is_over(open_peers: Any, identities: list[Identity]) -> None:
    """Its values are several times as large as the block: they cannot wait until Python looks for cycles."""

    async def main() -> None:
        async with open_members(open_peers, identities) as members:
            for member in members:
                await member.serve_offer()
            me, *others = members

            async def exchanged() -> weakref.ref[Values]:
                values = Values()
                group = replace(me.group(members), check=values.check)
                theirs = (other.exchange(members) for other in others)
                await asyncio.gather(exchange(group, me.offers, Stand([MARK], 800), SOON), *theirs)
                return weakref.ref(values)

            gc.disable()
            try:
                values = await exchanged()
                await asyncio.sleep(0)
                assert values() is None
            finally:
                gc.enable()

    uvloop.run(main())


def test_the_others_offers_come_in_while_the_own_one_is_made(open_peers: Any, identities: list[Identity]) -> None:
    async def main() -> None:
        async with open_members(open_peers, identities[:2]) as (me, other):
            for member in (me, other):
                await member.serve()
            await other.offers.put(offer_of(other.identity))

            async def make() -> None:
                async with asyncio.timeout(SOON.cut_s), me.offers._changed:
                    await me.offers._changed.wait_for(lambda: other.peer_id in me.offers.held(BLOCK, 1))
                await me.offers.put(offer_of(me.identity))

            mine = exchange(me.group([me, other]), me.offers, Stand([MARK], 800), SOON, make())
            heard = await asyncio.gather(mine, other.exchange([me, other]))
            assert [each.seal.reason for each in heard] == ["sealed 2 of 2"] * 2

    asyncio.run(main())


def test_a_list_does_not_wait_for_an_own_offer_that_comes_after_the_cut(
    open_peers: Any, identities: list[Identity]
) -> None:
    """Two of three are late with theirs; all are heard, and what the third has offered is sealed."""

    async def main() -> None:
        async with open_members(open_peers, identities) as members:
            for member in members:
                await member.serve()
            await members[0].offers.put(offer_of(members[0].identity))
            sealed = asyncio.Event()

            async def make(member: Member) -> None:
                await sealed.wait()
                await member.offers.put(offer_of(member.identity))

            async def late(member: Member) -> Heard:
                timing = Timing(cut_s=1.0, end_s=HANG_S, fetch_s=HANG_S)
                return await exchange(member.group(members), member.offers, Stand([MARK], 800), timing, make(member))

            others = [asyncio.create_task(late(member)) for member in members[1:]]
            heard = await members[0].exchange(members, timing=Timing(cut_s=1.0, end_s=HANG_S, fetch_s=HANG_S))
            sealed.set()
            for one in (heard, *await asyncio.gather(*others)):
                assert one.seal.reason == "sealed 1 of 3" and set(one.lists) == {m.peer_id for m in members}

    uvloop.run(main())


def test_whoever_has_an_offer_serves_it_too(open_peers: Any, identities: list[Identity]) -> None:
    """The third member can be reached by the second alone; what more than half name is fetched from there."""

    async def main() -> None:
        async with open_members(open_peers, identities[:2]) as (one, two):
            await two.serve()
            third = offer_of(identities[2])
            await two.offers.put(third)
            group = one.group([one, two])
            sources = {third.header.peer: [two.peer_id]}
            wanted = {third.header.peer: third.offer_id}
            assert await fetch_sealed(group, one.offers, wanted, sources, HANG_S) == {third.header.peer: third}
            again = await fetch_sealed(group, one.offers, wanted, {}, HANG_S)
            assert again[third.header.peer].payload == PAYLOAD  # held now: nobody is asked
            other = {third.header.peer: "f" * 64}
            assert (
                await fetch_sealed(group, one.offers, other, sources, HANG_S) == {}
            )  # signed twice: not what was sealed

    uvloop.run(main())


class Watched:
    """Serves as `Offers` does, and tells when it was asked."""

    def __init__(self, honest: Offers) -> None:
        self.honest = honest
        self.asked = asyncio.Event()

    async def rpc_offer(self, request: OfferRequest, context: P2PContext) -> Frames:
        self.asked.set()
        async for frame in self.honest.rpc_offer(request, context):
            yield frame

    async def rpc_list(self, request: ListRequest, context: P2PContext) -> OfferList:
        self.asked.set()
        return await self.honest.rpc_list(request, context)

    async def rpc_history(self, request: HistoryRequest, context: P2PContext) -> Any:
        return await self.honest.rpc_history(request, context)


def test_a_request_waits_until_the_answer_is_there_or_its_time_is_over(
    open_peers: Any, identities: list[Identity]
) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            member = Member(identities[0], server)
            watched = Watched(member.offers)
            await member.serve(watched)
            stub = Offers.get_stub(client, server.peer_id)

            async def frames(wait_s: float) -> list[Frame]:
                request = OfferRequest(block=BLOCK, round=1, peer=member.peer_id, wait_s=wait_s)
                return [frame async for frame in each_frame(await stub.rpc_offer(request))]

            def offers_listed(wait_s: float) -> Any:
                return stub.rpc_list(ListRequest(block=BLOCK, round=1, wait_s=wait_s))

            assert await frames(0.05) == []
            nothing = await offers_listed(0.05)
            assert (nothing.offers, nothing.marks) == ({}, [])
            for ask, answer in (
                (frames, lambda: member.offers.put(offer_of(identities[0]))),
                (offers_listed, lambda: member.offers.publish(BLOCK, 1, [MARK], 800)),
            ):
                watched.asked.clear()
                waiting = asyncio.ensure_future(ask(HANG_S))
                await watched.asked.wait()
                assert not waiting.done()
                await answer()
                found = await asyncio.wait_for(waiting, HANG_S)
                if ask is frames:
                    assert b"".join(bytes(frame.data) for frame in found[2:]) == PAYLOAD
                else:
                    assert found.offers == {member.peer_id: offer_of_id(member)}
                    assert found.marks == [(MARK.version, MARK.digest)]

    uvloop.run(main())


def offer_of_id(member: Member) -> str:
    return member.offers.held(BLOCK, 1)[member.peer_id].offer_id


def test_requests_that_wait_are_bounded_for_each_peer_and_for_all(
    open_peers: Any, identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has too many of them is answered at once with what there is: nothing."""
    monkeypatch.setattr("protocols.offers.MAX_POLLS", 3)
    monkeypatch.setattr("protocols.offers.MAX_POLLS_OF_PEER", 2)

    async def main() -> None:
        async with open_peers(3) as (server, one, two), asyncio.TaskGroup() as asked:
            member = Member(identities[0], server)
            await member.serve()
            request = ListRequest(block=BLOCK, round=1, wait_s=MAX_WAIT_S)

            def ask(host: P2P) -> Any:
                return Offers.get_stub(host, server.peer_id).rpc_list(request)

            async def poll(host: P2P, count: int) -> None:
                asked.create_task(ask(host))
                async with patience("the request to wait"):
                    while member.offers._polls.total() < count:
                        await asyncio.sleep(0.01)

            await poll(one, 1)
            await poll(one, 2)
            async with patience("an answer at once", most_s=HANG_S / 4):
                assert not (await ask(one)).marks
                await poll(two, 3)
                assert not (await ask(two)).marks
            await member.offers.publish(BLOCK, 1, [MARK], 800)
            assert (await ask(one)).marks
        assert not member.offers._polls

    uvloop.run(main())


class Fault(Enum):
    BAD_SIGNATURE = "signs with another peer's key"
    OTHER_ROUND = "sends an offer of another round"
    OTHER_RUN = "sends an offer of another run"
    OTHER_PEER = "sends another peer's offer as its own"
    DAMAGED = "flips a bit of the payload"
    SHORT = "leaves out the end"
    OTHER_HASHES = "tells of other chunks than it signed"
    MISSING = "leaves a chunk out and goes on"
    TOO_LARGE = "signs more than is allowed"
    GARBAGE = "sends no envelope"
    ALONE = "sends the envelope alone"
    SILENT = "stops in the middle"


class Bad(Watched):
    """Serves as `Offers` does, but for one fault in its own offer."""

    def __init__(self, honest: Offers, fault: Fault, me: Identity, other: Identity) -> None:
        super().__init__(honest)
        self.fault, self.me, self.other = fault, me, other

    async def rpc_offer(self, request: OfferRequest, context: P2PContext) -> Frames:
        envelope, payload = self._forge(request)
        hashes = chunk_hashes(payload if self.fault is Fault.OTHER_HASHES else PAYLOAD)
        yield Frame(envelope)
        if self.fault is not Fault.ALONE:
            yield Frame(len(hashes).to_bytes(COUNT_BYTES, "big") + b"".join(hashes) + packed(range(4), 4))
        for index in in_order(range(4), 4, request.start, is_backwards=request.is_backwards):
            if self.fault is Fault.ALONE:
                break
            if self.fault is Fault.SILENT:
                await asyncio.Event().wait()
            if self.fault is not Fault.MISSING or index != 2:
                yield Frame(chunk_of(payload, index))
        async for frame in end_of_stream():
            yield frame

    def _forge(self, request: OfferRequest) -> tuple[bytes, bytes]:
        fault, me, round_ = self.fault, self.me, request.round
        facts: dict[str, Any] = {}
        if fault is Fault.OTHER_ROUND:
            round_ += 1
        if fault is Fault.OTHER_RUN:
            facts["run_id"] = "other"
        if fault is Fault.OTHER_PEER:
            facts["peer"] = self.other.peer_id
        if fault is Fault.TOO_LARGE:
            facts["size_bytes"] = 2**30
        data = header(me.peer_id, PAYLOAD, round_, **facts).SerializeToString()
        signer = self.other if fault in (Fault.BAD_SIGNATURE, Fault.OTHER_PEER) else me
        signed = SignedOffer(header=data, public_key=signer.public_key, signature=signer.sign(data))
        payload = bytearray(PAYLOAD)
        if fault in (Fault.DAMAGED, Fault.OTHER_HASHES):
            payload[-1] ^= 1
        return (
            b"garbage" if fault is Fault.GARBAGE else signed.SerializeToString(),
            bytes(payload[:-1] if fault is Fault.SHORT else payload),
        )


def test_a_bad_offer_is_not_held_and_the_round_goes_on(open_peers: Any, identities: list[Identity]) -> None:
    async def main() -> None:
        async with open_members(open_peers, identities) as (me, good, bad):
            await me.serve()
            await good.serve()
            liar = Bad(bad.offers, Fault.GARBAGE, bad.identity, good.identity)
            await bad.serve(liar)
            for round_, liar.fault in enumerate(Fault, 1):
                for member in (me, good, bad):
                    await member.offers.put(offer_of(member.identity, PAYLOAD, round_))
                for member in (good, bad):
                    await member.offers.publish(BLOCK, round_, [MARK], 800)
                timing = Timing(10.0, HANG_S) if liar.fault is Fault.SILENT else SOON
                async with patience(f"the round in which one {liar.fault.value}", most_s=HANG_S / 2):
                    heard = await me.exchange([me, good, bad], round_, timing)
                assert set(me.offers.held(BLOCK, round_)) == {me.peer_id, good.peer_id}, liar.fault
                assert good.peer_id in heard.offers and bad.peer_id not in heard.offers
                assert set(heard.lists) == {me.peer_id, good.peer_id, bad.peer_id}

    uvloop.run(main())


def test_a_member_that_is_away_costs_the_others_no_more_than_the_cut(
    open_peers: Any, identities: list[Identity]
) -> None:
    async def main() -> None:
        async with open_members(open_peers, identities) as members:
            for member in members[:2]:
                await member.serve_offer()
            timing = Timing(6.0, 8.0)
            async with patience("the two that are there", most_s=4 * timing.end_s):
                heard = await asyncio.gather(*(member.exchange(members, timing=timing) for member in members[:2]))
            assert heard[0].seal == heard[1].seal
            assert set(heard[0].seal.offers) == {member.peer_id for member in members[:2]}

    uvloop.run(main())


def test_a_member_that_one_cannot_reach_is_heard_through_another(open_peers: Any, identities: list[Identity]) -> None:
    """The first and the second cannot reach each other; the third has the offers of both before the cut."""

    async def main() -> None:
        async with open_members(open_peers, identities) as members:
            for member in members:
                await member.serve_offer()
            one, two, _ = members

            async def exchange_of(member: Member) -> Heard:
                group = member.group(members)
                apart = {one.peer_id: two.peer_id, two.peer_id: one.peer_id}.get(member.peer_id)

                def stub(peer: str) -> Any:
                    if peer == apart:
                        raise ConnectionError("no route")
                    return group.stub(peer)

                timing = Timing(cut_s=20.0, end_s=21.0)
                return await exchange(replace(group, stub=stub), member.offers, Stand([MARK], 800), timing)

            began = asyncio.get_running_loop().time()
            heard = await asyncio.gather(*map(exchange_of, members))
            assert all(set(h.seal.offers) == {m.peer_id for m in members} and not h.missing for h in heard)
            print(f"sealed {asyncio.get_running_loop().time() - began:.1f} s after the cut opened")

    uvloop.run(main())


async def timed_exchange(members: Sequence[Member], timing: Timing, round_: int = 1) -> tuple[list[Heard], float]:
    """Let all members run one round; return what each heard, and the seconds until the last was done."""
    began = asyncio.get_running_loop().time()
    heard = await asyncio.gather(
        *(exchange(m.group(members, round_, 1 << 24), m.offers, Stand([MARK], 8), timing) for m in members)
    )
    return heard, asyncio.get_running_loop().time() - began


async def slow_enough(members: Sequence[Member], payload: bytes) -> float:
    """Return how long it shall take to send `payload` once, so that its line and not this machine is what is slow.

    That follows from a round without a cap, in which every member offers as much.
    """
    for member in members:
        await member.serve()
        await member.offers.put(offer_of(member.identity, payload, 1))
    _, uncapped_s = await timed_exchange(members, SOON)
    print(f"without a cap all was there after {uncapped_s:.2f} s")
    for member in members:
        member.offers.traffic.bytes_out = 0  # what is sent from now on is counted
    return max(4.0, 8 * uncapped_s)


def mbit_of(payload: bytes, seconds: float) -> float:
    return 8e-6 * len(payload) / seconds


def test_a_slow_uplink_sends_its_own_offer_little_more_than_once(open_peers: Any, identities: list[Identity]) -> None:
    """Its readers begin at different places and have the rest from each other."""
    payload = random.Random(1).randbytes(32 * FRAME_BYTES)

    async def main() -> None:
        async with open_members(open_peers, identities) as members:
            slow, once_s = members[0], await slow_enough(members, payload)
            slow.offers.traffic.up = Pace(mbit_of(payload, once_s))
            for member in members:
                await member.offers.put(offer_of(member.identity, payload if member is slow else PAYLOAD, 2))
            cut_s = 1.9 * once_s  # too short for sending it twice
            heard, seconds = await timed_exchange(members, Timing(cut_s, 5 * once_s), 2)
            sent = slow.offers.traffic.bytes_out / len(payload)
            print(
                f"two had it after {seconds:.1f} s, of which {once_s:.1f} are the least; it was sent {sent:.2f} times"
            )
            assert all(len(h.offers) == 3 for h in heard)
            assert sent < 1.7 and seconds < cut_s

    uvloop.run(main())


def test_lines_that_have_become_free_help_a_slow_one_long_before_the_cut(
    open_peers: Any, identities: list[Identity]
) -> None:
    payload = random.Random(3).randbytes(32 * FRAME_BYTES)

    async def main() -> None:
        async with open_members(open_peers, identities) as members:
            (slow, *others), once_s = members, await slow_enough(members, payload)
            slow.offers.traffic.up = Pace(mbit_of(payload, once_s))
            for member in others:
                member.offers.traffic.up = Pace(mbit_of(payload, once_s / 8))  # eight times as wide
            for member in members:
                await member.offers.put(offer_of(member.identity, payload, 2))
            timing = Timing(15 * once_s, 18 * once_s)  # all are on track
            heard, seconds = await timed_exchange(members, timing, 2)
            sent = slow.offers.traffic.bytes_out / len(payload)
            print(
                f"after {seconds:.1f} s, of which {once_s:.1f} are the least, the slow one had sent it {sent:.2f} times"
            )
            assert all(len(h.offers) == 3 for h in heard)
            assert sent < 1.7 and seconds < 1.9 * once_s

    uvloop.run(main())


def test_what_has_arrived_survives_an_interruption(open_peers: Any, identities: list[Identity]) -> None:
    payload = random.Random(2).randbytes(16 * FRAME_BYTES)

    async def main() -> None:
        async with open_members(open_peers, identities[:2]) as (one, two):
            two.offers.traffic.up = Pace(mbit=8 * len(payload) / 1e6 / 2)
            await two.serve()
            offer = offer_of(two.identity, payload)
            await two.offers.put(offer)
            group = one.group([one, two], max_bytes=1 << 24)
            wanted, sources = {two.peer_id: offer.offer_id}, {two.peer_id: [two.peer_id]}
            assert await fetch_sealed(group, one.offers, wanted, sources, 1.0) == {}
            assert (await fetch_sealed(group, one.offers, wanted, sources, HANG_S))[two.peer_id].payload == payload
            assert one.offers.traffic.bytes_in <= len(payload) + 2 * FRAME_BYTES

    uvloop.run(main())


def test_of_two_offers_of_one_peer_the_sealed_one_is_held_and_both_headers_prove_it(
    open_peers: Any, identities: list[Identity], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with open_members(open_peers, identities[:2]) as (one, two):
            await two.serve()
            liar = identities[2]
            told_one, told_two = offer_of(liar), offer_of(liar, PAYLOAD[::-1])
            await one.offers.put(told_one)
            await two.offers.put(told_two)
            group = one.group([one, two])
            wanted, sources = {liar.peer_id: told_two.offer_id}, {liar.peer_id: [two.peer_id]}
            sealed = await fetch_sealed(group, one.offers, wanted, sources, HANG_S)
            assert sealed[liar.peer_id].payload == PAYLOAD[::-1]
            assert one.offers.held(BLOCK, 1)[liar.peer_id].offer_id == told_two.offer_id
            proof = one.offers.proofs[BLOCK, 1, liar.peer_id]
            assert proof.envelopes == (told_one.envelope, told_two.envelope)
            await one.offers.put(told_one)  # not sealed: it does not come back
            assert one.offers.held(BLOCK, 1)[liar.peer_id].offer_id == told_two.offer_id

    uvloop.run(main())
    assert [record.message for record in caplog.records if "second one" in record.message] == [
        f"offer of {identities[2].peer_id} for {BLOCK} round 1: there is a second one, signed by the same peer"
    ]


def test_a_second_offer_that_nobody_has_sealed_is_not_fetched_but_proves_the_lie(
    open_peers: Any, identities: list[Identity]
) -> None:
    async def main() -> None:
        async with open_members(open_peers, identities[:2]) as (one, two):
            await two.serve()
            first, second = offer_of(two.identity), offer_of(two.identity, PAYLOAD[::-1])
            await one.offers.put(first)
            await two.offers.put(second)
            async with patience("the second offer to be refused"):
                await Fetch(one.group([one, two]), one.offers, two.peer_id).run(
                    [two.peer_id], asyncio.get_running_loop().time() + 2 * HANG_S
                )
            assert one.offers.held(BLOCK, 1)[two.peer_id].offer_id == first.offer_id
            assert not one.offers.traffic.bytes_in
            assert one.offers.proofs[BLOCK, 1, two.peer_id].envelopes == (first.envelope, second.envelope)

    uvloop.run(main())


def test_two_faces_that_are_seen_by_as_many_are_met_by_both(open_peers: Any, identities: list[Identity]) -> None:
    """Nothing of the liar's is sealed then, so nobody would fetch the other one; the lists tell that there is one."""
    liar = identities[2]

    async def main() -> None:
        async with open_members(open_peers, identities[:2]) as members:
            faces = [offer_of(liar), offer_of(liar, PAYLOAD[::-1])]
            lists: dict[str, OfferList] = {}
            for member, face in zip(members, faces, strict=True):
                await member.serve_offer()
                await member.offers.put(face)
                lists[member.peer_id] = OfferList(
                    offers={liar.peer_id: face.offer_id}, marks=[(MARK.version, MARK.digest)], state_bytes=8
                )
            for member in members:
                heard = await close(member.group(members), member.offers, lists, HANG_S)
                assert liar.peer_id not in heard.seal.offers
                proof = member.offers.proofs[BLOCK, 1, liar.peer_id]
                assert set(proof.envelopes) == {face.envelope for face in faces}
                assert member.offers.traffic.bytes_in == 0  # the headers are all that came

    uvloop.run(main())


def test_a_name_without_an_offer_accuses_nobody(open_peers: Any, identities: list[Identity]) -> None:
    async def main() -> None:
        async with open_members(open_peers, identities[:2]) as (one, two):
            for member in (one, two):
                await member.serve_offer()
                await member.offers.put(offer_of(identities[2]))
            marks = [(MARK.version, MARK.digest)]
            lists = {
                one.peer_id: OfferList(offers={}, marks=marks, state_bytes=8),
                two.peer_id: OfferList(offers={identities[2].peer_id: "0" * 64}, marks=marks, state_bytes=8),
            }
            await close(one.group([one, two]), one.offers, lists, HANG_S)
            assert not one.offers.proofs and one.offers.traffic.bytes_in == 0

    uvloop.run(main())


def test_only_the_newest_proofs_are_kept(identities: list[Identity]) -> None:
    async def main() -> None:
        offers = Offers(Traffic())
        for round_ in range(MAX_PROOFS + 3):
            for payload in (b"one", b"another"):
                await offers.put(offer_of(identities[0], payload, round_))
        assert [about[1] for about in offers.proofs] == list(range(3, MAX_PROOFS + 3))

    asyncio.run(main())


def test_who_is_asked_for_its_history_may_be_gone_by_then(open_peers: Any, identities: list[Identity]) -> None:
    async def main() -> None:
        async with open_members(open_peers, identities[:2]) as (one, two):
            await two.serve()
            stub = one.group([one, two]).stub(two.peer_id)
            await two.p2p.shutdown()
            with pytest.raises(NetworkError, match="does not tell the history of model"):
                await history(stub, BLOCK, 0)

    asyncio.run(main())


def test_a_mistake_of_ours_is_logged_once_and_costs_one_member(
    identities: list[Identity], caplog: pytest.LogCaptureFixture
) -> None:
    """Trying again five times a second, without a word, would hide it."""
    asked: list[str] = []

    class Mistaken:
        async def rpc_offer(self, request: OfferRequest) -> Any:
            asked.append("offer")
            raise TypeError("a mistake of ours")

        async def rpc_list(self, request: ListRequest) -> Any:
            asked.append("list")
            raise TypeError("a mistake of ours")

    async def main() -> None:
        me, other = (identity.peer_id for identity in identities[:2])
        group = Group(RUN, BLOCK, 1, me, [me, other], 1 << 20, lambda peer: Mistaken(), accept)
        offers = Offers(Traffic())
        await offers.put(offer_of(identities[0]))
        heard = await exchange(group, offers, Stand([MARK], 800), Timing(cut_s=5.0, end_s=6.0))
        assert asked == ["offer", "list"] and heard.lists.keys() == {me}

    asyncio.run(main())
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True, True]


def sealed(version: int) -> SealedRound:
    return SealedRound(version=version, round=10 * version, offers={"a": "b" * 64}, digest="d" * 64)


def test_a_history_comes_in_order_and_without_gaps(open_peers: Any, identities: list[Identity]) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            member = Member(identities[0], server)
            await member.serve()
            stub = Offers.get_stub(client, server.peer_id)
            assert await history(stub, BLOCK, 0) == []
            lineage: Any = [sealed(version) for version in (4, 5, 6)]
            member.offers.lineages[BLOCK] = lineage
            assert await history(stub, BLOCK, 4) == lineage[1:]
            for damaged in ([sealed(4), sealed(6)], [sealed(5), sealed(4)], [sealed(4), sealed(4)]):
                member.offers.lineages[BLOCK] = damaged
                with pytest.raises(PeerError, match="gaps"):
                    await history(stub, BLOCK, 0)

    uvloop.run(main())


def opened(envelope: bytes, hashes: bytes, max_bytes: int = 1 << 20, /, **about: Any) -> Parcel:
    asked = {"block": BLOCK, "round": 1, "peer": "", **about}
    return open_parcel(envelope, hashes, RUN, (asked["block"], asked["round"], asked["peer"]), max_bytes)


@pytest.mark.parametrize("change", [{"run_id": "other"}, {"block": "trunk"}, {"round": 2}, {"peer": "somebody"}])
def test_an_envelope_must_be_what_was_asked_for(identities: list[Identity], change: dict[str, Any]) -> None:
    me = identities[0]
    offer = offer_of(me)
    hashes = b"".join(offer.hashes)
    parcel = opened(offer.envelope, hashes, peer=me.peer_id)
    assert (parcel.header, parcel.offer_id, list(parcel.hashes)) == (offer.header, offer.offer_id, offer.hashes)
    other = sign_offer(me, header(me.peer_id, **change), PAYLOAD, offer.hashes)
    with pytest.raises(PeerError, match="not the one asked for"):
        opened(other.envelope, hashes, peer=me.peer_id)


def test_any_byte_of_an_envelope_and_of_its_hashes_matters(identities: list[Identity]) -> None:
    me = identities[0]
    offer = offer_of(me)
    hashes = b"".join(offer.hashes)
    for at in random.Random(0).sample(range(len(offer.envelope)), 100):
        damaged = bytearray(offer.envelope)
        damaged[at] ^= 1
        with pytest.raises(PeerError):
            opened(bytes(damaged), hashes, peer=me.peer_id)
    for other in (hashes[:-1], hashes[32:], hashes + hashes[:32], bytes(len(hashes)), b""):
        with pytest.raises(PeerError, match="hashes"):
            opened(offer.envelope, other, peer=me.peer_id)
    with pytest.raises(PeerError, match="allowed"):
        opened(offer.envelope, hashes, len(PAYLOAD) - 1, peer=me.peer_id)


def test_a_chunk_is_bound_to_its_offer_and_its_place(identities: list[Identity]) -> None:
    offer = offer_of(identities[0])
    parcel = opened(offer.envelope, b"".join(offer.hashes), peer=identities[0].peer_id)
    for index, chunk in ((1, chunk_of(PAYLOAD, 0)), (0, PAYLOAD[: FRAME_BYTES - 1]), (9, b""), (3, b"")):
        with pytest.raises(PeerError, match="damaged chunk"):
            parcel.add(index, chunk)
    for index in (2, 0, 3, 1):
        assert not parcel.is_complete
        parcel.add(index, chunk_of(PAYLOAD, index))
    assert parcel.offer().payload == PAYLOAD


def test_bitmaps_and_orders() -> None:
    chance = random.Random(1)
    for count in (1, 7, 8, 9, 100):
        some = {index for index in range(count) if chance.random() < 0.5}
        assert unpacked(packed(some, count), count) == some
        assert unpacked(b"\xff" * 20, count) == set(range(count))
        assert list(in_order(some, count, 0.0, is_backwards=False)) == sorted(some)
    assert list(in_order({0, 1, 2, 3}, 4, 0.5, is_backwards=False)) == [2, 3, 0, 1]
    assert list(in_order({0, 1, 2, 3}, 4, 0.5, is_backwards=True)) == [1, 0, 3, 2]


def test_only_the_last_rounds_are_kept_and_fewer_where_memory_is_short(identities: list[Identity]) -> None:
    async def fill(offers: Offers, payload: bytes) -> list[int]:
        for round_ in range(1, KEPT_ROUNDS + 6):
            await offers.put(offer_of(identities[0], payload, round_))
        return [round_ for round_ in range(1, KEPT_ROUNDS + 6) if offers.held(BLOCK, round_)]

    async def main() -> None:
        last = KEPT_ROUNDS + 5
        roomy, narrow = Offers(Traffic()), Offers(Traffic(), max_bytes=300)
        assert await fill(roomy, b"x" * 100) == list(range(6, last + 1))
        assert len(await fill(narrow, b"x" * 100)) <= 4
        assert narrow.held(BLOCK, last)
        roomy.forget(BLOCK)
        assert not roomy.held(BLOCK, last)

    asyncio.run(main())


def test_a_repair_of_old_rounds_does_not_close_the_newest(identities: list[Identity]) -> None:
    async def main() -> None:
        offers, newest = Offers(Traffic()), range(100, 100 + KEPT_ROUNDS)
        for round_ in newest:
            await offers.put(offer_of(identities[0], b"x", round_))
        for round_ in range(90, 110):
            await offers.put(offer_of(identities[0], b"x", round_))
            assert offers.held(BLOCK, round_)  # as long as it is being replayed
        assert [round_ for round_ in range(130) if offers.held(BLOCK, round_)] == list(newest)

    asyncio.run(main())
