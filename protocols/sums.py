"""Adds up numbers of a few peers that know each other's number, step by step, so that each learns only the sums.

One of them, the host, gives out seats to who knows its word, and when all are taken sends everybody the terms: who
takes part, and what they are about to do. From then on each participant keeps one stream open to each of the others, on
which that one says its numbers of every step, masked (masks.py), with a digest of the last sum: who was told another
one than the others is noticed in the next step. All add up by themselves; nobody is trusted with a sum.

    host      Meeting(me, seats, word) → seated() → open(terms, tokenizer) → Circle
    others    join(stub, …) → terms, tokenizer → Meeting(me).open(terms) → Circle

This is what is served; circle.py listens and adds up.
"""

import asyncio
import hashlib
import hmac
import struct
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, ClassVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from configs.corpus import MAX_DOMAINS
from configs.errors import NetworkError, PeerError, UsageError
from configs.names import MAX_ADDRESSES, Address, Count, Digest, PeerId, Positive, Share
from protocols.wire import FRAME_BYTES, Frame, Frames, Message, call, each_frame, end_of_stream, frames_of

MAX_SEATS = 16
MAX_TOKENIZER_BYTES = 64 << 20
BEAT_S = 5.0  # after which a stream with nothing to say says that it is alive
GONE_S = 60.0  # of silence, after which a participant counts as gone
CALL_S = 15.0
BEAT = b"\0"
WRONG_WORD = "the word after # is another one there; paste the whole line that the first one printed"
NO_SEAT = "all seats are taken there; begin anew, with a larger --together"
NO_MEMBER = "it is at another meeting than this one"
NUMBERS_GONE = "it was asked for numbers that everybody had"
REFUSALS = {reason.encode(): reason for reason in (WRONG_WORD, NO_SEAT, NO_MEMBER, NUMBERS_GONE)}
HEAD = struct.Struct(">4sQQ32s")  # of a step's numbers: mark, step, how many, digest of the sum before


class JoinRequest(Message):
    """«I take a seat. This is the word, and here I am.»"""

    word: Annotated[str, Field(max_length=64)]
    addresses: Annotated[list[Address], Field(max_length=MAX_ADDRESSES)]


class Terms(Message):
    """What all participants have in common, as the host says it."""

    max_bytes: ClassVar[int] = FRAME_BYTES

    participants: Annotated[
        dict[PeerId, Annotated[list[Address], Field(max_length=MAX_ADDRESSES)]],
        Field(min_length=2, max_length=MAX_SEATS),
    ]
    domains: Annotated[int, Field(ge=1, le=MAX_DOMAINS)]
    seed: Count
    context_length: Positive
    heldout_share: Share
    vocab_size: Annotated[int, Field(ge=2, le=1 << 20)]
    tokenizer: Digest  # SHA-256
    tokenizer_bytes: Annotated[int, Field(ge=1, le=MAX_TOKENIZER_BYTES)]

    @property
    def digest(self) -> str:
        """A SHA-256 of all of it."""
        return hashlib.sha256(self.SerializeToString()).hexdigest()

    def name(self, peer: str) -> str:
        """Return what people call a participant."""
        return f"participant {peer} ({next(iter(self.participants.get(peer, [])), 'of no known address')})"


class SumsRequest(Message):
    """«Tell me your numbers from this step on.»"""

    terms: Digest
    step: Count


