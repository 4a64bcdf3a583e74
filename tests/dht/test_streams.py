"""Who opens streams and says nothing is held to a number of them, and costs the others nothing."""

import asyncio
import resource
import typing
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hivemind.p2p import P2PContext, ServicerBase
from hivemind.proto import dht_pb2

import dht.streams
from benchmarks.patience import HANG_S
from dht.network import Network, open_network

MESSAGE = dht_pb2.PingRequest
Messages = typing.AsyncIterator[MESSAGE]  # Hivemind knows a stream by this type


class Slow(ServicerBase):  # type: ignore[misc]
    """Says one thing, and holds the stream open."""

    async def rpc_slow(self, request: MESSAGE, context: P2PContext) -> Messages:
        yield request
        await asyncio.Event().wait()


async def opened(one: Network, other: Network, streams: AsyncExitStack) -> bool:
    """Open a stream for as long as `streams` is open; return whether it was taken."""
    stream: Any = await one.stub(Slow, other.peer_id).rpc_slow(MESSAGE())
    await streams.enter_async_context(aclosing(stream))
    async with asyncio.timeout(HANG_S):
        return await anext(stream, None) is not None


def test_silent_streams_are_bounded_for_each_peer_and_for_all(
    identity_paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dht.streams, "MAX_STREAMS", 5)
    monkeypatch.setattr(dht.streams, "MAX_STREAMS_OF_PEER", 3)
    monkeypatch.setattr(dht.streams, "LATE_S", 0.1)

    async def main() -> None:
        async with (
            open_network(identity_paths[0], host="127.0.0.1") as server,
            open_network(identity_paths[1], host="127.0.0.1") as one,
            open_network(identity_paths[2], host="127.0.0.1") as two,
        ):
            await server.serve(Slow())
            for client in (one, two):
                await client.connect(await server.addresses())
            async with AsyncExitStack() as streams:
                assert [await opened(one, server, streams) for _ in range(4)] == [True, True, True, False]
                assert [await opened(two, server, streams) for _ in range(3)] == [True, True, False]
            held = server.p2p._client.control.held_streams
            async with asyncio.timeout(HANG_S):
                while held.total():
                    await asyncio.sleep(0.01)
            assert not held
            async with AsyncExitStack() as streams:
                assert await opened(one, server, streams)

    uvloop.run(main())


def test_a_process_asks_for_the_descriptors_that_it_may_need(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: asked.append(limits))
    for limits in ((1024, 1 << 20), (256, 2048), (1 << 16, 1 << 20), (1024, 1024), (1024, resource.RLIM_INFINITY)):
        monkeypatch.setattr(resource, "getrlimit", lambda what, limits=limits: limits)
        dht.streams.raise_limit()
    assert asked == [(4096, 1 << 20), (2048, 2048), (4096, resource.RLIM_INFINITY)]
