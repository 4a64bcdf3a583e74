"""A look before the work: what `prepare` would make of the text, found by reading it and writing no corpus.

The text is read once, and again where the longest documents and the samples stand. Domains that `prepare` would find or
know are not found: all text is one then.
"""

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from peer.corpus.chats import ASSISTANT, USER, form_of, placed
from peer.corpus.examples import Example
from peer.prepare.fates import DROPPED, HELDOUT, Decision, DomainFate, PartFates, check_domains, decide, fates
from peer.prepare.job import Job
from peer.prepare.repeats import equal_documents
from peer.prepare.settle import pooled, read_bytes, settle, skipped, surveyed
from peer.prepare.survey import IS_FIRST, PartSurvey, pieces_of
from peer.sources.documents import Content, DocumentUnit, Progress, SourceFile, text_of
from peer.sources.skips import Skips

UTF8 = ("utf-8", "utf-8-sig", "ascii")
BYTES_OF_TOKEN = 4.0  # of English, in a vocabulary of some ten thousand; where no tokenizer says it
SAMPLE_BYTES = 1 << 20  # of text, that tell how long a token is
LONGEST, SAMPLES = 3, 3  # documents that are shown


@dataclass(frozen=True)
class Sample:
    """A document as it would be read in training: texts, each with whether it is learnt."""

    domain: str
    parts: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Layout:
    """What was told of the files of a domain: how many have what for one document, and which are in what encoding."""

    domain: str  # that the files name; columns and --domains may say otherwise
    units: Mapping[DocumentUnit, int]  # of text files and code
    encodings: Mapping[str, int]  # other than UTF-8


@dataclass(frozen=True)
class DomainLook:
    """What a domain would have."""

    name: str
    is_task: bool
    documents: int
    size_bytes: int
    heldout_bytes: int
    held_out_by: str  # split, documents, or pieces
    tokens: int  # estimated


@dataclass(frozen=True)
class Look:
    """What there is."""

    files: int
    file_bytes: int
    layouts: tuple[Layout, ...]
    domains: tuple[DomainLook, ...]
    duplicates: int  # documents that are the same as an earlier one
    longest: tuple[tuple[int, str], ...]  # bytes, where
    samples: tuple[Sample, ...]
    skips: Skips
    bytes_of_token: float
    refusal: DataError | None = None  # what `prepare` would end with

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "files": self.files,
            "file_bytes": self.file_bytes,
            "layouts": [vars(layout) for layout in self.layouts],
            "domains": [vars(domain) for domain in self.domains],
            "duplicates": self.duplicates,
            "longest": [{"bytes": size_bytes, "place": place} for size_bytes, place in self.longest],
            "samples": [{"domain": sample.domain, "parts": sample.parts} for sample in self.samples],
            "skipped": self.skips.as_dict(),
            "refusal": None if self.refusal is None else str(self.refusal),
        }


def look(job: Job, progress: Progress) -> Look:
    """Read all text once. What `prepare` would refuse before it tokenizes is in the look, beside all that was found."""
    with TemporaryDirectory() as folder:
        return _looked(job, progress, Path(folder))


def _looked(job: Job, progress: Progress, folder: Path) -> Look:
    surveys = surveyed(job, partial(map, job.survey), progress, folder / "surveyed")
    skips, refusals = skipped(job, surveys), _Refusals()
    with refusals.heard():
        surveys = pooled(job, surveys)
    with refusals.heard():
        skips.check(read_bytes(surveys), job.plan.max_bad)
    found = _Found(Decision([], {}, np.empty(0, dtype=np.uint64), Skips()), [], 0)
    with refusals.heard():
        found = _settled(job, surveys, folder)
        check_domains(found.decision)
    skips.take(found.decision.skips)
    bytes_of_token = _bytes_of_token(job, surveys, found.decided)
    documents = _documents(surveys, found)
    return Look(
        files=len(job.files),
        file_bytes=sum(file.size_bytes for file in job.files),
        layouts=tuple(_layouts(job.files)),
        domains=tuple(
            _domain(domain, count, bytes_of_token)
            for domain, count in zip(found.decision.domains, documents, strict=True)
        ),
        duplicates=found.duplicates,
        longest=tuple(_longest(job, surveys)),
        samples=tuple(_samples(job, surveys, found)),
        skips=skips,
        bytes_of_token=bytes_of_token,
        refusal=refusals.first,
    )


def marked(content: Content, job: Job, is_heldout: bool) -> tuple[tuple[str, bool], ...]:
    """Return what a model reads of a document, and which of it it learns."""
    if not isinstance(content, Example):
        return ((content, not is_heldout),)
    form = form_of(job.plan.format())
    parts: list[tuple[str, bool]] = [(form.begin, False)]
    for role, text in placed([*content.before, (USER, content.input)], form):
        is_learnt = role == ASSISTANT and not is_heldout
        parts += [(form.opens[role] + form.lead, False), (text, is_learnt), (form.closes[role], False)]
    parts += [(form.opens[ASSISTANT] + form.lead, False), (content.target, not is_heldout)]
    return tuple((text, is_learnt) for text, is_learnt in parts if text)


