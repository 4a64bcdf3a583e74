"""Adds up numbers of a few peers that know each other's number, step by step, so that each learns only the sums.

One of them, the host, gives out seats to who knows its word, and when all are taken sends everybody the terms: who
takes part, and what they are about to do. From then on each participant keeps one stream open to each of the others, on
which that one says its numbers of every step, masked (masks.py), with a digest of the last sum: who was told another
one than the others is noticed in the next step. All add up by themselves; nobody is trusted with a sum.

    host      Meeting(me, seats, word) → seated() → open(terms, tokenizer) → Circle
    others    join(stub, …) → terms, tokenizer → Meeting(me).open(terms) → Circle
    Circle    begin(), add(values), add(values), …, end()

A stream that breaks is opened again where it was. Somebody who is silent for GONE_S ends it for all, by name.
"""

import asyncio
import hashlib
import hmac
import logging
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Annotated, Any, ClassVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from configs.corpus import MAX_DOMAINS
from configs.errors import NetworkError, PeerError
from configs.names import MAX_ADDRESSES, Address, Count, Digest, PeerId, Positive, Share
from protocols.masks import KEY_BYTES, Masks, Words
from protocols.wire import FRAME_BYTES, Frame, Frames, Message, call, each_frame, frames_of

log = logging.getLogger(__name__)

MAX_SEATS = 16
MAX_TOKENIZER_BYTES = 64 << 20
BEAT_S = 5.0  # after which a stream with nothing to say says that it is alive
GONE_S = 60.0  # of silence, after which a participant counts as gone
RETRY_S = 0.5
CALL_S = 15.0
END_S = 30.0  # that the others have to take the last numbers
READING_STEPS = 2  # the first steps: before them everybody reads text, however much it is
STEP_S = 600.0  # for each later one
BEAT = b"\0"
WRONG_WORD = "the word after # is another one there; paste the whole line that the first one printed"
NO_SEAT = "all seats are taken there; begin anew, with a larger --together"
NO_MEMBER = "that is another meeting than this one"
HEAD = struct.Struct(">4sQQ32s")  # of a step's numbers: mark, step, how many, digest of the sum before
MARK = b"sums"


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
        if not self._word or not hmac.compare_digest(self._word.encode(), request.word.encode()):
            raise PeerError(WRONG_WORD)
        if self.terms is not None or (peer not in self.roster and len(self.roster) >= self._seats):
            raise PeerError(NO_SEAT)
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
            raise PeerError(NO_MEMBER)
        self._listeners += 1
        try:
            yield Frame(self.key.public_key().public_bytes_raw())
            step = request.step
            while True:
                async for frame in self._beats(partial(self._has_come_to, step)):
                    yield frame
                if step not in self._said:
                    raise PeerError("those numbers are gone")
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


async def join(stub: Any, request: JoinRequest) -> tuple[Terms, bytes]:
    """Take a seat at a host's meeting, wait until all are taken, and return the terms and the tokenizer.

    Raises NetworkError (the host is gone, or refuses: says why), PeerError (nonsense).
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
                elif bytes(frame.data) != BEAT:
                    terms = Terms.FromString(bytes(frame.data))
    except NetworkError as error:
        refused = next((each for each in (WRONG_WORD, NO_SEAT) if each in str(error)), None)
        raise NetworkError(refused or f"the first participant is gone ({error}); begin again with it") from None
    if terms is None or hashlib.sha256(data).hexdigest() != terms.tokenizer:
        raise PeerError("the first participant sent another tokenizer than it says; begin again")
    return terms, bytes(data)


class Circle:
    """Adds up with all others; made when the terms are known."""

    def __init__(self, meeting: Meeting, stub: Callable[[str], Any]) -> None:
        assert meeting.terms is not None
        self._meeting, self._terms = meeting, meeting.terms
        self._ears = [
            _Ear(peer, meeting.terms, stub) for peer in sorted(meeting.terms.participants) if peer != meeting.me
        ]
        self._masks: Masks | None = None
        self._step = 0
        self._digest = bytes(32)  # of the last sum

    async def begin(self) -> None:
        """Hear the others' keys. Raises NetworkError, PeerError: one line that names who is gone or wrong."""
        keys = await _all(ear.key() for ear in self._ears)
        others = {ear.peer: key for ear, key in zip(self._ears, keys, strict=True)}
        self._masks = Masks(self._meeting.me, self._meeting.key, others, self._terms.digest.encode())

    async def add(self, values: Words) -> Words:
        """Return the sums (N,), modulo 2^32, over all participants, of this one's values (N,). Raises as `begin`."""
        assert self._masks is not None, "begin comes first"
        step, head = self._step, HEAD.pack(MARK, self._step, values.size, self._digest)
        masked = self._masks.masked(values, step)
        self._meeting.say(step, head + masked.astype("<u4").tobytes())
        timeout_s = None if step < READING_STEPS else STEP_S
        for heard in await _all(ear.numbers(head, timeout_s) for ear in self._ears):
            masked = masked + heard
        self._step += 1
        self._digest = hashlib.sha256(masked.astype("<u4").tobytes()).digest()
        return masked

    async def end(self) -> None:
        """Hang up, and wait until the others have taken the last numbers."""
        for ear in self._ears:
            await ear.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await self._meeting.heard()


