"""How peers of a closed run show each other their invitations: before the first call, once, and both of them.

All calls are made by two methods of Hivemind's `P2P`; `Presenting` stands before these, so that nobody calls a peer
that is none of the run's, or one that does not know him yet. libp2p proves who both are on every connection.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from hivemind.p2p import P2P, P2PContext, P2PDaemonError, P2PHandlerError, PeerID

from configs.errors import PeerError
from dht.admission import HAS_ENDED, MAX_PRESENTATION_BYTES, Admission
from dht.gate import OUT, PRESENT, UNKNOWN, Bytes
from dht.p2pd import FAILURES

log = logging.getLogger(__name__)

PRESENT_S = 10.0


class Presenting:
    """Stands before the calls of a p2pd client, with the admission of a closed run."""

    def __init__(self, p2p: P2P, admission: Admission) -> None:
        self._p2p, self._admission = p2p, admission
        self._call, self._iterate = p2p.call_protobuf_handler, p2p.iterate_protobuf_handler
        self._met: set[str] = set()  # peers that have presented themselves when this one called them
        self._meeting: dict[str, asyncio.Lock] = {}
        p2p.call_protobuf_handler, p2p.iterate_protobuf_handler = self._call_presented, self._iterate_presented

    async def open(self) -> None:
        """Let others present themselves."""
        await self._p2p.add_protobuf_handler(PRESENT, self._presented, Presentation)

    async def pass_on(self, peer_id: str) -> None:
        """Show a peer the newest list of revocations; one that cannot be reached sees it when it is met again."""
        self._met.discard(peer_id)
        try:
            async with asyncio.timeout(PRESENT_S):
                await self._meet(peer_id)
        except FAILURES as error:  # TimeoutError is an OSError
            log.debug("revocations were not passed on to %s: %s", peer_id, error)

    async def _presented(self, request: "Presentation", context: P2PContext) -> "Presentation":
        self._take(context.remote_id.to_base58(), request)
        return Presentation(self._admission.presentation())

    def _take(self, peer_id: str, presented: "Presentation") -> None:
        try:
            self._admission.meet(peer_id, presented.data)
        except PeerError as error:
            log.debug("%s is not admitted: %s", peer_id, error)
            raise PeerError(OUT if str(error) == HAS_ENDED else UNKNOWN) from None

    async def _call_presented(self, peer_id: PeerID, name: str, *arguments: Any) -> Any:
        await self._meet(peer_id.to_base58())
        try:
            return await self._call(peer_id, name, *arguments)
        except P2PHandlerError as error:
            if UNKNOWN not in str(error):
                raise
        await self._meet_again(peer_id)
        return await self._call(peer_id, name, *arguments)

    async def _iterate_presented(self, peer_id: PeerID, name: str, *arguments: Any) -> Any:
        await self._meet(peer_id.to_base58())
        return self._each(peer_id, name, *arguments)

    async def _each(self, peer_id: PeerID, name: str, *arguments: Any) -> AsyncIterator[Any]:
        has_begun = False
        try:
            async with aclosing(await self._iterate(peer_id, name, *arguments)) as parts:
                async for part in parts:
                    has_begun = True
                    yield part
            return
        except P2PHandlerError as error:
            if has_begun or UNKNOWN not in str(error):
                raise
        await self._meet_again(peer_id)
        async with aclosing(await self._iterate(peer_id, name, *arguments)) as parts:
            async for part in parts:
                yield part

    async def _meet_again(self, peer_id: PeerID) -> None:
        """Present this peer once more: the other was started anew, and has forgotten who was there."""
        self._met.discard(peer_id.to_base58())
        await self._meet(peer_id.to_base58())

    async def _meet(self, peer_id: str) -> None:
        """See to it that a peer and this one have presented themselves. Raises P2PHandlerError: it is no member."""
        if peer_id in self._met and self._admission.allows(peer_id, "read"):
            return
        lock = self._meeting.setdefault(peer_id, asyncio.Lock())
        try:
            async with lock:
                if peer_id not in self._met or not self._admission.allows(peer_id, "read"):
                    await self._present(peer_id)
        finally:
            if not lock.locked():
                self._meeting.pop(peer_id, None)

    async def _present(self, peer_id: str) -> None:
        shown = Presentation(self._admission.presentation())
        try:
            answer = await self._call(PeerID.from_base58(peer_id), PRESENT, shown, Presentation)
        except (P2PDaemonError, P2PHandlerError) as error:
            if "protocols not supported" not in str(error):
                raise
            if not self._admission.is_visiting:
                raise P2PHandlerError(f"peer {peer_id} is in no closed run") from None
        else:
            try:
                self._take(peer_id, answer)
            except PeerError as error:
                raise P2PHandlerError(f"peer {peer_id} is no member of this closed run: {error}") from None
        self._met.add(peer_id)


class Presentation(Bytes):
    """What two peers show each other: an invitation, and a list of revocations."""

    @classmethod
    def FromString(cls, data: bytes) -> "Presentation":
        """Return the presentation. Raises PeerError if it is too long."""
        if len(data) > MAX_PRESENTATION_BYTES:
            raise PeerError(f"a presentation of {len(data)} bytes")
        return cls(data)
