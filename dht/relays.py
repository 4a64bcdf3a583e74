"""What a peer relays for others: asked by libp2p's own message, for which p2pd has no command.

Source: the libp2p specification, circuit relay v2 (`HopMessage` RESERVE, and the `Limit` and `Status` in its answer).
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from hivemind.p2p import PeerID

from configs.errors import NetworkError, PeerError
from dht.network import Network
from dht.p2pd import FAILURES

PROTOCOL = "/libp2p/circuit/relay/0.2.0/hop"
RESERVE = b"\x02\x08\x00"  # a message of two bytes: its type, the field 1, is RESERVE, 0
OK = 100  # a status
MAX_ANSWER_BYTES = 4096
LIMIT, STATUS = 4, 5  # fields of a HopMessage
DURATION, DATA = 1, 2  # of a Limit; absent, or 0: no limit


@dataclass(frozen=True)
class Terms:
    """What a relay gives to each connection that it relays."""

    seconds: int  # 0: no limit
    data_bytes: int  # in each direction; 0: no limit


async def ask_terms(network: Network, peer_id: str, timeout_s: float) -> Terms:
    """Ask a connected peer for room at its relay, which lasts as long as the connection; return its terms.

    Raises NetworkError (no answer, or it refuses) or PeerError (nonsense).
    """
    try:
        async with asyncio.timeout(timeout_s):
            _, reader, writer = await network.p2p.call_binary_stream_handler(PeerID.from_base58(peer_id), PROTOCOL)
            try:
                writer.write(RESERVE)
                size = await _read_varint(reader)
                if size > MAX_ANSWER_BYTES:
                    raise PeerError(f"a relay's answer of {size} bytes; at most {MAX_ANSWER_BYTES} are allowed")
                answer = await reader.readexactly(size)
            finally:
                writer.close()
    except FAILURES as error:  # TimeoutError is an OSError
        raise NetworkError(f"it does not relay ({type(error).__name__})") from None
    return read_terms(answer)


def read_terms(answer: bytes) -> Terms:
    """Return the terms in a HopMessage. Raises NetworkError (a refusal) or PeerError (no such message)."""
    fields = dict(_fields(answer))
    status = fields.get(STATUS)
    if status != OK:
        raise NetworkError(f"it refuses to relay (status {status if isinstance(status, int) else 'missing'})")
    limit = fields.get(LIMIT, b"")
    terms = dict(_fields(limit)) if isinstance(limit, bytes) else {}
    seconds, data_bytes = terms.get(DURATION, 0), terms.get(DATA, 0)
    if not isinstance(seconds, int) or not isinstance(data_bytes, int):
        raise PeerError("a relay's terms are no numbers")
    return Terms(seconds, data_bytes)


async def _read_varint(reader: asyncio.StreamReader) -> int:
    read = bytearray()
    while not read or read[-1] & 0x80:
        if len(read) == 10:
            raise PeerError("a number without an end")
        read += await reader.readexactly(1)
    return _varint(bytes(read), 0)[0]


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message: numbers, and what is announced with a length. Raises PeerError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        value, at = _varint(data, at)
        match key & 7:
            case 0:
                yield key >> 3, value
            case 2 if at + value <= len(data):
                yield key >> 3, data[at : at + value]
                at += value
            case _:
                raise PeerError("a message that cannot be read")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for place in range(10):
        if at + place >= len(data):
            raise PeerError("a message that is cut off")
        byte = data[at + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, at + place + 1
    raise PeerError("a number without an end")
