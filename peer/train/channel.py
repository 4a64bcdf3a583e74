"""Carries messages between the daemon and a worker: length-prefixed msgpack over a socket pair. The worker's end of it.

No torch here: the daemon starts its workers' fork server before it imports anything heavy.
"""

import socket
import struct
import threading
from typing import Annotated

import msgpack
from pydantic import Field, TypeAdapter

from peer.train.messages import Message

MAX_MESSAGE_BYTES = 1 << 20
PREFIX_BYTES = 4

_MESSAGES: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def packed(message: Message) -> bytes:
    """Return a message as it goes over the socket."""
    data: bytes = msgpack.packb(message.model_dump())
    assert len(data) <= MAX_MESSAGE_BYTES
    return struct.pack(">I", len(data)) + data


def unpacked(data: bytes) -> Message:
    """Return the message in `data`, which comes without its prefix."""
    return _MESSAGES.validate_python(msgpack.unpackb(data))


class Channel:
    """Messages over a blocking socket: one thread receives, any thread may send."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        self._sending = threading.Lock()

    def receive(self) -> Message:
        """Return the next message, waiting for it. Raises EOFError when the daemon is gone."""
        (size,) = struct.unpack(">I", self._read(PREFIX_BYTES))
        assert size <= MAX_MESSAGE_BYTES
        return unpacked(self._read(size))

    def send(self, message: Message) -> None:
        """Send a message. Raises OSError when the daemon is gone."""
        with self._sending:
            self._socket.sendall(packed(message))

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)
