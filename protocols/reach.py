"""Whether others can dial this peer: somebody who knows is asked to try.

A peer sees its own ports from inside. From outside its router may hide them, and only another machine can tell. Who is
asked dials one port of the one machine that the asker is connected from, for a few seconds and not often, so that
nobody can be made to dial somebody else.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from dht.addresses import is_internet
from protocols.wire import Message, call

DIAL_S = 3.0  # for the connection, and for the first words of who took it
CALL_S = 10.0
PERIOD_S = 60.0  # in which
MAX_OF_PEER = 6  # questions of one peer are answered,
MAX_OF_ALL = 60  # and of all together
MAX_AT_ONCE = 8
GREETING = b"\x13/multistream/1.0.0\n"  # what every libp2p host says first

# What came of dialling: the port is open, the machine refuses, nothing comes back, or something else answers; or it was
# not tried, for the asker is connected through a relay, or has asked too often.
Outcome = Literal["open", "refused", "silent", "other", "relayed", "busy"]
Host = tuple[str, str]  # family (ip4, ip6), address


class ReachRequest(Message):
    """«Can you dial me at this port?»"""

    port: Annotated[int, Field(ge=1, le=65_535)]


class ReachAnswer(Message):
    """The answer, and where the asker is connected from."""

    outcome: Outcome
    family: Annotated[str, Field(max_length=8)] = ""  # ip4 or ip6
    host: Annotated[str, Field(max_length=64)] = ""
    port: Annotated[int, Field(ge=0, le=65_535)] = 0  # not the one that was asked for: that of the connection


@dataclass(frozen=True)
class Seen:
    """Where somebody is connected from."""

    family: str
    host: str
    port: int


class Reach(ServicerBase):  # type: ignore[misc]
    """Dials whoever asks; served without a namespace, since a newcomer knows no run id.

    `seen_at` returns the addresses of a peer's connections; `now` is in monotonic seconds.
    """

    def __init__(
        self, seen_at: Callable[[str], Awaitable[Sequence[str]]], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._seen_at = seen_at
        self._now = now
        self._asked: deque[tuple[float, str]] = deque()  # when, by whom
        self._under_way = 0

    async def rpc_reach(self, request: ReachRequest, context: P2PContext) -> ReachAnswer:
        """Dial the asker's machine at the port that it names."""
        peer_id = str(context.remote_id)
        seen = direct(await self._seen_at(peer_id))
        if seen is None:
            return ReachAnswer(outcome="relayed")
        outcome: Outcome = "busy"
        if self._takes(peer_id):
            self._under_way += 1
            try:
                outcome = await dial(seen.host, request.port)
            finally:
                self._under_way -= 1
        return ReachAnswer(outcome=outcome, family=seen.family, host=seen.host, port=seen.port)

    def _takes(self, peer_id: str) -> bool:
        """Say whether one more question is answered now, and count it."""
        now = self._now()
        while self._asked and self._asked[0][0] <= now - PERIOD_S:
            self._asked.popleft()
        own = sum(asker == peer_id for _, asker in self._asked)
        if len(self._asked) >= MAX_OF_ALL or own >= MAX_OF_PEER or self._under_way >= MAX_AT_ONCE:
            return False
        self._asked.append((now, peer_id))
        return True


async def ask_reach(stub: Any, port: int) -> ReachAnswer:
    """Ask a peer, through a stub of `Reach`, to dial `port` here. Raises NetworkError, PeerError."""
    answer: ReachAnswer = await call(stub.rpc_reach, ReachRequest(port=port), CALL_S)
    return answer


def direct(addresses: Sequence[str]) -> Seen | None:
    """Return where the first of these connections comes from that goes through no relay."""
    for address in addresses:
        parts = address.split("/")
        if len(parts) == 5 and parts[1] in ("ip4", "ip6") and parts[3] == "tcp" and parts[4].isdigit():
            return Seen(parts[1], parts[2], int(parts[4]))
    return None


def decisive(answers: Sequence[ReachAnswer]) -> ReachAnswer | None:
    """Return the answer that counts: of those who tried, one that sees this machine on the Internet before others."""
    tried = [answer for answer in answers if answer.outcome in ("open", "refused", "silent", "other")]
    return min(tried, key=lambda answer: (not is_internet(answer.host), answer.outcome != "open"), default=None)


def place_of(address: str) -> Seen | None:
    """Return where an address with a peer id leads; None if that is no TCP address, or through a relay."""
    return direct([address.rpartition("/p2p/")[0]])


async def dial(host: str, port: int) -> Outcome:
    """Say what answers at a port: a libp2p host, something else, a refusal, or nothing. Sends not a byte."""
    writer = None
    try:
        async with asyncio.timeout(DIAL_S):
            reader, writer = await asyncio.open_connection(host, port)
            greeting = await reader.readexactly(len(GREETING))
    except ConnectionRefusedError:
        return "refused"
    except (OSError, EOFError):  # TimeoutError is an OSError
        return "silent" if writer is None else "other"
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError):
                async with asyncio.timeout(DIAL_S):
                    await writer.wait_closed()
    return "open" if greeting == GREETING else "other"
