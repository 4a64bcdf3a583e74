"""Peers tell what they store, and keep what others hand over; hostile answers are refused."""

import asyncio
from typing import Any

import msgpack
import pytest
import uvloop
from hivemind.p2p import P2P, P2PContext

from benchmarks.patience import HANG_S
from configs.errors import NetworkError, PeerError, StateError
from protocols.state import KEEP_S, MAX_KEEPS, BlocksRequest, BlockState, State, ask_blocks, ask_keep, keep_seconds
from protocols.wire import Frame


def state(block: str = "trunk", version: int = 3) -> BlockState:
    return BlockState(
        block=block, version=version, round=40, age=10_000, content_id="a" * 64, size_bytes=800, is_final=False
    )


class Store:
    """Stores nothing, and remembers who asked."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.is_full = False

    def block_states(self) -> list[BlockState]:
        return [state("trunk"), state("expert.0", 7)]

    async def keep(self, state: BlockState, from_peer: str) -> None:
        if self.is_full:
            raise StateError("the disk is full; free some space")
        await self.gate.wait()
        self.kept.append((state.block, from_peer))


class Raw:
    """Answers with given fields."""

    fields: dict[str, Any]

    async def rpc_blocks(self, request: BlocksRequest, context: P2PContext) -> Frame:
        return Frame(msgpack.packb({"protocol": 1, **self.fields}))

    rpc_keep = rpc_blocks


def stub(client: P2P, server: P2P) -> Any:
    return State.get_stub(client, server.peer_id)


def test_states_are_told_and_kept(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            store = Store()
            await State(store).add_p2p_handlers(server)
            assert await ask_blocks(stub(client, server)) == [state("trunk"), state("expert.0", 7)]
            store.gate.set()
            await ask_keep(stub(client, server), state())
            assert store.kept == [("trunk", client.peer_id.to_base58())]
            store.is_full = True
            with pytest.raises(NetworkError, match="trunk version 3 is not kept: the disk is full"):
                await ask_keep(stub(client, server), state())

    uvloop.run(main())


def test_a_keeper_fetches_few_states_at_a_time(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            store = Store()
            await State(store).add_p2p_handlers(server)
            asked = [asyncio.create_task(ask_keep(stub(client, server), state())) for _ in range(MAX_KEEPS + 1)]
            done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED, timeout=HANG_S)
            assert len(done) == 1 and len(waiting) == MAX_KEEPS, "one of them is to be told that the keeper is busy"
            with pytest.raises(NetworkError, match="busy"):
                await done.pop()
            store.gate.set()
            await asyncio.gather(*waiting)
            await ask_keep(stub(client, server), state())

    uvloop.run(main())


def test_a_keeper_that_never_answers(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            await State(Store()).add_p2p_handlers(server)
            with pytest.raises(NetworkError, match="no answer within"):
                await ask_keep(stub(client, server), state(), timeout_s=0.3)

    uvloop.run(main())


HOSTILE: list[dict[str, Any]] = [
    {},
    {"blocks": 3},
    {"blocks": [{}]},
    {"blocks": [state().model_dump(), state().model_dump()]},
    {"blocks": [state(f"b{i}").model_dump() for i in range(513)]},
    {"blocks": [{**state().model_dump(), "block": "../../etc"}]},
    {"blocks": [{**state().model_dump(), "size_bytes": -1}]},
    {"blocks": [{**state().model_dump(), "content_id": "x"}]},
    {"blocks": [{**state().model_dump(), "is_final": 1}]},
    {"blocks": [], "more": 1},
]


def test_hostile_answers_are_peer_errors(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            raw = Raw()
            await State(Store()).add_p2p_handlers(server, wrapper=raw)
            for raw.fields in HOSTILE:
                with pytest.raises(PeerError):
                    await ask_blocks(stub(client, server))

    uvloop.run(main())


def test_how_long_keeping_may_take_follows_the_size_and_the_cap() -> None:
    assert keep_seconds(0, None) == KEEP_S
    small = keep_seconds(880_000_000, None)
    assert 880_000_000 * 8 / 20e6 < small < 3600.0  # it comes through a link of 20 Mbit/s, and is of this day
    assert keep_seconds(880_000_000, 100.0) == small  # the other side's uplink is not faster for that
    assert keep_seconds(880_000_000, 2.0) > 880_000_000 * 8 / 2e6
