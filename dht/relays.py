"""What a peer relays for others: asked by libp2p's own message, for which p2pd has no command.

p2pd sets its relay up twice, and what comes last counts: limits of 30 min and 4 GiB for a relayed connection, or of
2 min and 128 KiB, which is less than an offer. On one processor the wide ones come last nearly always (measured: in 53
of 55 starts, on two processors in 7 of 27); so a relay is asked for its terms first, and started again if need be.

Source: the libp2p specification, circuit relay v2 (`HopMessage` RESERVE, and the `Limit` and `Status` in its answer).
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hivemind.p2p import P2P, P2PDaemonError, PeerID
from multiaddr import Multiaddr

from configs.errors import NetworkError, PeerError
from dht.addresses import dial_target
from dht.p2pd import CLOSE_S, FAILURES, ORPHAN_S, start_p2pd, stop_p2pd

log = logging.getLogger(__name__)

PROTOCOL = "/libp2p/circuit/relay/0.2.0/hop"
RESERVE = b"\x02\x08\x00"  # a message of two bytes: its type, the field 1, is RESERVE, 0
OK = 100  # a status
MAX_ANSWER_BYTES = 4096
LIMIT, STATUS = 4, 5  # fields of a HopMessage
DURATION, DATA = 1, 2  # of a Limit; absent, or 0: no limit
WIDE_BYTES = 64 << 20  # what a relay must let through for it to be of use to offers
STARTS = 6  # of p2pd, at most, for a relay with wide limits
ASK_S = 5.0  # for p2pd's answer on the same machine


@dataclass(frozen=True)
class Terms:
    """What a relay gives to each connection that it relays."""

    seconds: int  # 0: no limit
    data_bytes: int  # in each direction; 0: no limit

    @property
    def are_wide(self) -> bool:
        """Whether offers come through."""
        return self.data_bytes == 0 or self.data_bytes >= WIDE_BYTES


async def start_relay(identity_path: Path, **options: Any) -> P2P:
    """Start p2pd as `start_p2pd` does, again until its relay has wide limits, or `STARTS` times."""
    for start in range(STARTS):
        p2p = await start_p2pd(identity_path, reachability="public", **options)
        try:
            if start == STARTS - 1 or await _relays_widely(p2p):
                return p2p
        except BaseException:
            await stop_p2pd(p2p, identity_path)
            raise
        log.debug("p2pd has begun with a narrow relay; it begins again")
        await stop_p2pd(p2p, identity_path)
    raise AssertionError("the last start is taken as it is")


async def _relays_widely(p2p: P2P) -> bool:
    """Ask a p2pd of this machine for its terms, as another peer would; one that does not say is taken as it is."""
    try:
        visitor = await P2P.create(
            host_maddrs=["/ip4/127.0.0.1/tcp/0"],
            dht_mode="client",
            auto_nat=False,
            nat_port_map=False,
            idle_timeout=ORPHAN_S,
        )
    except P2PDaemonError:
        return True
    try:
        targets = [Multiaddr(dial_target(str(address))) for address in await p2p.get_visible_maddrs(latest=True)]
        async with asyncio.timeout(ASK_S):
            await visitor._client.connect(p2p.peer_id, targets)
        return (await ask_terms(visitor, str(p2p.peer_id), ASK_S)).are_wide
    except (NetworkError, PeerError, ValueError, *FAILURES):  # ValueError: it announces no address
        return True
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await visitor.shutdown()


async def ask_terms(p2p: P2P, peer_id: str, timeout_s: float) -> Terms:
    """Ask a connected peer for room at its relay, which lasts as long as the connection; return its terms.

    Raises NetworkError (no answer, or it refuses) or PeerError (nonsense).
    """
    try:
        async with asyncio.timeout(timeout_s):
            _, reader, writer = await p2p.call_binary_stream_handler(PeerID.from_base58(peer_id), PROTOCOL)
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
