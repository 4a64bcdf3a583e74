"""An offer, whole or on its way: the signed header, the hashes of the payload's chunks, and the chunks that are here.

Chunks are checked as they arrive, so an offer may come from several members at once, be taken up again after an
interruption, and be passed on before it is complete.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated

import numpy as np
from pydantic import Field

from configs.content import CHUNK_BYTES, HASH_BYTES, Buffer, content_id, hash_chunk, num_chunks, split_hashes
from configs.errors import PeerError
from configs.names import Count, Digest, Label
from dht.identity import Identity, verify
from protocols.wire import FRAME_BYTES, Message

MAX_CONVICTED = 64  # proofs of equivocation whose verdict is kept
MAX_CHUNKS = 8000  # their hashes travel in one frame: offers of up to 2 GB

assert CHUNK_BYTES <= FRAME_BYTES  # a chunk travels as one frame
assert MAX_CHUNKS * HASH_BYTES + MAX_CHUNKS // 8 < FRAME_BYTES


class OfferHeader(Message):
    """«This is what I learnt in this round»: signed, and bound to the payload by its content id."""

    run_id: Label
    block: Label
    round: Count
    peer: Label
    codec: Label
    size_bytes: Annotated[int, Field(ge=0, le=MAX_CHUNKS * CHUNK_BYTES)]
    content_id: Digest
    tokens: Count  # cumulative, of this peer on this block
    norm: Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]  # of the decoded values
    domain: Label
    # In a random group, a fragment of the anchor follows the values in the payload:
    fragment: Annotated[int, Field(ge=0, lt=1024)] | None = None
    fresh_tokens: Count = 0  # those that no counted offer had before
    age: Count = 0  # of the block here, before the round


class SignedOffer(Message):
    """An offer's header as it was signed, so that anybody may pass it on."""

    header: Annotated[bytes, Field(max_length=4096)]
    public_key: Annotated[bytes, Field(max_length=4096)]
    signature: Annotated[bytes, Field(max_length=4096)]


@dataclass(frozen=True)
class Offer:
    """An offer whose signature and payload were checked."""

    header: OfferHeader
    envelope: bytes  # SignedOffer, serialised
    hashes: Sequence[bytes]  # of the payload's chunks
    payload: Buffer
    offer_id: str  # hash of the signed header


@dataclass
class Parcel:
    """An offer of which some chunks are here. `claimed` are those that a stream under way is about to bring."""

    header: OfferHeader
    envelope: bytes
    hashes: Sequence[bytes]
    offer_id: str
    payload: memoryview = field(init=False)
    held: set[int] = field(default_factory=set)
    claimed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.payload = np.empty(self.header.size_bytes, dtype=np.uint8).data

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is here."""
        return len(self.held) == len(self.hashes)

    def add(self, index: int, chunk: Buffer) -> None:
        """Check a chunk and keep it. Raises PeerError if it is not the one that was signed for."""
        expected = self.hashes[index] if index < len(self.hashes) else b""
        if hash_chunk(chunk) != expected:
            raise PeerError(f"{describe(self.header)}: damaged chunk {index}")
        self.payload[index * CHUNK_BYTES : index * CHUNK_BYTES + len(chunk)] = chunk
        self.held.add(index)

    def offer(self) -> Offer:
        """Return the offer; every chunk must be here."""
        assert self.is_complete
        return Offer(self.header, self.envelope, self.hashes, self.payload, self.offer_id)


class Equivocation(PeerError):
    """A peer has signed two offers for one round. Who has both envelopes can prove it to anybody."""

    def __init__(self, one: Offer | Parcel, other: Offer | Parcel) -> None:
        super().__init__(f"{describe(one.header)}: there is a second one, signed by the same peer")
        self.header = one.header
        self.envelopes = (one.envelope, other.envelope)  # SignedOffer each, serialised; their signatures were checked


def sign_offer(identity: Identity, header: OfferHeader, payload: Buffer, hashes: Sequence[bytes]) -> Offer:
    """Make this peer's own offer; `hashes` are those of the payload's chunks, by which the header names it."""
    data = header.SerializeToString()
    signed = SignedOffer(header=data, public_key=identity.public_key, signature=identity.sign(data))
    return Offer(header, signed.SerializeToString(), hashes, payload, _offer_id(data))


def open_parcel(envelope: bytes, hashes: bytes, run_id: str, about: tuple[str, int, str], max_bytes: int) -> Parcel:
    """Check a signed header and its chunk hashes against what was asked for: `about` is (block, round, peer).

    Raises PeerError for anything else, and for a payload of more than `max_bytes`.
    """
    signed = SignedOffer.FromString(envelope)
    header = OfferHeader.FromString(signed.header)
    if (header.run_id, header.block, header.round, header.peer) != (run_id, *about):
        raise PeerError(f"{describe(header)} is not the one asked for")
    if not verify(header.peer, signed.public_key, signed.header, signed.signature):
        raise PeerError(f"{describe(header)}: bad signature")
    if header.size_bytes > max_bytes:
        raise PeerError(f"{describe(header)}: {header.size_bytes} bytes; at most {max_bytes} are allowed")
    split = split_hashes(hashes)
    if len(split) != num_chunks(header.size_bytes) or content_id(split, header.size_bytes) != header.content_id:
        raise PeerError(f"{describe(header)}: its chunk hashes are not those of what was signed")
    return Parcel(header, envelope, split, _offer_id(signed.header))


@lru_cache(MAX_CONVICTED)  # the same proofs are met again at every tick, and a verification costs
def convicted(one: bytes, other: bytes, run_id: str) -> OfferHeader:
    """Return the header of an offer of which a peer has signed another for the same round; both are `SignedOffer`s.

    Raises PeerError if they prove nothing of the kind.
    """
    signed = [SignedOffer.FromString(envelope) for envelope in (one, other)]
    first, second = headers = [OfferHeader.FromString(each.header) for each in signed]
    about = [(header.run_id, header.block, header.round, header.peer) for header in headers]
    if about[0] != about[1] or first.run_id != run_id or signed[0].header == signed[1].header:
        raise PeerError(f"{describe(first)} and {describe(second)} are not two for one round")
    for header, each in zip(headers, signed, strict=True):
        if not verify(header.peer, each.public_key, each.header, each.signature):
            raise PeerError(f"{describe(header)}: bad signature")
    return first


def packed(indices: Collection[int], count: int) -> bytes:
    """Return a set of chunks as a bitmap of `count` bits."""
    bitmap = bytearray(-(-count // 8))
    for index in indices:
        bitmap[index // 8] |= 1 << index % 8
    return bytes(bitmap)


def unpacked(bitmap: bytes, count: int) -> set[int]:
    """Return the chunks below `count` that a bitmap names; bits that are not there are not set."""
    return {index for index in range(min(count, 8 * len(bitmap))) if bitmap[index // 8] >> index % 8 & 1}


def in_order(indices: Collection[int], count: int, start: float, *, is_backwards: bool) -> Iterator[int]:
    """Yield chunks from the share `start` of the payload on, around it once, or the same way backwards."""
    first = int(start * count)
    yield from sorted(indices, key=lambda index: (index - first) % max(1, count), reverse=is_backwards)


def describe(header: OfferHeader) -> str:
    """Name an offer in a message for people."""
    return f"offer of {header.peer} for {header.block} round {header.round}"


def _offer_id(header: bytes) -> str:
    return hashlib.sha256(header).hexdigest()
