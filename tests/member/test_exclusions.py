"""Who signs two offers for one round is left out by everybody who sees the proof, and nobody else ever is."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from configs.clock import Clock
from configs.content import chunk_hashes, content_id_of
from dht.identity import Identity
from dht.membership import ACT_TICKS
from dht.records import ExclusionRecord, exclusion_key, sign_record
from peer.member.exclusions import EXCLUDED_TICKS, MAX_OF_PEER, RENEW_TICKS, Exclusions
from protocols.offers import Offers
from protocols.parcels import Equivocation, Offer, OfferHeader, sign_offer
from protocols.traffic import Traffic

RUN, TICK_S = "0" * 32, 10.0


def offer(identity: Identity, value: int, round_: int = 7, run_id: str = RUN, **changes: Any) -> Offer:
    payload = bytes([value]) * 40
    header = OfferHeader(
        run_id=run_id, block="model", round=round_, peer=identity.peer_id, codec="int4", size_bytes=40,
        content_id=content_id_of(payload), tokens=900, norm=1.5, domain="all",
    )  # fmt: skip
    return sign_offer(identity, header.model_copy(update=changes), payload, chunk_hashes(payload))


class World:
    """A DHT of one key, and peers that read and write it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.records: dict[str, bytes] = {}
        self.written = 0

    def peer(self, identity: Identity) -> Exclusions:
        world = self

        class Network:
            peer_id = identity.peer_id
            admission = None

            def __init__(self) -> None:
                self.identity = identity

            async def store(self, key: str, subkey: str, value: bytes, expiration: float) -> bool:
                assert key == exclusion_key(RUN) and expiration > world.now
                world.records[subkey] = value
                world.written += 1
                return True

            async def fetch(self, key: str) -> Mapping[str, bytes]:
                return dict(world.records)

        clock = Clock(0.0, TICK_S, lambda: self.now)
        return Exclusions(cast(Any, Network()), RUN, clock, Offers(Traffic()))

    def tick(self, number: int, *peers: Exclusions) -> None:
        self.now = number * TICK_S
        for peer in peers:
            asyncio.run(peer.keep_up(number))


def test_a_proof_acts_two_ticks_after_it_was_written_for_all_and_expires(identities: list[Identity]) -> None:
    world = World()
    finder, reader, liar = world.peer(identities[0]), world.peer(identities[1]), identities[2]
    finder._offers.accuse(Equivocation(offer(liar, 1), offer(liar, 2)))
    world.tick(8, finder, reader)
    world.tick(9, finder, reader)
    world.tick(10, finder, reader)
    for each in (finder, reader):
        assert each.at(8 + ACT_TICKS) == {liar.peer_id} and not each.at(8 + ACT_TICKS - 1)
        assert each.at(7 + EXCLUDED_TICKS - 1) == {liar.peer_id} and not each.at(7 + EXCLUDED_TICKS)
        (said,) = each.told(10)
        assert f"{liar.peer_id} is left out from tick 10 to 727: it has signed two offers for round 7" in said
    written = world.written
    for number in range(11, 11 + RENEW_TICKS + 1):
        world.tick(number, finder)
    assert world.written == written + 1  # renewed, while the finder is there
    world.tick(7 + EXCLUDED_TICKS, reader)
    assert not reader.told(7 + EXCLUDED_TICKS)
    world.tick(8 + EXCLUDED_TICKS, reader)
    assert not reader.at(8 + EXCLUDED_TICKS), "an old proof that is told again acts no more"


def test_who_has_signed_two_offers_is_told_until_which_tick_others_leave_it_out(identities: list[Identity]) -> None:
    world = World()
    twin, other = world.peer(identities[2]), world.peer(identities[0])
    for number in (7, 9):
        other._offers.accuse(Equivocation(offer(identities[2], 1, number), offer(identities[2], 2, number)))
    for number in (9, 10):
        world.tick(number, other, twin)
    last = 9 + EXCLUDED_TICKS
    assert f"End one of them, and run shoal resume after tick {last}" in twin.of_this_peer(last - 1)
    assert not twin.of_this_peer(last) and not other.of_this_peer(last - 1)


def test_what_is_no_proof_accuses_nobody(identities: list[Identity]) -> None:
    world = World()
    reader, liar, victim = world.peer(identities[0]), identities[1], identities[2]
    own = offer(victim, 1)
    forged = offer(liar, 2, peer=victim.peer_id)  # signed by the liar
    pairs = [
        (own, own),  # one offer, twice
        (own, offer(victim, 2, round_=8)),
        (own, offer(victim, 2, block="trunk")),
        (own, offer(victim, 2, run_id="1" * 32)),
        (offer(victim, 1, run_id="1" * 32), offer(victim, 2, run_id="1" * 32)),
        (own, forged),
        (forged, own),
        (own, offer(liar, 2)),
    ]
    for one, other in pairs:
        proofs = [(one.envelope.hex(), other.envelope.hex()), ("00", "ff")]
        record = ExclusionRecord(run_id=RUN, proofs=proofs)
        world.records[liar.peer_id] = sign_record(liar, "exclusion", record, 0.0)
        world.tick(8, reader)
    for entry in (b"", b"\xc1", sign_record(victim, "exclusion", ExclusionRecord(run_id=RUN, proofs=[]), 0.0)):
        world.records[liar.peer_id] = entry
        world.tick(10, reader)
    assert not any(reader.at(tick) for tick in range(0, 800, 5)) and not world.written


def test_who_accuses_himself_without_end_crowds_out_nobody(identities: list[Identity]) -> None:
    world = World()
    reader, flooder, liar = world.peer(identities[0]), identities[1], identities[2]
    reader._offers.accuse(Equivocation(offer(liar, 1), offer(liar, 2)))
    for round_ in range(20, 120):
        reader._offers.accuse(Equivocation(offer(flooder, 1, round_), offer(flooder, 2, round_)))
        world.tick(round_, reader)
    assert reader.at(200) == {flooder.peer_id, liar.peer_id}
    assert len(reader.told(119)) == 1 + MAX_OF_PEER


@pytest.mark.parametrize("ahead_s", [100.0, 1e9])
def test_a_record_of_the_future_is_not_read(identities: list[Identity], ahead_s: float) -> None:
    world = World()
    reader, liar = world.peer(identities[0]), identities[1]
    pair = (offer(liar, 1).envelope.hex(), offer(liar, 2).envelope.hex())
    record = ExclusionRecord(run_id=RUN, proofs=[pair])
    world.records[liar.peer_id] = sign_record(liar, "exclusion", record, 80.0 + ahead_s)
    world.tick(8, reader)
    assert not reader.told(8)
