"""Hours of the day in which a machine may be used, by its own local time: `22:00-07:00, 12:00-13:00`.

What counts is what a clock on the wall shows, so a span is an hour shorter or longer in the nights in which clocks are
changed, and one that such a night leaves out does not come.
"""

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Self

SPAN = re.compile(r"\s*(\d{1,2}):(\d\d)\s*-\s*(\d{1,2}):(\d\d)\s*")
DAY_MINUTES = 24 * 60
MAX_SPANS = 16
LOOK_AHEAD_MINUTES = 2 * DAY_MINUTES  # in which every span comes, also after a night that left it out


@dataclass(frozen=True)
class Hours:
    """Spans of the day, in minutes since midnight. One whose end is not after its beginning goes over midnight."""

    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read spans that are separated by commas. Raises ValueError, which says what is wrong and how they look."""
        parts = text.split(",")
        if len(parts) > MAX_SPANS:
            raise ValueError(f"at most {MAX_SPANS} spans of hours, not {len(parts)}")
        return cls(tuple(map(_span, parts)))

    def are_open(self, now: float, zone: tzinfo | None = None) -> bool:
        """Return whether the time `now`, in wall-clock seconds, is within a span; `zone` None is the machine's own."""
        local = datetime.fromtimestamp(now, zone)
        minute = local.hour * 60 + local.minute
        return any(
            begin <= minute < end if begin < end else minute >= begin or minute < end for begin, end in self.spans
        )

    def next_change(self, now: float, zone: tzinfo | None = None) -> float | None:
        """Return when they open or close next, in wall-clock seconds; None if they never do."""
        is_open = self.are_open(now, zone)
        minute = now - now % 60  # clocks are changed, and spans begin, at whole minutes
        times = (minute + 60 * ahead for ahead in range(1, LOOK_AHEAD_MINUTES + 1))
        return next((time for time in times if self.are_open(time, zone) is not is_open), None)


def _span(text: str) -> tuple[int, int]:
    found = SPAN.fullmatch(text)
    if found is None:
        raise ValueError(
            f"'{text.strip()}' is no span of hours; write them like 22:00-07:00, several with commas between"
        )
    begin, end = (_minute(hour, minute) for hour, minute in ((found[1], found[2]), (found[3], found[4])))
    if begin == end % DAY_MINUTES and not (begin == 0 and end == DAY_MINUTES):
        raise ValueError(f"'{text.strip()}' begins when it ends; the whole day is 00:00-24:00")
    return begin, end


def _minute(hour: str, minute: str) -> int:
    if int(minute) > 59 or int(hour) > 24 or (int(hour) == 24 and int(minute)):
        raise ValueError(f"{hour}:{minute} is no time of the day; they go from 00:00 to 24:00")
    return int(hour) * 60 + int(minute)
