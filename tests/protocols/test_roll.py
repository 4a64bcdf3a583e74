"""A member tells the records that it has: its own first, and no more than one message may hold."""

import asyncio
from typing import Any

from protocols.roll import MAX_RECORDS, MAX_RECORDS_BYTES, Roll, RollAnswer, RollRequest


def told(records: list[bytes]) -> list[bytes]:
    none: Any = None
    answer = asyncio.run(Roll(lambda: records).rpc_roll(RollRequest(), none))
    return RollAnswer.FromString(answer.SerializeToString()).records


def test_what_is_told_fits_into_a_message() -> None:
    assert told([b"own", b"other"]) == [b"own", b"other"]
    assert len(told([bytes(100)] * (MAX_RECORDS + 1))) == MAX_RECORDS
    large = [bytes(16 << 10)] * MAX_RECORDS
    assert sum(map(len, told(large))) == MAX_RECORDS_BYTES
