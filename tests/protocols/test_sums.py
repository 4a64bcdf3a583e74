"""Participants add up: each learns the sum and no other's numbers, and whoever lies or leaves ends it by name."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hivemind.p2p import P2P, P2PContext, PeerID

from configs.errors import NetworkError, PeerError, UsageError
from protocols.circle import MARK, Circle
from protocols.masks import Masks
from protocols.sums import BEAT, HEAD, JoinRequest, Meeting, SumsRequest, Terms, join
from protocols.wire import Frame, Frames

TOKENIZER = b"{}" * 300_000  # of several frames
WORD = "0123"


class Fault(Enum):
    OTHER_SHAPE = "says more numbers than are due"
    OTHER_STEP = "is at another step"
    ENDLESS = "says more than it announced"
    NO_HEAD = "says no numbers at all"
    OTHER_KEY = "has a key that is none"
    TWO_FACES = "says other numbers to each"
    BREAKS = "breaks the stream once, in the middle"
    GOES = "falls silent"


class BadMeeting:
    """Says what an honest one does, but for one fault."""

    def __init__(self, fault: Fault, honest: Meeting) -> None:
        self.fault, self.honest, self.has_broken = fault, honest, False

    def rpc_join(self, request: JoinRequest, context: P2PContext) -> Frames:
        return self.honest.rpc_join(request, context)

    async def rpc_sums(self, request: SumsRequest, context: P2PContext) -> Frames:
        at, step = 0, request.step
        async for frame in self.honest.rpc_sums(request, context):
            data = bytes(frame.data)
            if data == BEAT:
                yield frame
                continue
            is_head = at > 0 and data[:4] == MARK
            if at == 0 and self.fault is Fault.OTHER_KEY:
                data = b"short"
            elif is_head and self.fault is Fault.NO_HEAD:
                data = b"numbers"
            elif is_head:
                mark, step, count, digest = HEAD.unpack(data)
                count += 2**40 * (self.fault is Fault.OTHER_SHAPE)
                data = HEAD.pack(mark, step + (self.fault is Fault.OTHER_STEP), count, digest)
            elif at > 1 and self.fault is Fault.ENDLESS:
                data += data
            elif at > 1 and self.fault is Fault.TWO_FACES:
                data = hashlib.sha256(str(context.remote_id).encode()).digest()[:4] + data[4:]
            elif at > 1 and step == 1 and self.fault is Fault.BREAKS and not self.has_broken:
                self.has_broken = True
                return
            if is_head and step == 1 and self.fault is Fault.GOES:
                await asyncio.Event().wait()
            at += 1
            yield Frame(data)


@dataclass
class Side:
    meeting: Meeting
    stub: Callable[[str], Any]


def name(p2p: P2P) -> str:
    return str(p2p.peer_id.to_base58())


async def side(p2p: P2P, seats: int = 0, fault: Fault | None = None) -> Side:
    meeting = Meeting(name(p2p), seats, WORD if seats else "")
    await meeting.add_p2p_handlers(p2p, wrapper=BadMeeting(fault, meeting) if fault else None)
    return Side(meeting, lambda peer: Meeting.get_stub(p2p, PeerID.from_base58(peer)))


def terms_of(meeting: Meeting) -> Terms:
    return Terms(
        participants={meeting.me: ["/ip4/127.0.0.1/tcp/1"], **meeting.roster},
        domains=3,
        seed=0,
        context_length=128,
        heldout_share=0.05,
        vocab_size=300,
        tokenizer=hashlib.sha256(TOKENIZER).hexdigest(),
        tokenizer_bytes=len(TOKENIZER),
    )


async def meet(peers: list[P2P], fault: Fault | None = None) -> list[Circle]:
    """Let the first host all, and the last have the fault; return their circles, which have begun."""
    sides = [
        await side(p2p, (len(peers) - 1) * (p2p is peers[0]), fault if p2p is peers[-1] else None) for p2p in peers
    ]
    host = sides[0].meeting

    async def sit(at: Side) -> None:
        terms, tokenizer = await join(at.stub(host.me), JoinRequest(word=WORD, addresses=[]))
        assert tokenizer == TOKENIZER
        at.meeting.open(terms)

    async with asyncio.TaskGroup() as group:
        for other in sides[1:]:
            group.create_task(sit(other))
        await host.seated()
        host.open(terms_of(host), TOKENIZER)
    return [Circle(each.meeting, each.stub) for each in sides]


async def add_all(circles: list[Circle], values: list[np.ndarray]) -> list[np.ndarray]:
    return await asyncio.gather(*(circle.add(each) for circle, each in zip(circles, values, strict=True)))


def numbers(step: int, size: int = 200_000) -> list[np.ndarray]:
    return [np.random.default_rng([step, n]).integers(0, 2**20, size).astype(np.uint32) for n in range(3)]


@pytest.mark.parametrize("fault", [None, Fault.BREAKS])
def test_all_get_the_sum(open_peers: Any, fault: Fault | None) -> None:
    async def main() -> None:
        async with open_peers(3) as peers:
            circles = await meet(peers, fault)
            await asyncio.gather(*(circle.begin() for circle in circles))
            for step, size in enumerate((1, 200_000, 7)):
                values = numbers(step, size)
                for summed in await add_all(circles, values):
                    assert np.array_equal(summed, sum(values))
            await asyncio.gather(*(circle.end() for circle in circles))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.OTHER_SHAPE, "where 1000 of step 0 are due"),
        (Fault.OTHER_STEP, "of step 1, where 1000 of step 0 are due"),
        (Fault.ENDLESS, "more numbers than it announced"),
        (Fault.NO_HEAD, "are no numbers"),
        (Fault.OTHER_KEY, "another key"),
        (Fault.TWO_FACES, "different numbers to different participants"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else None,
)
def test_who_says_what_cannot_be_is_named(open_peers: Any, fault: Fault, said: str) -> None:
    async def main() -> None:
        async with open_peers(3) as peers:
            circles = await meet(peers, fault)

            async def take_part(circle: Circle) -> str:
                try:
                    await circle.begin()
                    for step in range(2):
                        await circle.add(numbers(step, 1000)[0])
                except PeerError as error:
                    return str(error)
                return ""

            liar = asyncio.create_task(take_part(circles[-1]))
            told = await asyncio.gather(*map(take_part, circles[:-1]))
            liar.cancel()
            assert all(said in each for each in told), told
            if fault is not Fault.TWO_FACES:  # of which each accuses whom it hears first
                assert all(name(peers[-1]) in each for each in told)

    asyncio.run(main())


def test_who_falls_silent_ends_it_by_name(open_peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocols.circle.GONE_S", 1.0)
    monkeypatch.setattr("protocols.sums.BEAT_S", 0.2)

    async def main() -> None:
        async with open_peers(3) as peers:
            circles = await meet(peers, Fault.GOES)
            await asyncio.gather(*(circle.begin() for circle in circles))
            await add_all(circles, numbers(0, 10))
            with pytest.raises(NetworkError, match=f"participant {name(peers[-1])} .*is gone") as caught:
                await add_all(circles, numbers(1, 10))
            assert "\n" not in str(caught.value) and "begin again" in str(caught.value)

    asyncio.run(main())


def test_a_seat_is_for_who_knows_the_word_and_free_again_when_he_leaves(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(4) as (one, two, three, four):
            host = await side(one, 2)
            guests = [await side(p2p) for p2p in (two, three, four)]

            async def ask(guest: Side, word: str = WORD) -> None:
                await join(guest.stub(name(one)), JoinRequest(word=word, addresses=[]))

            with pytest.raises(UsageError, match="the word after # is another one"):
                await ask(guests[0], "guess")
            with pytest.raises(UsageError, match="the word after # is another one"):
                await join(guests[1].stub(name(two)), JoinRequest(word="", addresses=[]))  # who is no host has no seats
            seats = [asyncio.create_task(ask(guest)) for guest in guests[:2]]
            await host.meeting.seated()
            with pytest.raises(UsageError, match="all seats are taken"):
                await ask(guests[2])
            seats[1].cancel()
            while len(host.meeting.roster) > 1:
                await host.meeting._news.wait()
            last = asyncio.create_task(ask(guests[2]))
            await host.meeting.seated()
            assert set(host.meeting.roster) == {name(two), name(four)}
            host.meeting.open(terms_of(host.meeting), TOKENIZER)
            await asyncio.gather(seats[0], last)
            with pytest.raises(PeerError, match="another meeting"):  # who has no seat hears nothing
                guests[1].meeting.open(terms_of(host.meeting))
                await Circle(guests[1].meeting, guests[1].stub).begin()

    asyncio.run(main())


def test_masks_hide_numbers_and_vanish_in_the_sum() -> None:
    keys = {peer: X25519PrivateKey.generate() for peer in ("a", "b", "c")}
    publics = {peer: key.public_key().public_bytes_raw() for peer, key in keys.items()}
    masks = {
        peer: Masks(peer, key, {other: public for other, public in publics.items() if other != peer}, b"terms")
        for peer, key in keys.items()
    }
    zeros = np.zeros(100_000, dtype=np.uint32)
    hidden = [each.masked(zeros, step=3) for each in masks.values()]
    assert not sum(hidden).any()
    for one in hidden:  # numbers that look random: their bytes are even
        shares = np.bincount(one.view(np.uint8), minlength=256) / one.nbytes
        assert abs(shares - 1 / 256).max() < 5e-4
    assert not np.array_equal(hidden[0], masks["a"].masked(zeros, step=4))
    others = Masks("a", keys["a"], {peer: publics[peer] for peer in ("b", "c")}, b"other terms")
    assert not np.array_equal(hidden[0], others.masked(zeros, step=3))
    with pytest.raises(PeerError):
        Masks("a", keys["a"], {"b": bytes(32)}, b"")
