"""Messages are strict and bounded, whatever the bytes are; streams are bounded at both ends."""

import asyncio
import random
from contextlib import aclosing, closing
from typing import Annotated, Any

import msgpack
import pytest
import uvloop
from hivemind.p2p import P2P, P2PContext, P2PDaemonError, P2PHandlerError
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from benchmarks.patience import HANG_S, patience
from configs.errors import NetworkError, PeerError, ProtocolError
from configs.protocol import PROTOCOL_VERSION
from protocols.wire import (
    FRAME_BYTES,
    MAX_MESSAGE_BYTES,
    Frame,
    Frames,
    Message,
    call,
    each_frame,
    frames_of,
    printable,
    read_stream,
)


class Greeting(Message):
    name: Annotated[str, Field(max_length=8)]
    data: bytes = b""
    share: float = 0.0
    pairs: list[Annotated[tuple[int, str], Field(strict=False)]] = Field(default=[])


class Echo(ServicerBase):  # type: ignore[misc]
    """Answers in every way that Hivemind has: one to one, one to many, many to many."""

    async def rpc_one(self, request: Greeting, context: P2PContext) -> Greeting:
        return request

    async def rpc_many(self, request: Greeting, context: P2PContext) -> Frames:
        async for frame in frames_of(request.data):
            yield frame

    async def rpc_pass(self, request: Frames, context: P2PContext) -> Frames:
        async for frame in request:
            yield frame


def packed(**fields: Any) -> bytes:
    data: bytes = msgpack.packb({"protocol": PROTOCOL_VERSION, **fields})
    return data


def test_a_message_survives_the_wire() -> None:
    message = Greeting(name="ann", data=bytes(range(256)), share=0.5, pairs=[(3, "x")])
    assert Greeting.FromString(message.SerializeToString()) == message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93",
        packed()[:-1],
        msgpack.packb([1, 2]),
        msgpack.packb(None),
        packed(),
        packed(name=3),
        packed(name="too long a name"),
        packed(name=b"bytes"),
        packed(name="ann", share="0.5"),
        packed(name="ann", share=float("nan")),
        packed(name="ann", data="text"),
        packed(name="ann", pairs=[["3", "x"]]),
        packed(name="ann", pairs=[[3, "x", 4]]),
        packed(name="ann", more=1),
        msgpack.packb({"protocol": True, "name": "ann"}),
        msgpack.packb({"protocol": 1, "name": "ann", "data": msgpack.Timestamp(1)}),
        b"\xdf\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x81\xa4name\xa2\xff\xfe",
    ],
)
def test_anything_else_is_a_peer_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        Greeting.FromString(data)


def test_random_bytes_are_peer_errors() -> None:
    rng = random.Random(0)
    good = Greeting(name="ann", pairs=[(3, "x")]).SerializeToString()
    for _ in range(2000):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            Greeting.FromString(bytes(data))
        except PeerError as error:
            assert "\n" not in str(error)


def test_another_protocol_is_named_before_anything_else_is_looked_at() -> None:
    said = f"speaks protocol 98 to 99, this peer speaks {PROTOCOL_VERSION}: update this one.*pip install -U shoal"
    with pytest.raises(ProtocolError, match=said):
        Greeting.FromString(msgpack.packb({"protocol": 99, "oldest": 98, "a key of the future": 1}))
    for none in ("2", 0, True, None, 2**20):
        with pytest.raises(PeerError, match="protocol"):
            Greeting.FromString(packed(protocol=none, name="ann"))
    with pytest.raises(PeerError, match="oldest 3 is later than protocol 2"):
        Greeting.FromString(packed(protocol=2, oldest=3, name="ann"))


def test_what_a_later_protocol_adds_is_passed_over_and_nothing_else() -> None:
    later = PROTOCOL_VERSION + 1
    plain = Greeting(name="ann").model_dump()
    heard = Greeting.FromString(packed(**{**plain, "protocol": later, "a_new_key": {"deep": [1]}}))
    assert heard == Greeting(name="ann", protocol=later)
    for fields in ({"a_new_key": 1}, {"protocol": later, "name": 7}, {"protocol": later, "name": None}):
        with pytest.raises(PeerError):
            Greeting.FromString(packed(**{**plain, **fields}))


def test_a_message_of_the_first_protocol_has_the_bytes_it_always_had() -> None:
    assert msgpack.unpackb(Message().SerializeToString()) == {"protocol": 1}
    assert msgpack.unpackb(Message(protocol=3, oldest=2).SerializeToString()) == {"protocol": 3, "oldest": 2}


def test_messages_and_frames_are_bounded_on_both_sides() -> None:
    with pytest.raises(ValueError, match="at most"):
        Greeting(name="ann", data=bytes(MAX_MESSAGE_BYTES)).SerializeToString()
    with pytest.raises(PeerError, match="at most"):
        Greeting.FromString(bytes(MAX_MESSAGE_BYTES + 1))
    with pytest.raises(PeerError, match="frame of"):
        Frame.FromString(bytes(FRAME_BYTES + 1))


def test_what_a_peer_says_is_printed_on_one_line() -> None:
    assert printable("a\nb\x1b[31m" + "x" * 999).isprintable()
    assert len(printable("x" * 999)) == 200


def test_frames_come_back_as_they_were_cut() -> None:
    async def main() -> None:
        data = random.Random(1).randbytes(2 * FRAME_BYTES + 5)
        async with aclosing(each_frame(frames_of(data))) as frames:
            assert [len(f.data) async for f in frames] == [FRAME_BYTES, FRAME_BYTES, 5]
        assert await read_stream(frames_of(data), len(data)) == data
        assert await read_stream(frames_of(b""), 0) == b""
        with pytest.raises(PeerError, match="more than"):
            await read_stream(frames_of(data), len(data) - 1)

    asyncio.run(main())


