"""Who asks whether it can be dialled is dialled, not often, and nobody else is."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loop import in_loop

from dht.network import open_network
from protocols.reach import MAX_OF_ALL, MAX_OF_PEER, PERIOD_S, Reach, ReachRequest, Seen, ask_reach, dial, direct

RELAYED = "/ip4/192.0.2.1/tcp/4001/p2p/QmRelay/p2p-circuit"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def asker(peer_id: str) -> Any:
    return SimpleNamespace(remote_id=peer_id)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def seen_here(peer_id: str) -> Sequence[str]:
    return [RELAYED, "/ip4/127.0.0.1/tcp/5555"]


@pytest.mark.parametrize(
    ("addresses", "seen"),
    [
        (["/ip4/5.5.0.2/tcp/4001"], Seen("ip4", "5.5.0.2", 4001)),
        ([RELAYED, "/ip6/2a00::5/tcp/7"], Seen("ip6", "2a00::5", 7)),
        ([RELAYED], None),  # the relay's address is not the asker's
        (["/ip4/5.5.0.2/udp/4001/quic-v1"], None),
        (["/dns4/localhost/tcp/1"], None),
        ([], None),
    ],
)
def test_only_a_direct_connection_says_where_somebody_is(addresses: list[str], seen: Seen | None) -> None:
    assert direct(addresses) == seen


@in_loop
async def test_a_peer_is_dialled_by_its_own_words_and_by_nothing_else(tmp_path: Path) -> None:
    async with (
        open_network(tmp_path / "asked.key", host="127.0.0.1") as asked,
        open_network(tmp_path / "asker.key", host="127.0.0.1") as own,
    ):
        await asked.serve(Reach(asked.seen_at))
        await own.connect(await asked.addresses())
        port = int((await own.addresses())[0].split("/")[4])
        there = await ask_reach(own.stub(Reach, asked.peer_id), port)
        assert (there.outcome, there.host) == ("open", "127.0.0.1")
        assert (await ask_reach(own.stub(Reach, asked.peer_id), closed_port())).outcome == "refused"


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
@in_loop
async def test_what_is_no_libp2p_host_is_not_taken_for_one(words: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        assert await dial("127.0.0.1", server.sockets[0].getsockname()[1]) == "other"


@in_loop
async def test_a_peer_is_not_dialled_often() -> None:
    clock, port = Clock(), closed_port()
    reach = Reach(seen_here, clock)
    outcomes = [(await reach.rpc_reach(ReachRequest(port=port), asker("a"))).outcome for _ in range(MAX_OF_PEER + 1)]
    assert outcomes == ["refused"] * MAX_OF_PEER + ["busy"]
    assert (await reach.rpc_reach(ReachRequest(port=port), asker("b"))).outcome == "refused", "another may still ask"
    clock.now_s = PERIOD_S
    assert (await reach.rpc_reach(ReachRequest(port=port), asker("a"))).outcome == "refused"


@in_loop
async def test_all_together_are_not_dialled_often() -> None:
    reach, port = Reach(seen_here, Clock()), closed_port()
    outcomes = [
        (await reach.rpc_reach(ReachRequest(port=port), asker(f"peer{number}"))).outcome
        for number in range(MAX_OF_ALL + 1)
    ]
    assert outcomes == ["refused"] * MAX_OF_ALL + ["busy"]


@in_loop
async def test_who_comes_through_a_relay_is_not_dialled() -> None:
    async def relayed(peer_id: str) -> Sequence[str]:
        return [RELAYED]

    answer = await Reach(relayed).rpc_reach(ReachRequest(port=4001), asker("a"))
    assert (answer.outcome, answer.host) == ("relayed", "")