class _Ear:
    """Listens to one participant, over as many streams as it takes."""

    def __init__(self, peer: str, terms: Terms, stub: Callable[[str], Any]) -> None:
        self.peer, self._terms, self._stub = peer, terms, stub
        self._key = b""
        self._step = 0
        self._frames: AsyncIterator[Frame] | None = None
        self._heard_at = 0.0

    async def key(self) -> bytes:
        """Return its public key."""
        await self._patiently(self._open)
        return self._key

    async def numbers(self, head: bytes, timeout_s: float | None) -> Words:
        """Return its masked numbers of the next step, whose head must be `head`."""
        try:
            async with asyncio.timeout(timeout_s):
                data = await self._patiently(lambda: self._numbers(head))
        except TimeoutError:
            raise NetworkError(
                f"{self._terms.name(self.peer)} has not done its step in {timeout_s:.0f} s; nothing was written: "
                "begin again, with or without it"
            ) from None
        self._step += 1
        return np.frombuffer(data, dtype="<u4").astype(np.uint32)

    async def close(self) -> None:
        """Hang up."""
        if self._frames is not None:
            frames, self._frames = self._frames, None
            await frames.aclose()  # type: ignore[attr-defined]

    async def _patiently(self, listen: Callable[[], Any]) -> Any:
        """Listen; over a new stream if one breaks, until this participant was silent for GONE_S."""
        now = asyncio.get_running_loop().time
        self._heard_at = now()
        while True:
            try:
                return await listen()
            except PeerError as error:
                raise PeerError(f"{self._terms.name(self.peer)}: {error}") from None
            except NetworkError as error:
                log.debug("%s: %s", self.peer, error)
                await self.close()
                if now() - self._heard_at >= GONE_S or NO_MEMBER in str(error):
                    raise NetworkError(
                        f"{self._terms.name(self.peer)} is gone ({error}); nothing was written: begin again, with or "
                        "without it"
                    ) from None
            await asyncio.sleep(RETRY_S)

    async def _open(self) -> None:
        request = SumsRequest(terms=self._terms.digest, step=self._step)
        stream = await call(self._stub(self.peer).rpc_sums, request, CALL_S)
        self._frames = each_frame(stream, GONE_S)
        key = await self._frame()
        if len(key) != KEY_BYTES or self._key not in (b"", key):
            raise PeerError("it shows another key than before")
        self._key = key

    async def _numbers(self, head: bytes) -> bytes:
        if self._frames is None:
            await self._open()
        told = await self._frame()
        if told != head:
            raise PeerError(_difference(told, head))
        _, _, count, _ = HEAD.unpack(head)
        data = bytearray()
        while len(data) < 4 * count:
            data += await self._frame()
        if len(data) != 4 * count:
            raise PeerError("it said more numbers than it announced")
        return bytes(data)

    async def _frame(self) -> bytes:
        """Return the next frame that says something."""
        assert self._frames is not None
        async for frame in self._frames:
            self._heard_at = asyncio.get_running_loop().time()
            if bytes(frame.data) != BEAT:
                return bytes(frame.data)
        raise NetworkError("it hung up")


def _difference(told: bytes, head: bytes) -> str:
    """Say how the head of somebody's numbers differs from what it must be."""
    try:
        mark, step, count, digest = HEAD.unpack(told)
    except struct.error:
        return "what it says are no numbers"
    _, own_step, own_count, own_digest = HEAD.unpack(head)
    if mark != MARK or step != own_step or count != own_count:
        return f"it says {count} numbers of step {step}, where {own_count} of step {own_step} are due"
    assert digest != own_digest
    return "it was told another sum than this one was: somebody says different numbers to different participants"


async def _all(works: Any) -> Sequence[Any]:
    """Do works at the same time and return their results; the first error ends all, and is raised by itself."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
