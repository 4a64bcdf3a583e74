"""The one place at which every call passes, in and out: whoever is not admitted to a closed run gets no further.

Hivemind registers the methods of all services, its DHT's too, by `P2P.add_protobuf_handler`, and makes all calls by two
other methods of that object. `Gate` stands before these three, so that no service can be forgotten. A caller presents
his invitation once, and the peer that he calls presents its own: libp2p proves who both are on every connection.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from hivemind.p2p import P2P, P2PContext, P2PDaemonError, P2PHandlerError, PeerID

from configs.errors import PeerError
from dht.admission import HAS_ENDED, HOW_TO_JOIN, Admission
from dht.invitations import MAX_CHAIN_BYTES, MAX_REVOCATIONS_BYTES, Right

log = logging.getLogger(__name__)

PRESENT = "shoal.present"  # the only call that is taken from everybody
PRESENT_S = 10.0
# What only those may ask who train: to store a record, to have a state kept, and all about offers.
FOR_TRAINING = frozenset({"rpc_store", "rpc_keep", "rpc_offer", "rpc_list", "rpc_history"})
UNKNOWN, NOT_ALLOWED, OUT = "shoal refuses: unknown", "shoal refuses: not allowed", "shoal refuses: out"


class Gate:
    """Stands before the handlers and the calls of a p2pd client, with the admission of a closed run."""

    def __init__(self, p2p: P2P, admission: Admission) -> None:
        self._admission = admission
        self._add, self._call, self._iterate = (
            p2p.add_protobuf_handler,
            p2p.call_protobuf_handler,
            p2p.iterate_protobuf_handler,
        )
        self._met: set[str] = set()  # peers that have presented themselves when this one called them
        self._meeting: dict[str, asyncio.Lock] = {}
        p2p.add_protobuf_handler = self._add_guarded
        p2p.call_protobuf_handler = self._call_guarded
        p2p.iterate_protobuf_handler = self._iterate_guarded

    async def open(self) -> None:
        """Let others present themselves."""
        await self._add(PRESENT, self._presented, Presentation)

    async def pass_on(self, peer_id: str) -> None:
        """Show a peer the newest list of revocations; one that cannot be reached sees it when it is met again."""
        self._met.discard(peer_id)
        try:
            async with asyncio.timeout(PRESENT_S):
                await self._meet(peer_id)
        except (TimeoutError, P2PDaemonError, P2PHandlerError, OSError, EOFError) as error:
            log.debug("revocations were not passed on to %s: %s", peer_id, error)

    async def _presented(self, request: "Presentation", context: P2PContext) -> "Presentation":
        peer_id = context.remote_id.to_base58()
        self._take(peer_id, request)
        return Presentation(self._admission.presentation())

    def _take(self, peer_id: str, presented: "Presentation") -> None:
        try:
            self._admission.meet(peer_id, presented.data)
        except PeerError as error:
            log.debug("%s is not admitted: %s", peer_id, error)
            raise PeerError(OUT if str(error) == HAS_ENDED else UNKNOWN) from None

    async def _add_guarded(
        self, name: str, handler: Callable[..., Any], input_protobuf_type: type[Any], **form: bool
    ) -> None:
        right: Right = "train" if name.rpartition(".")[2] in FOR_TRAINING else "read"

        async def answer(request: Any, context: P2PContext) -> Any:
            self._let_in(context, right)
            return await handler(request, context)

        async def stream(request: Any, context: P2PContext) -> AsyncIterator[Any]:
            self._let_in(context, right)
            async with aclosing(handler(request, context)) as answers:
                async for part in answers:
                    self._let_in(context, right)  # who is revoked meanwhile does not get the rest
                    yield part

        guarded = stream if form.get("stream_output") else answer
        await self._add(name, guarded, input_protobuf_type, **form)

    def _let_in(self, context: P2PContext, right: Right) -> None:
        peer_id = context.remote_id.to_base58()
        if self._admission.allows(peer_id, right):
            return
        known = self._admission.known().get(peer_id)
        raise PeerError(UNKNOWN if known is None else NOT_ALLOWED if right not in known.rights else OUT)

    async def _call_guarded(self, peer_id: PeerID, name: str, *arguments: Any) -> Any:
        await self._meet(peer_id.to_base58())
        try:
            return await self._call(peer_id, name, *arguments)
        except P2PHandlerError as error:
            if UNKNOWN not in str(error):
                raise
        self._met.discard(peer_id.to_base58())  # it was started anew, and has forgotten who was there
        await self._meet(peer_id.to_base58())
        return await self._call(peer_id, name, *arguments)

    async def _iterate_guarded(self, peer_id: PeerID, name: str, *arguments: Any) -> Any:
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
        self._met.discard(peer_id.to_base58())
        await self._meet(peer_id.to_base58())
        async with aclosing(await self._iterate(peer_id, name, *arguments)) as parts:
            async for part in parts:
                yield part

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


def refusal(error: Exception) -> str:
    """Return what a person should do about a refusal at the gate; empty if the error is another one.

    In our own words: those of the other side are a stranger's.
    """
    said = str(error)
    if UNKNOWN in said:
        return HOW_TO_JOIN
    if NOT_ALLOWED in said:
        return "this peer's invitation does not allow that; ask for one with more rights"
    return HAS_ENDED if OUT in said else ""


class Presentation:
    """What two peers show each other: an invitation, and a list of revocations."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:
        """Return the bytes."""
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> "Presentation":
        """Return the presentation. Raises PeerError if it is too long."""
        if len(data) > MAX_CHAIN_BYTES + MAX_REVOCATIONS_BYTES + 16:
            raise PeerError(f"a presentation of {len(data)} bytes")
        return cls(data)
