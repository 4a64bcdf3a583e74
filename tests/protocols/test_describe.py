"""A newcomer hears of the right run, or one line that says what divides it from the peer."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
import uvloop
from hivemind.p2p import P2P, P2PContext

from configs.errors import NetworkError, PeerError, UsageError
from configs.machine import NO_HINTS, Hints
from configs.run import InnerSpec, ModelSpec, RoundSpec, RunSpec, StrategySpec
from protocols.describe import STARTING_S, Describe, DescribeRequest, Description, RunDescription, describe
from protocols.wire import Frame

SPEC_FIELDS: dict[str, Any] = {
    "total_tokens": 1000,
    "model": ModelSpec(
        vocab_size=300, hidden_size=8, num_layers=1, num_heads=1, num_kv_heads=1, mlp_size=8, context_length=8
    ),
    "strategy": StrategySpec(kind="replicas"),
    "inner": InnerSpec(learning_rate=0.1, batch_tokens=64),
    "rounds": RoundSpec(tick_seconds=1.0, double_tokens=100),
    "genesis": 1234.5,
    "tokenizer_sha256": "0" * 64,
}
SPEC_FIELDS |= {"end_of_text": 0} if "end_of_text" in RunSpec.model_fields else {}
SPEC = RunSpec(**SPEC_FIELDS)
TOKENIZER = ("a" * 64, 5000)
CONTEXT: Any = SimpleNamespace(remote_id="somebody")


HINTS = Hints(threads=2, precision="float32", copies=4, keep_ticks=16)


def service(spec: RunSpec = SPEC, hints: Hints = NO_HINTS) -> Describe:
    members = {"peer": ["/ip4/127.0.0.1/tcp/1/p2p/peer"]}
    return Describe(spec, TOKENIZER, lambda: [b"signed"], lambda: members, "0.1", hints)


class Raw:
    """Answers with given bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def rpc_describe(self, request: DescribeRequest, context: P2PContext) -> Frame:
        return Frame(self.data)


async def ask(server: P2P, client: P2P, **options: Any) -> Description:
    return await describe(Describe.get_stub(client, server.peer_id), **options)


def packed(**changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "protocol": 1,
        "spec": SPEC.model_dump_json().encode(),
        "tokenizer_id": TOKENIZER[0],
        "tokenizer_bytes": TOKENIZER[1],
        "domains": [],
        "members": {},
        "version": "0.1",
        "now": time.time(),
    }
    data: bytes = msgpack.packb({**fields, **changes})
    return data