@dataclass(frozen=True)
class _Found:
    """What becomes of all pieces."""

    decision: Decision
    decided: list[PartFates]
    duplicates: int


class _Refusals:
    """Keeps the first error, so that the rest can be seen, too."""

    def __init__(self) -> None:
        self.first: DataError | None = None

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Keep the error that is raised within."""
        try:
            yield
        except DataError as error:
            self.first = self.first or error


def _settled(job: Job, surveys: Sequence[PartSurvey], folder: Path) -> _Found:
    decision = decide(surveys, job.plan.heldout_share, is_fixed=job.plan.is_pooled)
    decided = list(fates(surveys, decision))
    duplicates = equal_documents(surveys, decided)
    return _Found(decision, settle(surveys, decided, decision, job.plan.cleaning, folder / "signatures"), duplicates)


def _layouts(files: Sequence[SourceFile]) -> Iterator[Layout]:
    """Yield what is told of the files of each domain that they name."""
    for name in dict.fromkeys(file.domain for file in files):
        mine = [file for file in files if file.domain == name]
        units = Counter(file.unit for file in mine if file.form in ("text", "code"))
        yield Layout(name, units, Counter(file.encoding for file in mine if file.encoding not in UTF8))


def _documents(surveys: Sequence[PartSurvey], found: _Found) -> NDArray[np.int64]:
    """Return how many documents of each domain are in the corpus, or passages of them: (domains,)."""
    counts = np.zeros(len(found.decision.domains), dtype=np.int64)
    for survey, each in zip(surveys, found.decided, strict=False):
        starts = np.flatnonzero(survey.flags & IS_FIRST)
        if len(starts):
            stays = np.logical_or.reduceat(each.fates < DROPPED, starts)
            counts += np.bincount(each.domains[starts[stays]], minlength=len(counts))
    return counts


def _domain(domain: DomainFate, documents: int, bytes_of_token: float) -> DomainLook:
    return DomainLook(
        name=domain.name,
        is_task=domain.is_task,
        documents=int(documents),
        size_bytes=domain.trained_bytes + domain.heldout_bytes,
        heldout_bytes=domain.heldout_bytes,
        held_out_by=domain.by,
        tokens=round((domain.trained_bytes + domain.heldout_bytes) / bytes_of_token),
    )


def _bytes_of_token(job: Job, surveys: Sequence[PartSurvey], decided: Sequence[PartFates]) -> float:
    vocabulary = job.plan.given_vocabulary()
    if vocabulary is None:
        return BYTES_OF_TOKEN
    size_bytes = tokens = 0
    for survey, each in zip(surveys, decided, strict=False):
        for piece in job.staying(survey.part, each):
            text = text_of(piece.content)
            size_bytes += len(text.encode())
            tokens += len(next(vocabulary.ids([text])))
            if size_bytes >= SAMPLE_BYTES:
                return size_bytes / max(1, tokens)
    return size_bytes / tokens if tokens else BYTES_OF_TOKEN


def _longest(job: Job, surveys: Sequence[PartSurvey]) -> Iterator[tuple[int, str]]:
    """Yield the sizes of the longest documents, and in which file they are."""
    found: list[tuple[int, int, int]] = []  # bytes, part, piece
    for at, survey in enumerate(surveys):
        starts = np.flatnonzero(survey.flags & IS_FIRST)
        if len(starts):
            sizes = np.add.reduceat(survey.sizes.astype(np.int64), starts)
            for place in np.argsort(-sizes, kind="stable")[:LONGEST]:
                found.append((int(sizes[place]), -at, -int(starts[place])))
    for size_bytes, at, start in heapq.nlargest(LONGEST, found):
        pieces = pieces_of(job.files, surveys[-at].part, job.how, job.read, Skips())
        file, _ = next(islice(pieces, -start, None))
        yield size_bytes, job.files[file].url


def _samples(job: Job, surveys: Sequence[PartSurvey], found: _Found) -> Iterator[Sample]:
    """Yield documents from the beginning, the middle and the end of the text."""
    decided = found.decided
    lengths = np.cumsum([len(each.fates) for each in decided])
    staying = np.flatnonzero(np.concatenate([np.empty(0), *(each.fates for each in decided)]) < DROPPED)
    wanted = [staying[round(at * (len(staying) - 1) / max(1, SAMPLES - 1))] for at in range(SAMPLES) if len(staying)]
    for place in dict.fromkeys(int(each) for each in wanted):
        part = int(np.searchsorted(lengths, place, side="right"))
        within = place - (int(lengths[part - 1]) if part else 0)
        piece = next(islice(job.reader.pieces(surveys[part].part), within, None))
        domain = found.decision.domains[int(decided[part].domains[within])].name
        yield Sample(domain, marked(piece.content, job, decided[part].fates[within] == HELDOUT))
