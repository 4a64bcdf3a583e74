"""Member records from a member itself: where the DHT does not give them, whoever is known is asked directly.

A record is signed by its peer, so it matters not from whom it comes. Which of them are believed is membership's affair.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from dht.records import MemberRecord
from protocols.wire import Message, call

CALL_S = 5.0
MAX_RECORDS = 64
MAX_RECORDS_BYTES = 512 << 10  # of all records of one answer


class RollRequest(Message):
    """«Which member records do you have, your own first?»"""


class RollAnswer(Message):
    """The answer: signed records."""

    records: Annotated[list[Annotated[bytes, Field(max_length=MemberRecord.max_bytes)]], Field(max_length=MAX_RECORDS)]


class Roll(ServicerBase):  # type: ignore[misc]
    """Tells the records of the members that this peer knows; `records` gives them, its own first."""

    def __init__(self, records: Callable[[], Sequence[bytes]]) -> None:
        self._records = records

    async def rpc_roll(self, request: RollRequest, context: P2PContext) -> RollAnswer:
        """Answer with as many records as one message may hold."""
        told, left = [], MAX_RECORDS_BYTES
        for data in self._records()[:MAX_RECORDS]:
            left -= len(data)
            if left < 0:
                break
            told.append(data)
        return RollAnswer(records=told)


async def ask_roll(stub: Any) -> Sequence[bytes]:
    """Ask a member for the records that it has. Raises NetworkError, PeerError."""
    answer: RollAnswer = await call(stub.rpc_roll, RollRequest(), CALL_S)
    return answer.records
