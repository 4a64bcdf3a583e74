"""When a peer writes its record, and what stands in it."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from configs.run import RunSpec
from dht.membership import RENEW_TICKS
from dht.records import MemberRecord
from peer.member import announcer as module
from peer.member.announcer import Announcer


@pytest.fixture
def rooms(smallest_run: Callable[..., RunSpec], monkeypatch: pytest.MonkeyPatch) -> Any:
    records: list[tuple[MemberRecord, bool]] = []

    async def publish(record: MemberRecord, *, is_listed: bool) -> None:
        records.append((record, is_listed))

    monkeypatch.setattr(module, "report_of", lambda parts: {"state": "training"})
    crowds = SimpleNamespace(told=dict, is_listed=lambda: False)
    parts = SimpleNamespace(
        facts=SimpleNamespace(spec=smallest_run(), strategy=None),
        activity=SimpleNamespace(is_paused=False),
        session=SimpleNamespace(sub_model="model"),
        store=SimpleNamespace(versions=lambda: {"model": 3}, ages=lambda: {"model": 7}),
        library=SimpleNamespace(leases=lambda strategy, sub_model: ["1" * 64]),
        membership=SimpleNamespace(holdings=dict, publish=publish),
        place=SimpleNamespace(addresses=["/ip4/192.0.2.1/tcp/1"]),
    )
    return SimpleNamespace(parts=parts, crowds=crowds, held=["model"], strides={}, records=records)


def announcer_of(rooms: Any) -> Announcer:
    return Announcer(rooms.parts, rooms.crowds, lambda: list(rooms.held), lambda: dict(rooms.strides))


@pytest.mark.parametrize("change", ["held", "stride", "sub-model", "pause"])
def test_a_record_is_renewed_in_time_and_at_once_when_something_changes(rooms: Any, change: str) -> None:
    announcer = announcer_of(rooms)
    assert announcer.is_due(5), "it was never written"
    asyncio.run(announcer.publish(5))
    assert not announcer.is_due(5 + RENEW_TICKS - 1)
    assert announcer.is_due(5 + RENEW_TICKS)
    match change:
        case "held":
            rooms.held = []
        case "stride":
            rooms.strides = {"model": (9, 2)}
        case "sub-model":
            rooms.parts.session.sub_model = ""
        case "pause":
            rooms.parts.activity.is_paused = True
    assert announcer.is_due(5)
    asyncio.run(announcer.publish(5))
    assert not announcer.is_due(5)


@pytest.mark.parametrize(("is_paused", "is_leaving"), [(False, False), (True, False), (False, True)])
def test_who_is_paused_or_leaves_holds_nothing_and_stores_all_the_same(
    rooms: Any, is_paused: bool, is_leaving: bool
) -> None:
    rooms.parts.activity.is_paused = is_paused
    asyncio.run(announcer_of(rooms).publish(5, is_leaving=is_leaving))
    [(record, is_listed)] = rooms.records
    is_holding = not (is_paused or is_leaving)
    assert list(record.holdings) == (["model"] if is_holding else [])
    assert bool(record.leases) == is_holding
    assert record.keeps == {"model": 3} and record.ages == {"model": 7}
    assert (record.is_leaving, is_listed) == (is_leaving, is_leaving), "a leaving record is always listed"
