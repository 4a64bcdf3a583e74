"""Counts what is not used, by reason: nothing is left out without a word, and nothing small stops everything."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from configs.errors import DataError

SHOWN = 3  # places that are kept of each reason


class Reason(Enum):
    """Why something is not used, in the words that a user reads.

    `is_bad`: it was meant to be used and cannot be; too much of that is an error. The rest was left out on purpose.
    """

    UNREADABLE = ("cannot be read", True)
    DAMAGED = ("is damaged or cut off", True)
    ENCODING = ("is in no encoding that is sure", True)
    BROKEN = ("is broken JSON", True)
    COLUMN = ("lacks the column", True)
    TYPE = ("holds no text where text should be", True)
    INCOMPLETE = ("is half an example", True)
    TOO_LONG = ("is longer than a field may be", True)
    KIND = ("is of a kind that holds no text", False)
    ABOUT = ("says something about the text (README, licence)", False)
    HIDDEN = ("is hidden", False)
    BLANK = ("is empty", False)
    LINKED = ("is a link to what was read already", False)
    HELD_OUT = ("is the same as a held-out document", False)
    DUPLICATE = ("is the same as an earlier document", False)
    NEAR_DUPLICATE = ("is almost the same as an earlier document", False)
    LANGUAGE = ("is in another language", False)
    LENGTH = ("is too short or too long", False)
    OVERLONG = ("leaves no room for an input in the context length", False)
    LISTED = ("holds what is on the decontamination list", False)

    def __init__(self, words: str, is_bad: bool) -> None:
        self.words, self.is_bad = words, is_bad


class SkipError(DataError):
    """What a user named by itself cannot be used, or too much of what was found cannot."""


@dataclass
class Skipped:
    """What one reason left out."""

    count: int = 0  # files, records or documents
    size_bytes: int = 0  # of text where it is known, else of the file
    places: list[str] = field(default_factory=list)  # the first SHOWN, each with what is wrong there


class Skips:
    """All that was left out so far; the counts of parts add up."""

    def __init__(self) -> None:
        self.by_reason: dict[Reason, Skipped] = {}

    def add(self, reason: Reason, place: str, size_bytes: int, count: int = 1) -> None:
        """Count something that is left out. `place`: which file and line, and what is wrong with it."""
        skipped = self.by_reason.setdefault(reason, Skipped())
        skipped.count += count
        skipped.size_bytes += size_bytes
        if len(skipped.places) < SHOWN:
            skipped.places.append(place)

    def take(self, other: "Skips") -> None:
        """Add what another part left out."""
        for reason, skipped in other.by_reason.items():
            own = self.by_reason.setdefault(reason, Skipped())
            own.count += skipped.count
            own.size_bytes += skipped.size_bytes
            own.places += skipped.places[: max(0, SHOWN - len(own.places))]

    @property
    def bad_bytes(self) -> int:
        """Bytes that were meant to be used and cannot be."""
        return sum(skipped.size_bytes for reason, skipped in self.by_reason.items() if reason.is_bad)

    def check(self, read_bytes: int, most: float) -> None:
        """Raise SkipError if nothing can be used, or if what cannot is more than the share `most` of all text.

        `read_bytes`: of the text that can be used.
        """
        if not read_bytes:
            raise SkipError(self._nothing())
        if self.bad_bytes <= most * (read_bytes + self.bad_bytes):
            return
        worst, skipped = self._worst()
        share = self.bad_bytes / (read_bytes + self.bad_bytes)
        raise SkipError(
            f"{share:.1%} of the text cannot be used, more than --max-bad {most:g} allows; most of it {worst.words}; "
            f"first {skipped.places[0]} (or leave such text out: --max-bad {_above(share):g})"
        )

    def _nothing(self) -> str:
        """Return what stands in the way of all text."""
        if not self.by_reason:
            return "there is no text in what was given; name files that hold text"
        reason, skipped = self._worst()
        more = f" (the first of {skipped.count:,})" if skipped.count > 1 else ""
        return f"none of the text can be used: it {reason.words}, {skipped.places[0]}{more}"

    def _worst(self) -> tuple[Reason, Skipped]:
        """Return what left out most, bad things before those that were left out on purpose."""
        return max(self.by_reason.items(), key=lambda each: (each[0].is_bad, each[1].size_bytes))

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            reason.name: {"count": skipped.count, "bytes": skipped.size_bytes, "places": skipped.places}
            for reason, skipped in self.by_reason.items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Skips":
        """Read what `as_dict` made."""
        skips = cls()
        for name, value in values.items():
            skips.by_reason[Reason[name]] = Skipped(value["count"], value["bytes"], list(value["places"]))
        return skips


def _above(share: float) -> float:
    """Return a share of two digits that is no smaller."""
    return min(1.0, math.ceil(share * 100) / 100)
