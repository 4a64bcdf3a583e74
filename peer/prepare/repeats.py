"""Which documents of a corpus are left out because they repeat an earlier one: `duplicates.py` on what surveys say.

Held-out documents come before all others, and stay. Of a document so long that it goes through several parts nothing is
known here, and it stays.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from peer.prepare.cleaning import Cleaning
from peer.prepare.duplicates import VALUES, exact, near
from peer.prepare.fates import HELDOUT, TRAIN, PartFates
from peer.prepare.survey import IS_FIRST, IS_LAST, REASONS, PartSurvey
from peer.sources.skips import Reason

_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class _Documents:
    """The whole documents of a part that are in the corpus; D of them."""

    starts: NDArray[np.int64]  # (D,), their first pieces
    stops: NDArray[np.int64]  # (D,), the pieces after their last
    hashes: NDArray[np.uint64]  # (D,)
    is_heldout: NDArray[np.bool_]  # (D,)
    rows: NDArray[np.int64]  # (D,), places in the part's signatures

    @classmethod
    def of(cls, survey: PartSurvey, decided: PartFates) -> "_Documents":
        """Find them."""
        starts, stops = np.flatnonzero(survey.flags & IS_FIRST), np.flatnonzero(survey.flags & IS_LAST) + 1
        rows = np.arange(len(stops))
        if len(stops) and (not len(starts) or starts[0] >= stops[0]):  # the end of one that began before
            stops, rows = stops[1:], rows[1:]
        starts = starts[: len(stops)]
        if not len(starts):
            return cls(starts, stops, np.empty(0, np.uint64), np.empty(0, bool), rows)
        fates = decided.fates[starts]
        places = _places(starts, len(survey.hashes))
        mixed = (survey.hashes ^ (places.astype(np.uint64) * _ODD)) * _ODD
        hashes = np.add.reduceat(mixed, starts)
        stays = (fates == TRAIN) | (fates == HELDOUT)
        return cls(starts[stays], stops[stays], hashes[stays], fates[stays] == HELDOUT, rows[stays])


def surveys_on_disk(surveys: Iterable[PartSurvey], file: Path) -> list[PartSurvey]:
    """Return surveys whose signatures, 512 bytes a document, are read from `file` as they are needed."""
    found: list[PartSurvey] = []
    ends = [0]
    with file.open("wb") as written:
        for survey in surveys:
            written.write(np.ascontiguousarray(survey.signatures, dtype="<u4").data)
            ends.append(ends[-1] + len(survey.signatures))
            found.append(replace(survey, signatures=survey.signatures[:0].copy()))
    if not ends[-1]:
        return found
    signatures = np.memmap(file, dtype="<u4", mode="r").reshape(-1, VALUES)
    return [replace(each, signatures=signatures[a:b]) for each, (a, b) in zip(found, pairwise(ends), strict=True)]


def repeated(
    surveys: Sequence[PartSurvey], decided: Sequence[PartFates], cleaning: Cleaning, file: Path
) -> list[NDArray[np.uint8]]:
    """Return which pieces are of documents that repeat others: by part (N,), 0, or 1 and the reason's place.

    Signatures of all documents that are compared are written to `file`.
    """
    documents = _documents(surveys, decided)
    dropped = [np.zeros(len(survey.hashes), dtype=np.uint8) for survey in surveys]
    if cleaning.is_deduplicated:
        for pieces, each, flags in zip(dropped, documents, _equal(documents), strict=True):
            _mark(pieces, each, flags, Reason.DUPLICATE)
    if cleaning.near is not None:
        for pieces, each, flags in zip(dropped, documents, _near(surveys, documents, cleaning.near, file), strict=True):
            _mark(pieces, each, flags & (pieces[each.starts] == 0), Reason.NEAR_DUPLICATE)
    return dropped


def equal_documents(surveys: Sequence[PartSurvey], decided: Sequence[PartFates]) -> int:
    """Return how many documents are the same as an earlier or a held-out one, and not held out themselves."""
    return sum(int(flags.sum()) for flags in _equal(_documents(surveys, decided)))


def _documents(surveys: Sequence[PartSurvey], decided: Sequence[PartFates]) -> list[_Documents]:
    return [_Documents.of(survey, each) for survey, each in zip(surveys, decided, strict=True)]


def _equal(documents: Sequence[_Documents]) -> Iterator[NDArray[np.bool_]]:
    """Yield which documents of each part are the same as an earlier or a held-out one; held-out ones are none."""
    alike = exact([each.hashes for each in documents], [each.is_heldout for each in documents])
    return (flags & ~each.is_heldout for flags, each in zip(alike, documents, strict=True))


def _near(
    surveys: Sequence[PartSurvey], documents: Sequence[_Documents], threshold: float, file: Path
) -> Iterator[NDArray[np.bool_]]:
    """Yield which documents of each part are nearly the same as an earlier one."""
    with file.open("wb") as written:
        for survey, each in zip(surveys, documents, strict=True):
            written.write(np.ascontiguousarray(survey.signatures[each.rows], dtype="<u4").data)
    if not file.stat().st_size:
        yield from (np.zeros(0, dtype=bool) for _ in documents)
        return
    signatures = np.memmap(file, dtype="<u4", mode="r").reshape(-1, VALUES)
    is_first = np.concatenate([each.is_heldout for each in documents])
    [flags] = near([signatures], threshold, [is_first])
    yield from np.split(flags & ~is_first, np.cumsum([len(each.starts) for each in documents])[:-1])


def _places(starts: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return how many pieces of its document stand before each piece, (count,)."""
    at = np.arange(count)
    begins = starts[np.maximum(np.searchsorted(starts, at, side="right") - 1, 0)]
    return np.asarray(at - begins)


def _mark(pieces: NDArray[np.uint8], documents: _Documents, flags: NDArray[np.bool_], reason: Reason) -> None:
    for start, stop in zip(documents.starts[flags], documents.stops[flags], strict=True):
        pieces[start:stop] = 1 + REASONS.index(reason)
