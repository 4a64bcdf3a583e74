"""What every message and every call has in common: shape, limits, version, errors. Which there are stands elsewhere.

Hivemind's `ServicerBase` asks of a message type only `SerializeToString` and `FromString`. Two kinds fit in:

    Message   a strict pydantic model, as msgpack: requests and small answers
    Frame     raw bytes: a piece of a tensor or of a file, in a stream

Whatever goes wrong with a `call`, or with the stream that it opens, is a NetworkError or a PeerError; any other error
is a mistake of ours, which nobody should try again.

Two faults of the pinned Hivemind are mended here. It reads from a stream as many bytes as the other side announces,
which lets any peer fill our memory: importing this module replaces that one function (`P2P.receive_protobuf`) by one
with a limit. And a stream whose sender closes it first loses its last bytes now and then (measured: 1 in 100 to 1,500,
on loopback), which looks like a regular end: so a stream has an end mark, and its sender waits for the reader to close.
"""

import asyncio
import typing
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, ClassVar, Self

import msgpack
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from hivemind.p2p import P2P
from hivemind.proto.p2pd_pb2 import RPCError
from pydantic import BaseModel, ConfigDict, ValidationError

from configs.content import Buffer
from configs.errors import NetworkError, PeerError, ProtocolError, RefusedError
from configs.protocol import OLDEST_PROTOCOL, PROTOCOL_VERSION, Oldest, Protocol, Spoken
from dht.gate import refusal
from dht.p2pd import FAILURES

MAX_MESSAGE_BYTES = 1 << 20
FRAME_BYTES = 1 << 18
FRAME_S = 30.0  # a stream that is silent for longer has ended
LINGER_S = 120.0  # that a sender waits at most for the reader to close


class Message(BaseModel):
    """One thing that a peer says to another: typed, immutable, bounded, and nothing unknown in it.

    Which protocols understand each other, and that unknown fields of a later one are passed over, `configs/protocol.py`
    says.

    Values have exactly the annotated type. msgpack knows no tuples: annotate a pair that travels as
    `Annotated[tuple[int, str], Field(strict=False)]`.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    max_bytes: ClassVar[int] = MAX_MESSAGE_BYTES  # at most 3 MiB: p2pd refuses 4 MiB
    is_for_any_protocol: ClassVar[bool] = False  # for the messages by which peers find out their versions

    protocol: Protocol = PROTOCOL_VERSION
    oldest: Oldest = OLDEST_PROTOCOL  # that its writer still speaks

    def SerializeToString(self) -> bytes:
        """Return the message as msgpack. Raises ValueError if it is longer than any peer would accept."""
        data: bytes = msgpack.packb(self.model_dump())
        if len(data) > self.max_bytes:
            raise ValueError(f"{type(self).__name__} of {len(data)} bytes; at most {self.max_bytes} are allowed")
        return data

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """Return the message that `data` holds. Raises PeerError, whatever the bytes are."""
        name = cls.__name__
        if len(data) > cls.max_bytes:
            raise PeerError(f"{name} of {len(data)} bytes; at most {cls.max_bytes} are allowed")
        try:
            fields = msgpack.unpackb(data, max_ext_len=0)
        except (ValueError, TypeError, RecursionError):
            raise PeerError(f"{name} is not msgpack") from None
        if not isinstance(fields, dict):
            raise PeerError(f"{name} is not a map")
        try:
            spoken = Spoken.model_validate(fields)
            if not cls.is_for_any_protocol and (reason := spoken.why_apart("the other peer")):
                raise ProtocolError(reason)
            return cls.model_validate(fields, extra="ignore" if cls.is_for_any_protocol else spoken.unknown_fields)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = printable(".".join(str(part) for part in problem["loc"]))
            raise PeerError(f"{name}: {where}: {problem['msg']}") from None


class Frame:
    """A piece of a stream, at most `FRAME_BYTES` bytes; the empty one is the end mark."""

    __slots__ = ("data",)

    def __init__(self, data: Buffer) -> None:
        self.data = data

    def SerializeToString(self) -> Buffer:
        """Return the bytes themselves, not copied."""
        return self.data

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """Return the frame. Raises PeerError if it is too long."""
        if len(data) > FRAME_BYTES:
            raise PeerError(f"frame of {len(data)} bytes; at most {FRAME_BYTES} are allowed")
        return cls(data)


async def call(rpc: Callable[[Any], Awaitable[Any]], request: Message, timeout_s: float) -> Any:
    """Ask a peer, by one of a stub's methods, and return its answer, or its stream once that is open.

    Raises NetworkError (no answer within `timeout_s` seconds, or why there is none) or PeerError (nonsense).
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await rpc(request)
    except TimeoutError:
        raise NetworkError(f"no answer within {timeout_s:g} s") from None
    except FAILURES as error:
        raise _failure("no answer", error) from None


