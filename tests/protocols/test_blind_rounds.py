"""Where members may be hostile, nobody sees a value of another's offer before he has made his own."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hivemind.p2p import PeerID

from benchmarks.patience import HANG_S
from configs.content import chunk_hashes, content_id_of
from configs.errors import PeerError
from dht.identity import Identity
from protocols.fetching import Group
from protocols.gossip import Stand, Timing, gather
from protocols.offers import OfferRequest, Offers
from protocols.parcels import Offer, OfferHeader, Parcel, sign_offer
from protocols.sealing import Mark
from protocols.traffic import Traffic

RUN, BLOCK = "run", "model"
PAYLOAD = bytes(range(256)) * 64
MARK = Mark(0, "0" * 64)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder: Path = tmp_path_factory.mktemp("identities")
    return [Identity.load_or_create(folder / str(index)) for index in range(2)]


def offer_of(identity: Identity) -> Offer:
    facts = {"codec": "float32", "tokens": 10, "norm": 1.0, "domain": "all", "content_id": content_id_of(PAYLOAD)}
    about = {"run_id": RUN, "block": BLOCK, "round": 1, "peer": identity.peer_id, "size_bytes": len(PAYLOAD)}
    return sign_offer(identity, OfferHeader(**facts, **about), PAYLOAD, chunk_hashes(PAYLOAD))


def asked(offers: Offers, peer: Identity, by: Identity, wait_s: float = HANG_S) -> AsyncGenerator[Any, None]:
    """Ask for a peer's offer as another one."""
    request = OfferRequest(block=BLOCK, round=1, peer=peer.peer_id, wait_s=wait_s)
    context: Any = SimpleNamespace(remote_id=PeerID.from_base58(by.peer_id))
    frames: Any = offers.rpc_offer(request, context)
    return frames


@pytest.mark.parametrize("opens", ["its header", "its offer", "the list"])
def test_values_are_for_who_has_made_his_own_offer_or_can_make_none_any_more(two: list[Identity], opens: str) -> None:
    async def main() -> None:
        me, other = two
        offers, mine, theirs = Offers(Traffic(), me.peer_id), offer_of(me), offer_of(other)
        await offers.put(mine)
        book = offers.book(BLOCK, 1)
        book.is_blind = True
        async with asyncio.timeout(HANG_S), aclosing(asked(offers, me, other)) as frames:
            envelope, manifest = await anext(frames), await anext(frames)
            assert envelope.data == mine.envelope and manifest.data, "what was promised is for all to see"
            values = asyncio.ensure_future(anext(frames))
            while not offers._polls.total():  # until it waits
                await asyncio.sleep(0)
            assert not values.done()
            if opens == "its header":
                book.parcels[other.peer_id] = Parcel(theirs.header, theirs.envelope, theirs.hashes, theirs.offer_id)
                await offers.wake()
            elif opens == "its offer":
                await offers.put(theirs)
            else:
                await offers.publish(BLOCK, 1, [MARK], 8)
            assert bytes((await values).data) == PAYLOAD

    asyncio.run(main())


def test_who_waits_in_vain_is_told_why_and_other_rounds_give_at_once(two: list[Identity]) -> None:
    async def main() -> None:
        me, other = two
        offers = Offers(Traffic(), me.peer_id)
        await offers.put(offer_of(me))
        offers.book(BLOCK, 1).is_blind = True
        with pytest.raises(PeerError, match="first your own offer"):
            [frame async for frame in asked(offers, me, other, wait_s=0.0)]
        offers.book(BLOCK, 1).is_blind = False
        async with aclosing(asked(offers, me, other, wait_s=0.0)) as frames:
            assert [bytes((await anext(frames)).data) for _ in range(3)][-1] == PAYLOAD

    asyncio.run(main())


@pytest.mark.parametrize("is_blind", [True, False])
def test_a_round_is_blind_from_its_beginning_until_its_list(two: list[Identity], is_blind: bool) -> None:
    async def main() -> None:
        me, other = two
        offers = Offers(Traffic(), me.peer_id)
        seen: list[bool] = []

        def stub(peer: str) -> Any:
            seen.append(offers.book(BLOCK, 1).is_blind)
            raise PeerError("nobody is there")

        async def accept(offer: Offer) -> None: ...

        group = Group(RUN, BLOCK, 1, me.peer_id, [me.peer_id, other.peer_id], 1 << 20, stub, accept)
        timing = Timing(cut_s=0.1, end_s=0.2, fetch_s=0.1)
        await gather(group, offers, Stand([MARK], 8), timing, offers.put(offer_of(me)), is_blind=is_blind)
        assert seen[0] is is_blind
        assert not offers.book(BLOCK, 1).is_blind and offers.book(BLOCK, 1).listed is not None

    asyncio.run(main())
