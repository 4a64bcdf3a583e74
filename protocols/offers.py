"""Offers, lists and histories: what a peer serves of its rounds. How a group uses them stands in `gossip.py`.

Nothing is pushed to a peer: it fetches what it wants, so nobody can fill its memory. A request for something that
is not there yet waits (long poll) until it is, or until the time it brought is over.
"""

import asyncio
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated

from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from configs.content import content_id_of
from configs.errors import PeerError
from dht.identity import Identity, verify
from protocols.sealing import MARKS, Mark
from protocols.shards import Traffic
from protocols.wire import Frame, Frames, Message, end_of_stream, frames_of

MAX_WAIT_S = 600.0
KEPT_ROUNDS = 24  # of a block, for others' repairs
MAX_SEALED = 64  # offers in a sealed set

Name = Annotated[str, Field(max_length=128)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Tick = Annotated[int, Field(ge=0, lt=2**48)]
Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_S)]
PackedMark = Annotated[tuple[Tick, Hash], Field(strict=False)]  # version, digest


class OfferHeader(Message):
    """«This is what I learnt in this round»: signed, and bound to the payload by its content id."""

    run_id: Name
    block: Name
    round: Tick
    peer: Name
    codec: Name
    size_bytes: Annotated[int, Field(ge=0, le=2**36)]
    content_id: Hash
    tokens: Annotated[int, Field(ge=0, le=2**48)]  # cumulative, of this peer on this block
    norm: Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]  # of the decoded values
    domain: Name


class SignedOffer(Message):
    """An offer's header as it was signed, so that anybody may pass it on."""

    header: Annotated[bytes, Field(max_length=4096)]
    public_key: Annotated[bytes, Field(max_length=4096)]
    signature: Annotated[bytes, Field(max_length=4096)]


class OfferRequest(Message):
    """«Give me that peer's offer of this round, as soon as you have it.»"""

    block: Name
    round: Tick
    peer: Name
    wait_s: Wait


class ListRequest(Message):
    """«Which offers of this round do you hold, and where does your block stand?»"""

    block: Name
    round: Tick
    wait_s: Wait


class OfferList(Message):
    """The answer: peer → offer id, and the last marks of the block, oldest first, as [version, digest]."""

    offers: Annotated[dict[Name, Hash], Field(max_length=MAX_SEALED)]
    marks: Annotated[list[PackedMark], Field(max_length=MARKS)]
    state_bytes: Annotated[int, Field(ge=0, le=2**40)]  # size of the state at the newest mark, for who must download it


class HistoryRequest(Message):
    """«Which sealed sets made your block what it is, after this version?»"""

    block: Name
    after_version: Annotated[int, Field(ge=0, lt=2**48)]


class SealedRound(Message):
    """One outer step of a block: the sealed set (peer → offer id) and the digest that it led to."""

    version: Tick
    round: Tick
    offers: Annotated[dict[Name, Hash], Field(max_length=MAX_SEALED)]
    digest: Hash


class History(Message):
    """Sealed rounds, oldest first."""

    rounds: Annotated[list[SealedRound], Field(max_length=KEPT_ROUNDS)]


@dataclass(frozen=True)
class Offer:
    """An offer whose signature and payload were checked."""

    header: OfferHeader
    envelope: bytes  # SignedOffer, serialised
    payload: bytes
    offer_id: str  # hash of the signed header


def sign_offer(identity: Identity, header: OfferHeader, payload: bytes) -> Offer:
    """Make this peer's own offer."""
    data = header.SerializeToString()
    signed = SignedOffer(header=data, public_key=identity.public_key, signature=identity.sign(data))
    return Offer(header, signed.SerializeToString(), payload, _offer_id(data))


def open_envelope(envelope: bytes, request: OfferRequest, run_id: str) -> tuple[OfferHeader, str]:
    """Check a signed header against what was asked for; return it with its offer id. Raises PeerError."""
    signed = SignedOffer.FromString(envelope)
    header = OfferHeader.FromString(signed.header)
    asked = (run_id, request.block, request.round, request.peer)
    if (header.run_id, header.block, header.round, header.peer) != asked:
        raise PeerError(f"offer of {header.peer} for {header.block} round {header.round} is not the one asked for")
    if not verify(header.peer, signed.public_key, signed.header, signed.signature):
        raise PeerError(f"offer of {header.peer} for {header.block} round {header.round}: bad signature")
    return header, _offer_id(signed.header)


