"""A network in memory with the face of `dht.network.Network`: calls travel as bytes, late, or not at all."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hivemind.p2p import P2PDaemonError, PeerID

from configs.errors import NetworkError
from dht.identity import Identity

DELAY_S = (0.002, 0.03)  # of one message


@dataclass
class Air:
    """What lies between all peers: who is there, what the DHT holds, and what is wrong."""

    chance: random.Random
    there: dict[str, "Network"] = field(default_factory=dict)
    records: dict[str, dict[str, tuple[bytes, float]]] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # peers whose calls, and calls to whom, fail
    mute: set[str] = field(default_factory=set)  # the same, but their records are there: nobody else knows
    sides: dict[str, int] = field(default_factory=dict)  # of a network that is divided; a peer that is not in it: all
    apart: list[set[str]] = field(default_factory=list)  # pairs that cannot reach each other
    slow: dict[str, float] = field(default_factory=dict)  # peer → factor of its delays

    async def travel(self, source: str, target: str) -> None:
        """Take as long as one message takes. Raises P2PDaemonError if it does not arrive."""
        factor = max(self.slow.get(source, 1.0), self.slow.get(target, 1.0))
        await asyncio.sleep(factor * self.chance.uniform(*DELAY_S))
        ends = {source, target}
        is_divided = len({self.sides[peer] for peer in ends if peer in self.sides}) > 1
        if is_divided or not ends <= self.there.keys() or ends & (self.lost | self.mute) or ends in self.apart:
            raise P2PDaemonError("failed to dial")

    def holds(self, reader: str, writer: str) -> bool:
        """Whether a record that one peer has written is to be had by another."""
        return len({self.sides[peer] for peer in (reader, writer) if peer in self.sides}) < 2


class Network:
    """One peer's end."""

    def __init__(self, air: Air, identity: Identity, now: Callable[[], float]) -> None:
        self.identity, self.peer_id = identity, identity.peer_id
        self._air, self._now = air, now
        self.host = "192.0.2.1"
        self._services: dict[tuple[type, str | None], Any] = {}
        self._answering: set[asyncio.Task[Any]] = set()
        self._stubs: dict[tuple[type, str, str | None], Any] = {}
        self.admission = None  # the run is open
        self.links: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        air.there[self.peer_id] = self

    def close(self) -> None:
        self._air.there.pop(self.peer_id, None)
        for task in list(self._answering):
            task.cancel()

    async def addresses(self) -> list[str]:
        return [f"/ip4/{self.host}/tcp/4001/p2p/{self.peer_id}"]

    async def connected(self) -> set[str]:
        return set(self._air.there)

    def records(self) -> int:
        return 0

    def neighbours(self) -> set[str]:
        return set(self._air.there)

    async def seen_at(self, peer_id: str) -> list[str]:
        return []  # nobody asks in these swarms: it is p2pd's to know

    async def remember(self, peer_id: str, addresses: object) -> None:
        pass

    async def open_dht(self, initial_peers: Sequence[str], run_id: str, tick_s: float) -> None:
        pass

    async def broken(self) -> None:
        await asyncio.Event().wait()

    async def store(self, key: str, subkey: str, value: bytes, expiration: float) -> bool:
        await asyncio.sleep(self._air.chance.uniform(*DELAY_S))
        if self.peer_id in self._air.lost or self.peer_id not in self._air.there:
            return False
        entries = self._air.records.setdefault(key, {})
        if subkey not in entries or entries[subkey][1] < expiration:
            entries[subkey] = (bytes(value), expiration)
        return True

    async def fetch(self, key: str) -> dict[str, bytes]:
        await asyncio.sleep(self._air.chance.uniform(*DELAY_S))
        if self.peer_id in self._air.lost:
            raise NetworkError("the DHT did not answer")
        now, records = self._now(), self._air.records.get(key, {})
        held = {name: value for name, (value, until) in records.items() if until > now}
        return {name: value for name, value in held.items() if self._air.holds(self.peer_id, name)}

    async def serve(self, servicer: Any, namespace: str | None = None) -> None:
        type(servicer)._collect_rpc_handlers()
        self._services[type(servicer), namespace] = servicer

    def stub(self, servicer: Any, peer_id: str, namespace: str | None = None) -> Any:
        key = (servicer, peer_id, namespace)
        if key not in self._stubs:
            servicer._collect_rpc_handlers()
            self._stubs[key] = SimpleNamespace(
                **{
                    handler.method_name: self._caller(servicer, handler, peer_id, namespace)
                    for handler in servicer._rpc_handlers
                }
            )
        return self._stubs[key]

    def _caller(self, servicer: Any, handler: Any, peer_id: str, namespace: str | None) -> Callable[..., Any]:
        """Return a function that calls one method of a service elsewhere, with everything through bytes."""
        context = SimpleNamespace(remote_id=PeerID.from_base58(self.peer_id))

        async def call(request: Any, timeout: float | None = None) -> Any:
            data = bytes(request.SerializeToString())
            await self._air.travel(self.peer_id, peer_id)
            other = self._air.there[peer_id]
            service = other._services.get((servicer, namespace))
            if service is None:
                raise P2PDaemonError("protocols not supported")
            method = getattr(service, handler.method_name)
            asked = handler.request_type.FromString(data)
            if handler.stream_output:
                return self._stream(method(asked, context), handler.response_type, peer_id)
            async with asyncio.timeout(timeout):
                answer = await other._answer(method(asked, context))
            await self._air.travel(peer_id, self.peer_id)
            return handler.response_type.FromString(bytes(answer.SerializeToString()))

        return call

    async def _answer(self, work: Any) -> Any:
        """Answer in a task of this peer: it ends when the peer does."""
        task = asyncio.ensure_future(work)
        self._answering.add(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise P2PDaemonError("the other side is gone") from None
            task.cancel()
            raise
        finally:
            self._answering.discard(task)

    async def _stream(self, frames: AsyncIterator[Any], kind: Any, peer_id: str) -> AsyncIterator[Any]:
        try:
            async for frame in frames:
                await self._air.travel(peer_id, self.peer_id)
                yield kind.FromString(bytes(frame.SerializeToString()))
        finally:
            await frames.aclose()  # type: ignore[attr-defined]
