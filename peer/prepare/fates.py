"""What becomes of each piece: trained on, held out, or left out. Pure, on what the surveys say.

Held out is what a split says. Where none says anything, the hashes choose whole documents up to the share that is asked
for; where documents are so few or so long that they would miss it, pieces of them. Nothing that is trained on equals
anything that is held out, wherever it stands.

Surveys are gone through one after the other, so what is in memory of them is one part, and what is held out.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from itertools import count as count_from
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from configs.corpus import MAX_DOMAINS
from configs.errors import DataError
from peer.prepare.survey import IS_FIRST, IS_HELDOUT, IS_LAST, IS_TASK, OF_TASKS, REASONS, PartSurvey
from peer.sources.skips import Reason, Skips

TRAIN, HELDOUT, DROPPED = 0, 1, 2  # fates; from DROPPED on, the place in REASONS of why it is left out
BUCKETS = 1 << 16  # of hashes, between which the share that is held out ends
STEADY, CLOSE = 0.1, 0.2  # how far from the share asked for, of it: fixed hashes may be, whole documents may be

By = Literal["split", "documents", "pieces"]


@dataclass(frozen=True)
class PartFates:
    """What becomes of the pieces of a part. (N,) each."""

    fates: NDArray[np.uint8]
    domains: NDArray[np.uint16]  # places in `Decision.domains`
    ends: NDArray[np.bool_]  # whether the text that is trained on or held out ends here


@dataclass
class DomainFate:
    """What a domain has, and what of it is held out."""

    name: str
    is_task: bool
    documents: int = 0  # that are not left out by a filter
    by: By = "documents"
    below: int = 0  # the bucket from which on hashes are trained on
    lowest: int = (1 << 64) - 1  # the lowest hash of a document, which is always held out
    size_bytes: int = 0
    heldout_bytes: int = 0
    trained_bytes: int = 0
    has_splits: bool = False
    histograms: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, BUCKETS), dtype=np.int64))
    lows: list[int] = field(default_factory=lambda: [(1 << 64) - 1] * 2)


@dataclass
class Decision:
    """The domains in their order, the hashes of all that is held out, and what is left out besides."""

    domains: list[DomainFate]
    places: dict[str, int]  # name of a domain in the surveys → place in `domains`
    heldout: NDArray[np.uint64]  # sorted
    skips: Skips


def decide(
    surveys: Sequence[PartSurvey], share: float, pooled: "Decision | None" = None, is_fixed: bool = False
) -> Decision:
    """Return what is held out of each domain. `pooled`: what was decided before the domains were found; it stays.

    `is_fixed`: hashes below the share are held out however much text that is, as everywhere that domains are found.

    Raises DataError: there is no text, or there are too many domains.
    """
    found: dict[str, DomainFate] = {}
    for survey, firsts in _with_firsts(surveys):
        _count(found, survey, firsts)
    if not found:
        raise DataError(_all_left_out(surveys))
    if pooled is not None:  # cluster.2 before cluster.10, everywhere
        found = {name: found[name] for name in surveys[0].names if name in found}
    for name, fate in found.items():
        if name.endswith(OF_TASKS):
            text = name.removesuffix(OF_TASKS)
            fate.name = _unused(f"{text[:56]}-tasks", found) if text in found else text
    places = {name: place for place, name in enumerate(found)}
    decision = Decision(list(found.values()), places, np.empty(0, dtype=np.uint64), Skips())
    for domain in decision.domains:
        if pooled is None:
            _hold_out(domain, share, is_fixed)
        elif domain.has_splits:
            domain.by = "split"
        else:
            [whole] = pooled.domains
            domain.by, domain.below, domain.lowest = "pieces", whole.below, domain.lows[1]
    decision.heldout = np.unique(np.concatenate(list(_heldout_hashes(surveys, decision))))
    return decision


def fates(surveys: Sequence[PartSurvey], decision: Decision, dropped: "Dropped | None" = None) -> Iterator[PartFates]:
    """Yield what becomes of each part. `dropped`: duplicates, by part."""
    waiting: list[tuple[PartFates, NDArray[np.uint8]]] = []  # a part, and those after it that hold no pieces
    for at, (survey, firsts) in enumerate(_with_firsts(surveys)):
        # Of a domain that has no place every piece is left out.
        own = [decision.places.get(name, 0) for name in survey.names]
        domains = np.array(own, dtype=np.uint16)[survey.domains]
        found = np.where(_is_heldout(survey, firsts, decision), HELDOUT, TRAIN).astype(np.uint8)
        again = (found == TRAIN) & _is_among(survey.hashes, decision.heldout)
        found[again] = DROPPED + REASONS.index(Reason.HELD_OUT)
        if dropped is not None:
            found = np.where((found == TRAIN) & (dropped[at] > 0), DROPPED - 1 + dropped[at], found).astype(np.uint8)
        found = np.where(survey.verdicts > 0, DROPPED - 1 + survey.verdicts, found).astype(np.uint8)
        part = PartFates(found, domains, np.zeros(len(found), dtype=bool)), survey.flags
        if len(found) and waiting:
            yield from _closed(waiting, part)
            waiting = []
        waiting.append(part)
    yield from _closed(waiting, None)


Dropped = Sequence[NDArray[np.uint8]]  # by part, (N,): 0, or 1 and the place in REASONS


def all_trained(survey: PartSurvey) -> PartFates:
    """Return that everything is trained on which no filter left out; each piece is a document."""
    found = np.where(survey.verdicts > 0, DROPPED - 1 + survey.verdicts, TRAIN).astype(np.uint8)
    return PartFates(found, survey.domains, np.ones(len(found), dtype=bool))


def count(surveys: Sequence[PartSurvey], decided: Sequence[PartFates], decision: Decision) -> None:
    """Count in `decision` what becomes of all parts."""
    for survey, part in zip(surveys, decided, strict=True):
        found = part.fates
        for place, domain in enumerate(decision.domains):
            mine = part.domains == place
            domain.trained_bytes += int(survey.sizes[mine & (found == TRAIN)].sum())
            domain.heldout_bytes += int(survey.sizes[mine & (found == HELDOUT)].sum())
        for fate in np.unique(found[found >= DROPPED]):
            is_dropped = found == fate
            names = sorted({survey.names[place].rstrip(OF_TASKS) for place in np.unique(survey.domains[is_dropped])})
            size_bytes, pieces = int(survey.sizes[is_dropped].sum()), int(is_dropped.sum())
            decision.skips.add(REASONS[fate - DROPPED], f"in {', '.join(names[:3])}", size_bytes, pieces)


def check_domains(decision: Decision) -> None:
    """Raise DataError if a domain has nothing to train on, or nothing that is held out."""
    for domain in decision.domains:
        if domain.trained_bytes and domain.heldout_bytes:
            continue
        if domain.size_bytes > domain.trained_bytes + domain.heldout_bytes:
            what = "hold out" if domain.trained_bytes else "train on"
            raise DataError(
                f"domain '{domain.name}' has nothing left to {what}: what repeats held-out or earlier documents, or is "
                "like them, is left out; give it more text, or leave out --deduplicate and --near-duplicates"
            )
        if domain.by == "split":
            raise DataError(
                f"domain '{domain.name}' has only held-out text: all of it is in a split such as valid or test; add "
                "the text that is to be trained on, or leave it out"
            )
        if domain.documents > 1:
            raise DataError(
                f"each of the {domain.documents:,} documents of domain '{domain.name}' says the same, so none can be "
                "held out while another is trained on; give it more text"
            )
        raise DataError(
            f"domain '{domain.name}' has only one document, but one is held out and one is trained on; give it more "
            "text, separate its documents (by blank lines in text files, or see --document), or name what is held out "
            "with --heldout"
        )


def _unused(name: str, names: Collection[str]) -> str:
    """Return a name of a domain that is not among `names`."""
    others = (f"{name}-{number}" for number in count_from(2))
    return next(each for each in chain([name], others) if each not in names)


def _all_left_out(surveys: Sequence[PartSurvey]) -> str:
    verdicts = np.concatenate([survey.verdicts for survey in surveys])
    if not len(verdicts):
        return "there is no text in what was given; name files that hold text"
    reasons = [REASONS[verdict - 1].words for verdict in np.unique(verdicts) if verdict]
    return (
        f"each of the documents {' or '.join(reasons)}, so none is left; see --language, --min-characters, "
        "--max-characters and --decontaminate, and leave out what is too strict"
    )


def _with_firsts(surveys: Sequence[PartSurvey]) -> Iterator[tuple[PartSurvey, NDArray[np.uint64]]]:
    """Yield each survey, with the hash of the first piece of the document of each piece: that decides for all."""
    open_hash = np.uint64(0)
    for survey in surveys:
        starts = np.flatnonzero(survey.flags & IS_FIRST)
        belongs = np.searchsorted(starts, np.arange(len(survey.hashes)), side="right")
        firsts = np.concatenate([[open_hash], survey.hashes[starts]]).astype(np.uint64)[belongs]
        if len(firsts):
            open_hash = firsts[-1]
        yield survey, firsts


def _count(found: dict[str, DomainFate], survey: PartSurvey, firsts: NDArray[np.uint64]) -> None:
    is_kept = survey.verdicts == 0
    for place, name in enumerate(survey.names):
        mine = is_kept & (survey.domains == place)
        if not mine.any():
            continue
        flags, sizes = survey.flags[mine], survey.sizes[mine].astype(np.int64)
        domain = found.setdefault(name, DomainFate(name, is_task=bool(flags[0] & IS_TASK)))
        if len(found) > MAX_DOMAINS:
            raise DataError(
                f"there are more than {MAX_DOMAINS} domains; put folders together, or let domains be found with "
                f"--domains K, whatever folders and columns say"
            )
        domain.documents += int((flags & IS_FIRST > 0).sum())
        domain.size_bytes += int(sizes.sum())
        domain.has_splits |= bool((flags & IS_HELDOUT).any())
        for row, hashes in enumerate((firsts[mine], survey.hashes[mine])):
            buckets = (hashes >> np.uint64(48)).astype(np.int64)
            domain.histograms[row] += np.bincount(buckets, sizes, minlength=BUCKETS).astype(np.int64)
            domain.lows[row] = min(domain.lows[row], int(hashes.min()))


def _hold_out(domain: DomainFate, share: float, is_fixed: bool) -> None:
    """Choose how, and below which bucket, a domain is held out.

    Below the share itself if that comes near: what is held out then stays held out when other documents come.
    """
    if domain.has_splits:
        domain.by = "split"
        return
    if is_fixed:
        domain.by, domain.below, domain.lowest = "pieces", round(share * BUCKETS), domain.lows[1]
        return
    target = share * domain.size_bytes
    found: list[tuple[float, int]] = []
    for histogram in domain.histograms:
        sums = np.cumsum(histogram)
        steady = round(share * BUCKETS)
        if abs(int(sums[steady - 1]) - target) <= STEADY * target:
            found.append((0.0, steady))
            continue
        at = int(np.searchsorted(sums, target))
        bounds = [bound for bound in (at, at + 1) if bound and 0 < sums[bound - 1] < domain.size_bytes]
        best = min(bounds, key=lambda bound: abs(int(sums[bound - 1]) - target), default=0)
        got = int(sums[best - 1]) if best else 0
        found.append((abs(got / target - 1) if got else np.inf, best))
    is_by_pieces = not domain.is_task and found[0][0] > CLOSE and found[1][0] < found[0][0]
    domain.by = "pieces" if is_by_pieces else "documents"
    domain.below = found[is_by_pieces][1]
    domain.lowest = domain.lows[is_by_pieces]


def _is_heldout(survey: PartSurvey, firsts: NDArray[np.uint64], decision: Decision) -> NDArray[np.bool_]:
    """Return which pieces are held out, (N,); not all of them are kept."""
    result = np.zeros(len(survey.hashes), dtype=bool)
    for place, name in enumerate(survey.names):
        if name not in decision.places:  # nothing of it is kept
            continue
        domain = decision.domains[decision.places[name]]
        mine = survey.domains == place
        if domain.by == "split":
            result |= mine & (survey.flags & IS_HELDOUT > 0)
        else:
            hashes = firsts if domain.by == "documents" else survey.hashes
            is_low = (hashes >> np.uint64(48)).astype(np.int64) < domain.below
            result |= mine & (is_low | (hashes == np.uint64(domain.lowest)))
    return result


def _heldout_hashes(surveys: Sequence[PartSurvey], decision: Decision) -> Iterator[NDArray[np.uint64]]:
    yield np.empty(0, dtype=np.uint64)
    for survey, firsts in _with_firsts(surveys):
        yield survey.hashes[_is_heldout(survey, firsts, decision) & (survey.verdicts == 0)]


def _is_among(hashes: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which hashes are in a sorted array. `np.isin` would sort that anew for each part."""
    if not len(ordered):
        return np.zeros(len(hashes), dtype=bool)
    places = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
    return np.asarray(ordered[places] == hashes)


def _closed(
    waiting: Sequence[tuple[PartFates, NDArray[np.uint8]]], after: tuple[PartFates, NDArray[np.uint8]] | None
) -> Iterator[PartFates]:
    """Yield parts with their ends: a document ends where it says, or where the next piece has another fate."""
    for part, flags in waiting:
        ends = flags & IS_LAST > 0
        ends[:-1] |= (part.fates[1:] != part.fates[:-1]) | (part.domains[1:] != part.domains[:-1])
        if len(ends) and (after is None or after[0].fates[0] != part.fates[-1] or after[1][0] & IS_FIRST):
            ends[-1] = True
        yield PartFates(part.fates, part.domains, ends)
