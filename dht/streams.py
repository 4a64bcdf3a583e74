"""How many streams others may hold open here: each takes a descriptor, of which a process has few.

Hivemind's listener takes every stream that p2pd hands over, and keeps it for as long as its sender is silent. Importing
this module replaces that one function (`ControlClient._handler`) by one with limits; a stream beyond them is closed,
late, for who opens the next at once would cost more than one that is open.
"""

import asyncio
import logging
import resource
from collections import Counter
from typing import Any

from hivemind.p2p import PeerID
from hivemind.p2p.p2p_daemon_bindings.control import ControlClient, DispatchFailure
from hivemind.p2p.p2p_daemon_bindings.datastructures import StreamInfo
from hivemind.p2p.p2p_daemon_bindings.utils import read_pbmsg_safe
from hivemind.proto import p2pd_pb2

log = logging.getLogger(__name__)

MAX_STREAMS = 512  # that all others together hold open here
MAX_STREAMS_OF_PEER = 128  # that one of them does: an offer of each member of two of the largest groups
MAX_LATE = 256  # streams beyond the limits that are closed late; more are closed at once
LATE_S = 10.0  # after which they are
DESCRIPTORS = 4096  # that this process asks the system for; many give 1,024 unless they are asked


def raise_limit() -> None:
    """Let this process, and p2pd below it, have `DESCRIPTORS` descriptors, or as many as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


async def _handle_bounded(self: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Handle one stream, as `ControlClient._handler` does, if there are not too many yet."""
    held: Counter[PeerID | None] = vars(self).setdefault("held_streams", Counter())  # None: not known yet whose
    if held.total() >= MAX_STREAMS:
        log.debug("a stream is refused: there are %d", held.total())
        await _close_late(self, writer)
        return
    told, peer = p2pd_pb2.StreamInfo(), None
    held[peer] += 1
    try:
        await read_pbmsg_safe(reader, told)
        info = StreamInfo.from_protobuf(told)
        held.subtract([peer])
        peer = info.peer_id
        held[peer] += 1
        if info.proto not in self.handlers:  # p2pd should have refused it
            writer.close()
            raise DispatchFailure(info.proto)
        if held[peer] <= MAX_STREAMS_OF_PEER:
            await self.handlers[info.proto](info, reader, writer)
            return
    finally:
        held[peer] -= 1
        held += Counter()  # drops those who hold none
    log.debug("a stream of %s is refused: it has %d", peer, MAX_STREAMS_OF_PEER)
    await _close_late(self, writer)


async def _close_late(self: Any, writer: asyncio.StreamWriter) -> None:
    late: set[asyncio.StreamWriter] = vars(self).setdefault("late_streams", set())
    if len(late) < MAX_LATE:
        late.add(writer)
        try:
            await asyncio.sleep(LATE_S)
        finally:
            late.discard(writer)
    writer.close()


ControlClient._handler = _handle_bounded