class Meeting(ServicerBase):  # type: ignore[misc]
    """One participant's side of a meeting, as the others ask it. The host has seats and a word for all but itself."""

    def __init__(self, me: str, seats: int = 0, word: str = "") -> None:
        self.me, self._seats, self._word = me, seats, word
        self.terms: Terms | None = None
        self.roster: dict[str, list[str]] = {}  # who has a seat, and where
        self.key = X25519PrivateKey.generate()
        self._tokenizer = b""
        self._said: dict[int, bytes] = {}  # step → its head and numbers; the last two
        self._listeners = 0
        self._news = asyncio.Event()

    async def seated(self, on_change: Callable[[int], None] = lambda taken: None) -> None:
        """Wait until all seats are taken; `on_change` is told how many are."""
        told = -1
        while len(self.roster) < self._seats:
            if told != len(self.roster):
                on_change(told := len(self.roster))
            await self._news.wait()
        on_change(len(self.roster))

    def open(self, terms: Terms, tokenizer: bytes = b"") -> None:
        """Let the terms hold; those who have a seat hear of them. Only the host gives the tokenizer."""
        self.terms, self._tokenizer = terms, tokenizer
        self._tell()

    def say(self, step: int, said: bytes) -> None:
        """Say the numbers of a step; those of two steps ago everybody has."""
        self._said[step] = said
        self._said.pop(step - 2, None)
        self._tell()

    async def heard(self) -> None:
        """Wait until nobody listens any more."""
        while self._listeners:
            await self._news.wait()

    async def rpc_join(self, request: JoinRequest, context: P2PContext) -> Frames:
        """Give a seat as long as the stream is open; when all are taken send the terms and the tokenizer."""
        peer = context.remote_id.to_base58()
        is_known = hmac.compare_digest(self._word.encode(), request.word.encode())
        if not (self._word and is_known):
            async for frame in _refusal(WRONG_WORD):
                yield frame
            return
        if self.terms is not None or (peer not in self.roster and len(self.roster) >= self._seats):
            async for frame in _refusal(NO_SEAT):
                yield frame
            return
        self.roster[peer] = list(request.addresses)
        self._tell()
        try:
            async for frame in self._beats(lambda: self.terms is not None):
                yield frame
            assert self.terms is not None
            yield Frame(self.terms.SerializeToString())
            async for frame in frames_of(self._tokenizer):
                yield frame
        finally:
            if self.terms is None:
                self.roster.pop(peer, None)
                self._tell()

    async def rpc_sums(self, request: SumsRequest, context: P2PContext) -> Frames:
        """Say this participant's key, and its numbers step by step."""
        async for frame in self._beats(lambda: self.terms is not None):
            yield frame
        assert self.terms is not None
        if context.remote_id.to_base58() not in self.terms.participants or request.terms != self.terms.digest:
            async for frame in _refusal(NO_MEMBER):
                yield frame
            return
        self._listeners += 1
        try:
            yield Frame(self.key.public_key().public_bytes_raw())
            step = request.step
            while True:
                async for frame in self._beats(partial(self._has_come_to, step)):
                    yield frame
                if step not in self._said:
                    async for frame in _refusal(NUMBERS_GONE):
                        yield frame
                    return
                said = memoryview(self._said[step])
                yield Frame(said[: HEAD.size])
                for at in range(HEAD.size, len(said), FRAME_BYTES):
                    yield Frame(said[at : at + FRAME_BYTES])
                step += 1
        finally:
            self._listeners -= 1
            self._tell()

    def _has_come_to(self, step: int) -> bool:
        return any(step <= said for said in self._said)

    async def _beats(self, is_so: Callable[[], bool]) -> Frames:
        """Yield a beat now and then until something is so."""
        while not is_so():
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._news.wait()
            except TimeoutError:
                yield Frame(BEAT)

    def _tell(self) -> None:
        """Wake all who wait for something to change."""
        self._news.set()
        self._news = asyncio.Event()


async def _refusal(reason: str) -> Frames:
    """Say why there is nothing to say. (An error that leaves a handler is a traceback in the log.)"""
    yield Frame(reason.encode())
    async for frame in end_of_stream():
        yield frame


async def join(stub: Any, request: JoinRequest) -> tuple[Terms, bytes]:
    """Take a seat at a host's meeting, wait until all are taken, and return the terms and the tokenizer.

    Raises UsageError (the host refuses: says why), NetworkError (it is gone), PeerError (nonsense).
    """
    terms, data = None, bytearray()
    try:
        stream = await call(stub.rpc_join, request, CALL_S)
        async with aclosing(each_frame(stream, GONE_S)) as frames:  # type: ignore[type-var]
            async for frame in frames:
                if terms is not None:
                    data += frame.data
                    if len(data) > terms.tokenizer_bytes:
                        break
                elif reason := REFUSALS.get(bytes(frame.data)):
                    raise UsageError(reason)
                elif bytes(frame.data) != BEAT:
                    terms = Terms.FromString(bytes(frame.data))
    except NetworkError as error:
        raise NetworkError(f"the first participant is gone ({error}); begin again with it") from None
    if terms is None or hashlib.sha256(data).hexdigest() != terms.tokenizer:
        raise PeerError("the first participant sent another tokenizer than it says; begin again")
    return terms, bytes(data)
