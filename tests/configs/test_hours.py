"""Hours of the day: over midnight, several, and in the two nights of a year in which clocks are changed."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.hours import Hours

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


@pytest.mark.parametrize(
    ("hours", "time", "is_open", "changes"),
    [
        ("22:00-07:00", "2026-06-01T23:30", True, "2026-06-02T07:00"),
        ("22:00-07:00", "2026-06-01T06:59:59", True, "2026-06-01T07:00"),
        ("22:00-07:00", "2026-06-01T07:00", False, "2026-06-01T22:00"),
        ("22:00-07:00,12:00-13:00", "2026-06-01T08:00", False, "2026-06-01T12:00"),
        ("22:00-07:00 , 12:00 - 13:00", "2026-06-01T12:30", True, "2026-06-01T13:00"),
        ("9:00-24:00", "2026-06-01T23:59", True, "2026-06-02T00:00"),
        ("9:00-00:00", "2026-06-01T23:59", True, "2026-06-02T00:00"),
        ("00:00-12:00,12:00-13:00", "2026-06-01T11:00", True, "2026-06-01T13:00"),  # no gap between them
        # Clocks go from 02:00 to 03:00 in the night of 29 March, and from 03:00 back to 02:00 in that of 25 October.
        ("22:00-07:00", "2026-03-28T23:00", True, "2026-03-29T07:00"),
        ("02:15-07:00", "2026-03-29T01:59", False, "2026-03-29T03:00"),
        ("02:15-02:45", "2026-03-29T01:00", False, "2026-03-30T02:15"),
    ],
)  # fmt: skip
def test_open_and_the_next_change(hours: str, time: str, is_open: bool, changes: str) -> None:
    spans = Hours.parse(hours)
    assert spans.are_open(at(time), BERLIN) is is_open
    assert spans.next_change(at(time), BERLIN) == at(changes)


def test_an_hour_that_comes_twice_is_open_twice() -> None:
    spans = Hours.parse("02:15-02:45")
    first, second = at("2026-10-25T02:30"), at("2026-10-25T02:30", fold=1)
    assert second - first == 3600
    assert spans.are_open(first, BERLIN) and spans.are_open(second, BERLIN)
    assert spans.next_change(first, BERLIN) == at("2026-10-25T02:45")
    assert spans.next_change(at("2026-10-25T02:45"), BERLIN) == at("2026-10-25T02:15", fold=1)


def test_the_whole_day_never_changes() -> None:
    spans = Hours.parse("00:00-24:00")
    assert spans.are_open(at("2026-06-01T00:00"), BERLIN)
    assert spans.next_change(at("2026-06-01T00:00"), BERLIN) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no span"),
        ("22-7", "write them like 22:00-07:00"),
        ("22:00-07:00,", "is no span"),
        ("25:00-07:00", "25:00 is no time of the day"),
        ("22:60-07:00", "22:60 is no time"),
        ("24:01-07:00", "24:01 is no time"),
        ("07:00-07:00", "the whole day is 00:00-24:00"),
        (",".join(["01:00-02:00"] * 17), "at most 16"),
    ],
)
def test_a_mistake_is_said(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Hours.parse(text)


@settings(max_examples=60, deadline=None)
@given(st.integers(at_ := 1_750_000_000, at_ + 366 * 86_400), st.integers(0, 1439), st.integers(1, 1439))
def test_nothing_changes_before_the_next_change(now: int, begin: int, length: int) -> None:
    end = (begin + length) % 1440
    spans = Hours.parse(f"{begin // 60}:{begin % 60:02}-{end // 60}:{end % 60:02}")
    is_open, change = spans.are_open(now, BERLIN), spans.next_change(now, BERLIN)
    assert change is not None and now < change
    assert spans.are_open(change, BERLIN) is not is_open
    assert all(spans.are_open(time, BERLIN) is is_open for time in range(now, int(change), 60))