def test_a_newcomer_hears_everything(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            await service().add_p2p_handlers(server)
            heard = await ask(server, client, expected_run_id=SPEC.run_id)
            assert heard.spec == SPEC and heard.spec.run_id == SPEC.run_id
            assert (heard.tokenizer_id, heard.tokenizer_bytes) == TOKENIZER
            assert heard.domains == (b"signed",)
            assert heard.members == {"peer": ["/ip4/127.0.0.1/tcp/1/p2p/peer"]}
            assert abs(heard.clock_offset_s) < 1
            assert heard.hints == NO_HINTS

    uvloop.run(main())


def test_another_run_is_named_with_the_one_expected(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            await service().add_p2p_handlers(server)
            with pytest.raises(UsageError, match=f"{SPEC.run_id}.*not to run {'f' * 32}"):
                await ask(server, client, expected_run_id="f" * 32)

    uvloop.run(main())


def test_clocks(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            await service().add_p2p_handlers(server)
            assert -1.5 < (await ask(server, client, now=lambda: time.time() + 1)).clock_offset_s < -0.5
            for ahead_s, says in ((8.0, "this machine's is fast"), (-8.0, "this machine's is slow")):
                with pytest.raises(NetworkError, match=rf"differ by [78]\.\d s.*{says}"):
                    await ask(server, client, now=lambda ahead_s=ahead_s: time.time() + ahead_s)  # type: ignore[misc]

    uvloop.run(main())


def make_spec(**changes: Any) -> Callable[[], bytes]:
    return lambda: packed(spec=RunSpec(**{**SPEC_FIELDS, **changes}).model_dump_json().encode())


HOSTILE: list[tuple[Callable[[], bytes], str]] = [
    (lambda: packed(protocol=7, oldest=7, a_new_key=1), "speaks protocol 7, this peer speaks 1: update this one"),
    (
        lambda: packed(spec=SPEC.model_copy(update={"protocol": 7}).model_dump_json().encode()),
        "this peer speaks protocol 1, the run needs 7: pip install -U shoal",
    ),
    (lambda: packed(spec=b'{"protocol": 7, "a_new_key": 1}'), "the run needs 7: pip install -U shoal"),
    (lambda: packed(spec=b"{}"), "run spec is not valid"),
    (lambda: packed(spec=b"["), "run spec is not valid"),
    (lambda: packed(spec=b"\xff\x00"), "run spec is not valid"),
    (lambda: packed(spec=bytes(65 << 10)), "spec"),
    (lambda: packed(domains=[b"x"] * 65), "domains"),
    (lambda: packed(domains=[bytes(65 << 10)]), "domains"),
    (lambda: packed(tokenizer_bytes=1 << 40), "tokenizer_bytes"),
    (lambda: packed(tokenizer_id="../../etc/passwd"), "tokenizer_id"),
    (lambda: packed(members={"p": ["a" * 300]}), "members"),
    (lambda: packed(now=float("nan")), "now"),
    (lambda: packed(hints={"threads": 65}), "hints.threads"),
    (lambda: packed(hints={"threads": "1"}), "hints.threads"),
    (lambda: packed(hints={"threads": True}), "hints.threads"),
    (lambda: packed(hints={"copies": 0}), "hints.copies"),
    (lambda: packed(hints={"keep_ticks": 1 << 40}), "hints.keep_ticks"),
    (lambda: packed(hints={"precision": "int1"}), "hints.precision"),
    (lambda: packed(hints=[1]), "hints"),
    (lambda: bytes((3 << 20) + 1), "at most"),
    (lambda: b"\x00garbage", "msgpack"),
]


def test_hostile_answers_are_peer_errors_in_one_line(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            raw = Raw(b"")
            await service().add_p2p_handlers(server, wrapper=raw)
            for answer, says in HOSTILE:
                raw.data = answer()
                with pytest.raises(PeerError, match=says) as error:
                    await ask(server, client)
                assert "\n" not in str(error.value)

    uvloop.run(main())


def test_a_newcomer_of_another_version_is_answered_and_both_sides_know(open_peers: Any) -> None:
    """So that it can say which versions differ; the peer that it has asked says so, too."""
    asked: list[tuple[str, str]] = []

    async def main() -> None:
        async with open_peers(2) as (server, client):
            told = Describe(SPEC, TOKENIZER, list, dict, "0.1", on_asked=lambda *question: asked.append(question))
            await told.add_p2p_handlers(server)
            for protocol, oldest in ((99, 98), (99, 1)):
                request = Frame(msgpack.packb({"protocol": protocol, "oldest": oldest, "a_new_key": 1}))
                answer = await Describe.get_stub(client, server.peer_id).rpc_describe(request)
                assert answer.protocol == 1
            (peer, apart), (_, joins) = asked
            assert peer == str(client.peer_id) and joins == ""
            assert f"{peer}, which asks to join, speaks protocol 98 to 99, this peer speaks 1: update this one" in apart

    uvloop.run(main())


def test_hints_travel_and_are_passed_on(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(3) as (founder, joiner, third):
            await service(hints=HINTS).add_p2p_handlers(founder)
            heard = await ask(founder, joiner)
            assert heard.hints == HINTS
            await service(hints=heard.hints).add_p2p_handlers(joiner)
            assert (await ask(joiner, third)).hints == HINTS

    uvloop.run(main())


def test_a_hint_of_a_later_version_is_passed_over(open_peers: Any) -> None:
    """And so is whatever else a stranger would like to set."""

    async def main() -> None:
        async with open_peers(2) as (server, client):
            raw = Raw(packed(hints={"threads": 1, "a_new_hint": 2, "data": "/etc", "port": 1}))
            await service().add_p2p_handlers(server, wrapper=raw)
            assert (await ask(server, client)).hints.model_dump() == {"threads": 1}

    uvloop.run(main())


@pytest.mark.parametrize(("hints", "asks"), [(NO_HINTS, True), (HINTS, False)])
def test_without_hints_the_bytes_are_those_of_the_version_before(
    monkeypatch: pytest.MonkeyPatch, hints: Hints, asks: bool
) -> None:
    """When there are none, and when who asks, being of that version, does not say that it knows them."""
    monkeypatch.setattr(time, "time", lambda: 1234.5)
    before = packed(domains=[b"signed"], members={"peer": ["/ip4/127.0.0.1/tcp/1/p2p/peer"]}, now=1234.5)
    old = msgpack.packb({"protocol": 1})
    request = DescribeRequest(knows_hints=True) if asks else DescribeRequest.FromString(old)
    answer = uvloop.run(service(hints=hints).rpc_describe(request, CONTEXT))
    assert answer.SerializeToString() == before
    assert RunDescription.FromString(before) == answer


def test_with_hints_only_they_are_added() -> None:
    answer = uvloop.run(service(hints=HINTS).rpc_describe(DescribeRequest(knows_hints=True), CONTEXT))
    fields = msgpack.unpackb(answer.SerializeToString())
    assert fields.pop("hints") == {"threads": 2, "precision": "float32", "copies": 4, "keep_ticks": 16}
    assert list(fields) == list(msgpack.unpackb(packed()))


def test_a_peer_that_is_no_shoal_peer(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            with pytest.raises(NetworkError, match=r"cannot describe its run|did not describe"):
                await ask(server, client, timeout_s=2.0)

    uvloop.run(main())


def test_a_peer_that_has_only_just_started_is_asked_again(open_peers: Any) -> None:
    """Its libp2p answers before its daemon does."""

    async def main() -> None:
        async with open_peers(2) as (server, client):
            asked = asyncio.create_task(ask(server, client))
            await asyncio.sleep(1.5 * STARTING_S)  # it has been refused at least once
            await service().add_p2p_handlers(server)
            assert (await asked).spec.run_id == SPEC.run_id

    uvloop.run(main())


def test_the_largest_answer_passes(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            members = {f"peer{index}": ["/ip4/1.2.3.4/tcp/1"] * 40 for index in range(200)}
            await Describe(SPEC, TOKENIZER, lambda: [bytes(40_000)] * 64, lambda: members, "0.1").add_p2p_handlers(
                server
            )
            heard = await ask(server, client)
            assert len(heard.domains) == 64 and len(heard.members) == 64

    uvloop.run(main())


def test_run_description_is_bounded() -> None:
    assert RunDescription.max_bytes < 4 << 20
