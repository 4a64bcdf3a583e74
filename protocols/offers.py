"""Offers, lists and histories: what a peer serves of its rounds. How a group uses them stands in `gossip.py`, what an
offer is in `parcels.py`.

Nothing is pushed to a peer: it fetches what it wants, so nobody can fill its memory. A request for something that
is not there yet waits (long poll) until it is, or until the time it brought is over.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from configs.content import chunk_of
from configs.names import Count, Digest, Label
from protocols.parcels import MAX_CHUNKS, Equivocation, Offer, Parcel, in_order, packed, unpacked
from protocols.sealing import MARKS, Mark
from protocols.traffic import Cause, Traffic
from protocols.wire import Frame, Frames, Message, end_of_stream

log = logging.getLogger(__name__)

MAX_WAIT_S = 600.0
KEPT_ROUNDS = 24  # of a block, for others' repairs
MAX_SEALED = 64  # offers in a sealed set
COUNT_BYTES = 4  # of the number of chunks, in an answer
MAX_PROOFS = 64  # that peers signed two offers for one round, the newest
MAX_POLLS = 1024  # requests that wait here at the same time; whoever comes then is answered with what there is
MAX_POLLS_OF_PEER = 128  # of one peer: an offer of each member of two of the largest groups

Wait = Annotated[float, Field(ge=0, le=MAX_WAIT_S)]
PackedMark = Annotated[tuple[Count, Digest], Field(strict=False)]  # version, digest


class OfferRequest(Message):
    """«Give me what I lack of that peer's offer of this round, as soon as you have any of it.»

    The answer is a stream: the signed header; the number of chunks, their hashes, and a bitmap of those that follow;
    these chunks, a frame each.
    """

    block: Label
    round: Count
    peer: Label
    wait_s: Wait
    held: Annotated[bytes, Field(max_length=MAX_CHUNKS // 8)] = b""  # bitmap of the chunks that need not be sent
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the payload at which to begin, and go around
    is_backwards: bool = False


class ListRequest(Message):
    """«Which offers of this round do you hold, and where does your block stand?»"""

    block: Label
    round: Count
    wait_s: Wait


class OfferList(Message):
    """The answer: peer → offer id, and the last marks of the block, oldest first, as [version, digest]."""

    offers: Annotated[dict[Label, Digest], Field(max_length=MAX_SEALED)]
    marks: Annotated[list[PackedMark], Field(max_length=MARKS)]
    state_bytes: Count  # size of the state at the newest mark, for who must download it

    @property
    def past(self) -> list[Mark]:
        """The marks, oldest first."""
        return [Mark(version, digest) for version, digest in self.marks]


class HistoryRequest(Message):
    """«Which sealed sets made your block what it is, after this version?»"""

    block: Label
    after_version: Count


class SealedRound(Message):
    """One outer step of a block: the sealed set (peer → offer id) and the digest that it led to."""

    version: Count
    round: Count
    offers: Annotated[dict[Label, Digest], Field(max_length=MAX_SEALED)]
    digest: Digest


class History(Message):
    """Sealed rounds, oldest first."""

    rounds: Annotated[list[SealedRound], Field(max_length=KEPT_ROUNDS)]


@dataclass
class Book:
    """What is held of one round of one block."""

    offers: dict[str, Offer] = field(default_factory=dict)
    parcels: dict[str, Parcel] = field(default_factory=dict)  # on their way
    listed: OfferList | None = None
    # For who looks back; times are those of the event loop.
    came: dict[str, float] = field(default_factory=dict)  # peer → when its offer was held here
    heard: dict[str, float] = field(default_factory=dict)  # when its list was heard
    refused: dict[str, str] = field(default_factory=dict)  # why its offer is not taken
    phases: dict[str, float] = field(default_factory=dict)  # when each came to its end
    sealed: Collection[str] = ()  # whose offers count


class Offers(ServicerBase):  # type: ignore[misc]
    """Serves this peer's books: its own offers, those it has fetched, its lists, and its blocks' histories."""

    def __init__(self, traffic: Traffic, me: str = "", max_bytes: int = 1 << 30) -> None:
        self.traffic, self._me = traffic, me
        self.max_bytes = max_bytes
        self.lineages: dict[str, Sequence[SealedRound]] = {}  # put in place whole, never changed
        self.proofs: OrderedDict[tuple[str, int, str], Equivocation] = OrderedDict()  # by block, round and peer
        self._books: dict[str, dict[int, Book]] = {}  # block → round → book
        self._changed = asyncio.Condition()
        self._polls: Counter[Any] = Counter()  # peer → its requests that wait

    def book(self, block: str, round_: int) -> Book:
        """Return the book of a round, opening it if need be and closing those of the oldest rounds over the limits.

        The one that is opened stays, however old its round: a repair needs it, one after the other.
        """
        books = self._books.setdefault(block, {})
        if round_ not in books:
            books[round_] = Book()
            while len(books) > KEPT_ROUNDS or (len(books) > 2 and self._held_bytes() > self.max_bytes):
                del books[min(books.keys() - {round_})]
        return books[round_]

    def held(self, block: str, round_: int) -> Mapping[str, Offer]:
        """Return the offers of a round that this peer can still serve."""
        book = self._opened(block, round_)
        return book.offers if book else {}

    def forget(self, block: str) -> None:
        """Drop everything about a block that this peer has stopped training."""
        self._books.pop(block, None)
        self.lineages.pop(block, None)

    async def put(self, offer: Offer, *, is_sealed: bool = False) -> None:
        """Hold an offer and wake those who wait for it. Of two of one peer the first is held, but for a sealed one."""
        book = self.book(offer.header.block, offer.header.round)
        held = book.offers.setdefault(offer.header.peer, offer)
        if held.offer_id != offer.offer_id:
            self.accuse(Equivocation(held, offer))
            if is_sealed:
                book.offers[offer.header.peer] = offer
        book.parcels.pop(offer.header.peer, None)
        book.came.setdefault(offer.header.peer, asyncio.get_running_loop().time())
        await self.wake()

    def accuse(self, proof: Equivocation) -> None:
        """Keep the proof that a peer has signed two offers for one round: the first one of each round."""
        about = proof.header.block, proof.header.round, proof.header.peer
        if about not in self.proofs:
            log.warning("%s", proof)
            self.proofs[about] = proof
            if len(self.proofs) > MAX_PROOFS:
                self.proofs.popitem(last=False)

    async def publish(
        self,
        block: str,
        round_: int,
        marks: Sequence[Mark],
        state_bytes: int,
        named: Collection[str] | None = None,  # peers whose offers are named if they are held; None: all
    ) -> OfferList:
        """Close gathering: fix the list of what is held and wake those who wait for it."""
        book = self.book(block, round_)
        held = sorted(book.offers.items())
        names = {peer: offer.offer_id for peer, offer in held if named is None or peer in named}
        points = [(mark.version, mark.digest) for mark in marks]
        book.listed = OfferList(offers=names, marks=points, state_bytes=state_bytes)
        await self.wake()
        return book.listed

    async def rpc_offer(self, request: OfferRequest, context: P2PContext) -> Frames:
        """Answer with what is here of an offer and not there; with nothing if it never came."""
        await self._wait(lambda: bool(self._lacking(request)), request.wait_s, context.remote_id)
        found = self._found(request)
        if found is not None:
            count = len(found.hashes)
            lacking = self._lacking(request)
            yield Frame(found.envelope)
            yield Frame(count.to_bytes(COUNT_BYTES, "big") + b"".join(found.hashes) + packed(lacking, count))
            cause: Cause = "offers" if found.header.peer == self._me else "help"
            with self.traffic.lane(str(context.remote_id), cause) as lane:
                for index in in_order(lacking, count, request.start, is_backwards=request.is_backwards):
                    chunk = chunk_of(found.payload, index)
                    await lane.sent(len(chunk))
                    yield Frame(chunk)
        async for frame in end_of_stream():
            yield frame

    async def rpc_list(self, request: ListRequest, context: P2PContext) -> OfferList:
        """Answer once gathering is closed here; an empty list says that it never was."""
        await self._wait(lambda: self._list(request) is not None, request.wait_s, context.remote_id)
        return self._list(request) or OfferList(offers={}, marks=[], state_bytes=0)

    async def rpc_history(self, request: HistoryRequest, context: P2PContext) -> History:
        """Answer with the sealed rounds after a version, as far back as they are kept."""
        rounds = self.lineages.get(request.block, ())
        return History(rounds=[r for r in rounds if r.version > request.after_version])

    def _list(self, request: ListRequest) -> OfferList | None:
        book = self._opened(request.block, request.round)
        return book.listed if book else None

    def _opened(self, block: str, round_: int) -> Book | None:
        """Return the book of a round if there is one."""
        return self._books.get(block, {}).get(round_)

    async def _wait(self, is_there: Callable[[], bool], wait_s: float, peer: Any) -> None:
        """Wait until it is there or the time is over; not at all for who, or where all, have too many that wait."""
        if self._polls[peer] >= MAX_POLLS_OF_PEER or self._polls.total() >= MAX_POLLS:
            return
        self._polls[peer] += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s), self._changed:
                    await self._changed.wait_for(is_there)
        finally:
            self._polls[peer] -= 1
            self._polls += Counter()  # drops those who have none

    async def wake(self) -> None:
        """Let those look again who wait for something."""
        async with self._changed:
            self._changed.notify_all()

    def _found(self, request: OfferRequest) -> Offer | Parcel | None:
        book = self._opened(request.block, request.round)
        return None if book is None else book.offers.get(request.peer) or book.parcels.get(request.peer)

    def _lacking(self, request: OfferRequest) -> set[int]:
        """Return the chunks that can be had here and are not held there."""
        found = self._found(request)
        if found is None:
            return set()
        here = set(range(len(found.hashes))) if isinstance(found, Offer) else found.held
        return here - unpacked(request.held, len(found.hashes))

    def _held_bytes(self) -> int:
        books = [book for books in self._books.values() for book in books.values()]
        held = sum(len(offer.payload) for book in books for offer in book.offers.values())
        return held + sum(len(parcel.payload) for book in books for parcel in book.parcels.values())