def check_payload(header: OfferHeader, payload: bytes) -> None:
    """Raise PeerError if `payload` is not what the header was signed for."""
    if len(payload) != header.size_bytes or content_id_of(payload) != header.content_id:
        raise PeerError(f"offer of {header.peer} for {header.block} round {header.round}: damaged payload")


@dataclass
class Book:
    """What is held of one round of one block."""

    offers: dict[str, Offer] = field(default_factory=dict)
    listed: OfferList | None = None


class Offers(ServicerBase):  # type: ignore[misc]
    """Serves this peer's books: its own offers, those it has fetched, its lists, and its blocks' histories."""

    def __init__(self, traffic: Traffic, max_bytes: int = 1 << 30) -> None:
        self.traffic = traffic
        self.max_bytes = max_bytes
        self.lineages: dict[str, deque[SealedRound]] = {}
        self._books: dict[str, OrderedDict[int, Book]] = {}
        self._changed = asyncio.Condition()

    def book(self, block: str, round_: int) -> Book:
        """Return the book of a round, opening it if need be and closing the oldest over the limits."""
        books = self._books.setdefault(block, OrderedDict())
        if round_ not in books:
            books[round_] = Book()
            while len(books) > KEPT_ROUNDS or (len(books) > 2 and self._held_bytes() > self.max_bytes):
                books.popitem(last=False)
        return books[round_]

    def held(self, block: str, round_: int) -> Mapping[str, Offer]:
        """Return the offers of a round that this peer can still serve."""
        book = self._books.get(block, OrderedDict()).get(round_)
        return book.offers if book else {}

    def forget(self, block: str) -> None:
        """Drop everything about a block that this peer has stopped training."""
        self._books.pop(block, None)
        self.lineages.pop(block, None)

    async def put(self, offer: Offer) -> None:
        """Hold an offer and wake those who wait for it."""
        self.book(offer.header.block, offer.header.round).offers.setdefault(offer.header.peer, offer)
        await self._wake()

    async def publish(self, block: str, round_: int, marks: Sequence[Mark], state_bytes: int) -> OfferList:
        """Close gathering: fix the list of what is held and wake those who wait for it."""
        book = self.book(block, round_)
        names = {peer: offer.offer_id for peer, offer in sorted(book.offers.items())}
        packed = [(mark.version, mark.digest) for mark in marks]
        book.listed = OfferList(offers=names, marks=packed, state_bytes=state_bytes)
        await self._wake()
        return book.listed

    async def rpc_offer(self, request: OfferRequest, context: P2PContext) -> Frames:
        """Answer with the signed header in one frame and the payload in the following; nothing if it never came."""
        await self._wait(lambda: request.peer in self.held(request.block, request.round), request.wait_s)
        offer = self.held(request.block, request.round).get(request.peer)
        if offer is None:
            async for frame in end_of_stream():
                yield frame
        else:
            yield Frame(data=offer.envelope)
            async for frame in frames_of(offer.payload):
                self.traffic.sent(len(frame.data))
                yield frame

    async def rpc_list(self, request: ListRequest, context: P2PContext) -> OfferList:
        """Answer once gathering is closed here; an empty list says that it never was."""
        await self._wait(lambda: self._list(request) is not None, request.wait_s)
        return self._list(request) or OfferList(offers={}, marks=[], state_bytes=0)

    async def rpc_history(self, request: HistoryRequest, context: P2PContext) -> History:
        """Answer with the sealed rounds after a version, as far back as they are kept."""
        rounds = self.lineages.get(request.block, ())
        return History(rounds=[r for r in rounds if r.version > request.after_version])

    def _list(self, request: ListRequest) -> OfferList | None:
        book = self._books.get(request.block, OrderedDict()).get(request.round)
        return book.listed if book else None

    async def _wait(self, is_there: Callable[[], bool], wait_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s), self._changed:
                await self._changed.wait_for(is_there)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _held_bytes(self) -> int:
        books = (book for books in self._books.values() for book in books.values())
        return sum(len(offer.payload) for book in books for offer in book.offers.values())


def _offer_id(header: bytes) -> str:
    return hashlib.sha256(header).hexdigest()
