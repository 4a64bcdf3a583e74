"""Adds up with all other participants of a meeting (sums.py): hears their masked numbers of each step, and sums them.

A stream that breaks is opened again where it was. Somebody who is silent for GONE_S ends it for all, by name.
"""

import asyncio
import hashlib
import logging
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from configs.errors import NetworkError, PeerError
from protocols.masks import KEY_BYTES, Masks, Words
from protocols.sums import BEAT, CALL_S, GONE_S, HEAD, REFUSALS, Meeting, SumsRequest, Terms
from protocols.wire import Frame, call, each_frame

log = logging.getLogger(__name__)

MARK = b"sums"
RETRY_S = 0.5
END_S = 30.0  # that the others have to take the last numbers
READING_STEPS = 2  # the first steps: before them everybody reads text, however much it is
STEP_S = 600.0  # for each later one


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
                if now() - self._heard_at >= GONE_S:
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
            if reason := REFUSALS.get(bytes(frame.data)):
                raise PeerError(reason)
            if bytes(frame.data) != BEAT:
                return bytes(frame.data)
        raise NetworkError("it hung up; see there what it says")


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
