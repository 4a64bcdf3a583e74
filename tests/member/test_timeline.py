"""What is recorded of a round: by its book, whose times are those of the event loop."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peer.block.exchange import Outcome
from peer.http.history import Part, RoundRecord
from peer.member import timeline
from peer.member.timeline import FILE, KEPT, MAX_FILE_BYTES, MOST, OLD_FILE, Passed, Timeline, record_of
from peer.train.outer import new_state
from protocols.offers import Book

TICK_AT = 100.0
GROUP = ("on time", "left out", "late", "half", "mute", "refused", "gone")


def passed(**changes: Any) -> Passed:
    facts: dict[str, Any] = {
        "block": "trunk",
        "tick": 8,
        "group": GROUP,
        "at": 1e9,
        "tick_at": TICK_AT,
        "length_s": 10.0,
        "cut_s": 2.0,
        "phases": {"snapshot": 0.1, "stepped": 3.2},
    }
    return Passed(**facts | changes)


def offer(tokens: int) -> Any:
    return SimpleNamespace(payload=b"12345", header=SimpleNamespace(tokens=tokens))


def book() -> Book:
    made = Book(sealed=("on time",), phases={"sealed": TICK_AT + 3, "gathered": TICK_AT + 2})
    for at, peer in enumerate(("on time", "left out", "late")):
        made.offers[peer] = offer(100 * at)
        made.came[peer] = TICK_AT + (1.0, 1.9, 2.5)[at]
    made.parcels["half"] = SimpleNamespace(held={0}, hashes=[b"", b""])  # type: ignore[assignment]
    made.heard = {"on time": TICK_AT + 2.1, "mute": TICK_AT + 2.2}
    made.refused["refused"] = "its values are not finite"
    return made


@pytest.fixture
def record() -> RoundRecord:
    state = new_state("trunk", torch.zeros(3), None, version=7, round_=8, ages={"a": 500}, is_final=False)
    return record_of(passed(), book(), Outcome("sealed 1 of 7", True), state)


def test_a_round_s_record_says_what_became_of_each_offer_and_why(record: RoundRecord) -> None:
    parts = {part.peer: part for part in record.parts}
    assert {peer: part.fate for peer, part in parts.items()} == {
        "on time": "sealed",
        "left out": "left out",
        "late": "late",
        "half": "late",
        "mute": "late",
        "refused": "left out",
        "gone": "absent",
    }
    assert parts["on time"] == Part(peer="on time", fate="sealed", offer_s=1.0, list_s=2.1, size_bytes=5)
    assert parts["late"].why == "its offer was here 2.5 s after the tick, the cut is after 2 s"
    assert parts["half"].why.startswith("1 of 2 pieces") and "not finite" in parts["refused"].why
    assert "had made no offer" in parts["mute"].why and parts["gone"].why == "it was not heard"
    assert parts["left out"].tokens == 100
    assert list(record.phases) == ["snapshot", "gathered", "sealed", "stepped"]
    assert (record.version, record.age, record.is_step) == (7, 500, True)


def test_a_round_of_one_has_no_parts() -> None:
    state = new_state("trunk", torch.zeros(3), None, version=1, round_=8, ages={}, is_final=False)
    assert record_of(passed(group=("me",)), Book(), Outcome("alone", True), state).parts == []


def rounds(*ticks: int, block: str = "trunk") -> list[RoundRecord]:
    return [
        RoundRecord(block=block, tick=tick, at=0.0, length_s=1.0, cut_s=0.2, outcome=f"sealed {tick}") for tick in ticks
    ]


def test_rounds_are_given_newest_first_and_page_by_page(tmp_path: Path) -> None:
    line = Timeline(tmp_path)
    for record in (*rounds(2, 4), *rounds(4, block="expert.0"), *rounds(6)):
        line.ended(record)
    first = line.rounds(limit=2)
    # Both of tick 4 stay together, so that the next page has all that is older.
    assert [(r.block, r.tick) for r in first.rounds] == [("trunk", 6), ("expert.0", 4), ("trunk", 4)]
    assert first.older == 4
    assert [r.tick for r in line.rounds(before=first.older).rounds] == [2] and line.rounds(before=4).older is None
    assert [r.tick for r in line.rounds("expert.0").rounds] == [4]
    assert line.last("trunk") == line.rounds("trunk").rounds[0] and line.last("expert.9") is None


def test_no_more_is_given_or_kept_than_may_be(tmp_path: Path) -> None:
    line = Timeline(tmp_path)
    for record in rounds(*range(KEPT + 5)):
        line.ended(record)
    assert len(line.records) == KEPT and line.records[0].tick == 5
    assert len(line.rounds(limit=10**9).rounds) == MOST and len(line.rounds(limit=-1).rounds) == 1


def test_what_was_recorded_is_there_after_a_restart(tmp_path: Path, record: RoundRecord) -> None:
    line = Timeline(tmp_path)
    line.ended(record)
    line.save()
    with (tmp_path / FILE).open("a") as file:
        file.write('{"block": "tru\n')  # as a power cut leaves it
    line.ended(rounds(10)[0])
    line.save()
    assert list(Timeline(tmp_path).records) == [record, *rounds(10)]


def test_the_files_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MAX_FILE_BYTES", 1000)
    line = Timeline(tmp_path)
    for tick in range(200):
        line.ended(rounds(tick)[0])
        line.save()
    assert MAX_FILE_BYTES > 1000
    assert all((tmp_path / name).stat().st_size < 1200 for name in (FILE, OLD_FILE))
    assert [record.tick for record in Timeline(tmp_path).records][-1] == 199