def _failure(what: str, error: Exception) -> NetworkError:
    if refused := refusal(error):
        return RefusedError(refused)
    return NetworkError(f"{what}: {printable(error) or type(error).__name__}")


def printable(value: object) -> str:
    """Show what a peer said in a message for people: one short line of plain characters, whatever it is."""
    return ascii(str(value)[:200])[1:-1]


# The annotation of a streamed request or answer in a service: Hivemind knows a stream by this type of `typing`, and
# takes one that is annotated with `collections.abc` for a single message.
Frames = typing.AsyncIterator[Frame]


async def frames_of(data: Buffer) -> Frames:
    """Cut `data` into frames without copying it, and end the stream."""
    view = memoryview(data).cast("B")
    for at in range(0, len(view), FRAME_BYTES):
        yield Frame(view[at : at + FRAME_BYTES])
    async for frame in end_of_stream():
        yield frame


async def end_of_stream() -> Frames:
    """Send the end mark, and hold the stream open until its reader, who has everything then, closes it."""
    yield Frame(b"")
    await asyncio.sleep(LINGER_S)  # Hivemind cancels this when the reader closes or is gone


async def each_frame(stream: Frames, frame_s: float = FRAME_S) -> Frames:
    """Pass on the frames of a stub's stream up to the end mark, and close it then, or however this ends.

    Close this iterator too (`contextlib.aclosing`) where it may be left early. Raises NetworkError when no frame has
    come for `frame_s` seconds, when the stream ends without the mark, or when its sender fails.
    """
    async with aclosing(stream):  # type: ignore[type-var]  # hivemind's streams are generators
        while True:
            try:
                async with asyncio.timeout(frame_s):
                    frame = await anext(stream)
            except StopAsyncIteration:
                raise NetworkError("the stream broke off") from None
            except TimeoutError:
                raise NetworkError(f"the stream was silent for {frame_s:g} s") from None
            except FAILURES as error:
                raise _failure("the stream failed", error) from None
            if not frame.data:
                return
            yield frame


async def read_stream(stream: Frames, max_bytes: int, frame_s: float = FRAME_S) -> bytes:
    """Return what the stream holds. Raises PeerError beyond `max_bytes`, the rest as `each_frame` does."""
    data = bytearray()
    async with aclosing(each_frame(stream, frame_s)) as frames:  # type: ignore[type-var]
        async for frame in frames:
            data += frame.data
            if len(data) > max_bytes:
                raise PeerError(f"stream of more than the {max_bytes} bytes that are allowed")
    return bytes(data)


async def _receive_bounded(message_type: Any, reader: asyncio.StreamReader) -> tuple[Any, RPCError | None]:
    """Read one message of a stream, as `P2P.receive_protobuf` does, but at most `MAX_MESSAGE_BYTES` of it."""
    try:
        marker = await reader.readexactly(1)
        size = int.from_bytes(await reader.readexactly(P2P.HEADER_LEN), P2P.BYTEORDER)
        if size > MAX_MESSAGE_BYTES:
            raise PeerError(f"stream announces a message of {size} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
        data = await reader.readexactly(size)
    except ConnectionError:  # a reader that closed early; Hivemind would log a traceback
        raise asyncio.IncompleteReadError(b"", None) from None
    if marker == P2P.MESSAGE_MARKER:
        return message_type.FromString(data), None
    if marker == P2P.ERROR_MARKER:
        try:
            return None, RPCError.FromString(data)
        except DecodeError:
            raise PeerError("stream holds an error that cannot be read") from None
    raise PeerError(f"stream holds neither a message nor an error, but {marker!r}")


P2P.receive_protobuf = staticmethod(_receive_bounded)