def test_a_stream_that_breaks_off_is_not_taken_for_whole() -> None:
    async def broken() -> Frames:
        yield Frame(b"x")

    async def main() -> None:
        with pytest.raises(NetworkError, match="broke off"):
            await read_stream(broken(), 10)

    asyncio.run(main())


def test_a_silent_stream_ends() -> None:
    async def silent() -> Frames:
        yield Frame(b"x")
        await asyncio.Event().wait()

    async def main() -> None:
        with pytest.raises(NetworkError, match="silent"):
            await read_stream(silent(), 10, frame_s=0.01)

    asyncio.run(main())


FAILED = [P2PHandlerError("a\nb"), P2PDaemonError(""), ConnectionResetError(), asyncio.IncompleteReadError(b"", 1)]


@pytest.mark.parametrize("failure", FAILED, ids=lambda failure: type(failure).__name__)
def test_whatever_fails_in_a_call_or_its_stream_is_one_line_of_the_network(failure: Exception) -> None:
    async def fail(request: Message) -> Any:
        raise failure

    async def failing() -> Frames:
        yield Frame(b"x")
        raise failure

    async def main() -> None:
        with pytest.raises(NetworkError, match=r"^no answer: \w.+$"):
            await call(fail, Greeting(name="ann"), HANG_S)
        with pytest.raises(NetworkError, match=r"^the stream failed: \w.+$"):
            await read_stream(failing(), 10)

    asyncio.run(main())


def test_a_call_says_that_it_took_too_long_and_passes_on_what_is_not_the_network_s() -> None:
    async def hang(request: Message) -> Any:
        await asyncio.Event().wait()

    async def nonsense(request: Message) -> Any:
        raise PeerError("nonsense")

    async def mistake(request: Message) -> Any:
        raise TypeError("a mistake of ours")

    async def main() -> None:
        with pytest.raises(NetworkError, match=r"within 0\.01 s"):
            await call(hang, Greeting(name="ann"), 0.01)
        with pytest.raises(PeerError, match="nonsense"):
            await call(nonsense, Greeting(name="ann"), HANG_S)
        with pytest.raises(TypeError):
            await call(mistake, Greeting(name="ann"), HANG_S)

    asyncio.run(main())


def test_an_error_that_cannot_be_read_is_a_peer_error() -> None:
    """A stream's sender says by a mark that what follows is an error; protobuf's own errors are of no common kind."""

    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(P2P.ERROR_MARKER + (3).to_bytes(P2P.HEADER_LEN, P2P.BYTEORDER) + b"\xff\xff\xff")
        with pytest.raises(PeerError, match="cannot be read"):
            await P2P.receive_protobuf(Frame, reader)

    asyncio.run(main())


def test_hivemind_carries_our_messages_and_frames(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            await Echo().add_p2p_handlers(server)
            stub = Echo.get_stub(client, server.peer_id)
            data = random.Random(2).randbytes(FRAME_BYTES + 7)
            message = Greeting(name="ann", data=data)
            assert await stub.rpc_one(message, timeout=HANG_S) == message
            assert await read_stream(await stub.rpc_many(message), len(data)) == data
            assert await read_stream(await stub.rpc_pass(frames_of(data)), len(data)) == data

    uvloop.run(main())


def test_no_stream_loses_its_end(open_peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,500 streams that the sender closes first, 1 to 14 lost up to 512 KiB."""
    monkeypatch.setattr("protocols.wire.LINGER_S", 2 * HANG_S)

    async def main() -> None:
        async with open_peers(2) as (server, client):
            await Echo().add_p2p_handlers(server)
            stub = Echo.get_stub(client, server.peer_id)
            request = Greeting(name="ann", data=bytes(3 * FRAME_BYTES))

            async def read_some() -> None:
                for _ in range(40):
                    assert await read_stream(await stub.rpc_many(request), len(request.data)) == request.data

            async with patience("the streams to end"):  # senders end with their readers: nobody waits as long as that
                await asyncio.gather(*(read_some() for _ in range(4)))

    uvloop.run(main())


def test_nobody_can_announce_a_message_beyond_the_limit(open_peers: Any) -> None:
    """Hivemind itself would read on until the memory is full, in a server and in a client."""

    async def announce(info: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            writer.write(b"\x00" + (1 << 40).to_bytes(8, "big") + bytes(1000))
            await reader.read()

    async def main() -> None:
        async with open_peers(2) as (server, client):
            await Echo().add_p2p_handlers(server)
            _, reader, writer = await client.call_binary_stream_handler(server.peer_id, "Echo.rpc_many")
            with closing(writer):
                writer.write(b"\x00" + (1 << 40).to_bytes(8, "big") + bytes(1000))
                assert await asyncio.wait_for(reader.read(), HANG_S) == b""
            await client.add_binary_stream_handler("Echo.rpc_many", announce)
            stub = Echo.get_stub(server, client.peer_id)
            with pytest.raises(PeerError, match="announces"):  # at once: not when a frame's time is over
                await read_stream(await stub.rpc_many(Greeting(name="bob")), 100, frame_s=2 * HANG_S)
            honest = Echo.get_stub(client, server.peer_id)
            assert (await honest.rpc_one(Greeting(name="ann"), timeout=HANG_S)).name == "ann"

    uvloop.run(main())


def test_a_bad_request_is_answered_with_an_error(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            await Echo().add_p2p_handlers(server)
            stub = Echo.get_stub(client, server.peer_id)
            with pytest.raises(P2PHandlerError, match="Greeting: name"):
                await stub.rpc_one(Frame(packed(name="too long a name")), timeout=HANG_S)

    uvloop.run(main())
