"""The one place at which every call comes in: it has limits, and whoever is not admitted gets no further.

Hivemind registers the methods of all services, its DHT's too, by `P2P.add_protobuf_handler`. `Gate` stands before that
one, so that no service can be forgotten.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from hivemind.p2p import P2P, P2PContext, PeerID

from configs.errors import PeerError
from dht.admission import HAS_ENDED, HOW_TO_JOIN, Admission
from dht.invitations import Right
from dht.limits import HOLD_S, Limits, Refused
from dht.p2pd import hang_up

log = logging.getLogger(__name__)

PRESENT = "shoal.present"  # the only call that a closed run takes from everybody
# What only those may ask who train: to store a record, to have a state kept, and all about offers.
DHT = "DHTProtocol."  # in the names of Hivemind's own calls
FOR_TRAINING = frozenset({"rpc_store", "rpc_keep", "rpc_offer", "rpc_list", "rpc_history"})
UNKNOWN, NOT_ALLOWED, OUT = "shoal refuses: unknown", "shoal refuses: not allowed", "shoal refuses: out"


class Bytes:
    """A request that was not read yet, or an answer that is written already."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:
        """Return the bytes themselves."""
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> "Bytes":
        """Return them as they are."""
        return cls(data)


class Gate:
    """Stands before the handlers of a p2pd client; `admission` is that of a closed run.

    A request is read only when its sender is let in; those that open a stream are read before.
    """

    def __init__(self, p2p: P2P, admission: Admission | None = None) -> None:
        self._p2p, self._admission, self.limits = p2p, admission, Limits()
        self.dht_in, self.dht_out = 0, 0  # bytes of the DHT's calls and answers, both ways
        self._add, self._call = p2p.add_protobuf_handler, p2p.call_protobuf_handler
        self._putting_out: set[asyncio.Task[None]] = set()
        p2p.add_protobuf_handler = self._add_guarded
        p2p.call_protobuf_handler = self._call_counted

    async def _add_guarded(
        self, name: str, handler: Callable[..., Any], input_protobuf_type: Any, **form: bool
    ) -> None:
        right: Right | None = "train" if name.rpartition(".")[2] in FOR_TRAINING else "read"
        if name == PRESENT:
            right = None

        async def answer(request: Bytes, context: P2PContext) -> Bytes:
            async with self._counted(context, len(request.data)):
                self._let_in(context, right)
                answer = await handler(input_protobuf_type.FromString(request.data), context)
                data = answer.SerializeToString()
                self.limits.answered(context.remote_id.to_base58(), len(data))
                if DHT in name:
                    self.dht_in += len(request.data)
                    self.dht_out += len(data)
                return Bytes(data)

        async def stream(request: Any, context: P2PContext) -> AsyncIterator[Any]:
            async with self._counted(context, 0):
                self._let_in(context, right)
                async with aclosing(handler(request, context)) as answers:
                    async for part in answers:
                        self._let_in(context, right)  # who is revoked meanwhile does not get the rest
                        yield part

        if form.get("stream_output"):
            await self._add(name, stream, input_protobuf_type, **form)
        else:
            await self._add(name, answer, Bytes, **form)

    async def _call_counted(self, peer_id: PeerID, name: str, input: Any, output_protobuf_type: Any) -> Any:
        """Call another peer, and count what the DHT's calls and answers have of bytes."""
        answer = await self._call(peer_id, name, input, output_protobuf_type)
        if DHT in name:
            self.dht_out += input.ByteSize()
            self.dht_in += answer.ByteSize()
        return answer

    @property
    def dht_bytes(self) -> tuple[int, int]:
        """How many bytes of the DHT's calls and answers have come in and gone out."""
        return self.dht_in, self.dht_out

    def _let_in(self, context: P2PContext, right: Right | None) -> None:
        peer_id = context.remote_id.to_base58()
        if self._admission is None or right is None or self._admission.allows(peer_id, right):
            return
        known = self._admission.known().get(peer_id)
        raise PeerError(UNKNOWN if known is None else NOT_ALLOWED if right not in known.rights else OUT)

    @asynccontextmanager
    async def _counted(self, context: P2PContext, size_bytes: int) -> AsyncIterator[None]:
        """Count a call while it is answered, and let it wait for its turn. Raises PeerError: there are too many."""
        peer_id = context.remote_id.to_base58()
        try:
            delay_s = self.limits.enter(peer_id, size_bytes)
        except Refused as refused:
            if refused.is_out:
                self._put_out(context.remote_id)
            if refused.is_held:
                try:
                    await asyncio.sleep(HOLD_S)
                finally:
                    self.limits.release(peer_id, size_bytes)
            raise PeerError(str(refused)) from None
        try:
            if delay_s:
                await asyncio.sleep(delay_s)
            yield
        finally:
            self.limits.leave(peer_id, size_bytes)

    def _put_out(self, peer_id: PeerID) -> None:
        """Cut the connections of a peer. It may dial again, and is cut off at its first call until its time is over."""
        if not any(task.get_name() == str(peer_id) for task in self._putting_out):
            log.debug("%s calls without end; it is cut off", peer_id)
            task = asyncio.get_running_loop().create_task(hang_up(self._p2p, peer_id), name=str(peer_id))
            self._putting_out.add(task)
            task.add_done_callback(self._putting_out.discard)


def refusal(error: Exception) -> str:
    """Return what a person should do about a refusal at a closed run's gate; empty if the error is another one.

    In our own words: those of the other side are a stranger's.
    """
    said = str(error)
    if UNKNOWN in said:
        return HOW_TO_JOIN
    if NOT_ALLOWED in said:
        return "this peer's invitation does not allow that; ask for one with more rights"
    return HAS_ENDED if OUT in said else ""
