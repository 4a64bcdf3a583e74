"""A look before the work: what `prepare` would make of the text, found out by reading it once and writing nothing."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from peer.corpus.chats import ASSISTANT, USER, form_of, placed
from peer.corpus.examples import Example
from peer.corpus.tokenizer import read_tokenizer
from peer.prepare.documents import Content, Progress, text_of
from peer.prepare.fates import DROPPED, HELDOUT, Decision, PartFates, count, decide, fates
from peer.prepare.job import Job
from peer.prepare.skips import Skips
from peer.prepare.survey import IS_FIRST, PartSurvey, chunks, pieces_of

BYTES_OF_TOKEN = 4.0  # of English, in a vocabulary of some ten thousand; where no tokenizer says it
SAMPLE_BYTES = 1 << 20  # of text, that tell how long a token is
LONGEST, SAMPLES = 3, 3  # documents that are shown


@dataclass(frozen=True)
class Sample:
    """A document as it would be read in training: texts, each with whether it is learnt."""

    domain: str
    parts: tuple[tuple[str, bool], ...]


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
    domains: tuple[DomainLook, ...]
    duplicates: int  # documents that are the same as an earlier one
    longest: tuple[tuple[int, str], ...]  # bytes, where
    samples: tuple[Sample, ...]
    skips: Skips
    bytes_of_token: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "files": self.files,
            "file_bytes": self.file_bytes,
            "domains": [vars(domain) for domain in self.domains],
            "duplicates": self.duplicates,
            "longest": [{"bytes": size_bytes, "place": place} for size_bytes, place in self.longest],
            "samples": [{"domain": sample.domain, "parts": sample.parts} for sample in self.samples],
            "skipped": self.skips.as_dict(),
        }


def look(job: Job, progress: Progress) -> Look:
    """Read all text once. Raises DataError: it cannot become a corpus, as `prepare` would say."""
    total, done = sum(file.size_bytes for file in job.files), 0
    surveys: list[PartSurvey] = []
    for chunk in chunks(job.files, job.part_bytes):
        surveys += PartSurvey.list_from_bytes(job.survey(chunk))
        done += sum(file.size_bytes for file in job.files[chunk.start : chunk.stop])
        progress("reading", done, total)
    skips = Skips()
    for each in (job.skips, *(survey.skips for survey in surveys)):
        skips.take(each)
    skips.check(sum(int(survey.sizes.sum()) for survey in surveys), 1.0)  # how much of it is bad is only shown
    decision = decide(surveys, job.plan.heldout_share)
    decided = list(fates(surveys, decision))
    count(surveys, decided, decision)
    skips.take(decision.skips)
    bytes_of_token = _bytes_of_token(job, surveys, decided)
    return Look(
        files=len(job.files),
        file_bytes=total,
        domains=tuple(_domain(decision, at, bytes_of_token) for at in range(len(decision.domains))),
        duplicates=_duplicates(surveys),
        longest=tuple(_longest(job, surveys)),
        samples=tuple(_samples(job, surveys, decided, decision)),
        skips=skips,
        bytes_of_token=bytes_of_token,
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


def _domain(decision: Decision, at: int, bytes_of_token: float) -> DomainLook:
    domain = decision.domains[at]
    return DomainLook(
        name=domain.name,
        is_task=domain.is_task,
        documents=domain.documents,
        size_bytes=domain.trained_bytes + domain.heldout_bytes,
        heldout_bytes=domain.heldout_bytes,
        held_out_by=domain.by,
        tokens=round((domain.trained_bytes + domain.heldout_bytes) / bytes_of_token),
    )


def _bytes_of_token(job: Job, surveys: Sequence[PartSurvey], decided: Sequence[PartFates]) -> float:
    if job.plan.tokenizer is None:
        return BYTES_OF_TOKEN
    vocabulary = read_tokenizer(Path(job.plan.tokenizer), job.plan.vocab_size)
    size_bytes = tokens = 0
    for survey, each in zip(surveys, decided, strict=True):
        for piece in job.staying(survey.part, each):
            text = text_of(piece.content)
            size_bytes += len(text.encode())
            tokens += len(next(vocabulary.ids([text])))
            if size_bytes >= SAMPLE_BYTES:
                return size_bytes / max(1, tokens)
    return size_bytes / max(1, tokens)


def _duplicates(surveys: Sequence[PartSurvey]) -> int:
    hashes = np.concatenate([survey.hashes for survey in surveys])
    return len(hashes) - len(np.unique(hashes))


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


def _samples(
    job: Job, surveys: Sequence[PartSurvey], decided: Sequence[PartFates], decision: Decision
) -> Iterator[Sample]:
    """Yield documents from the beginning, the middle and the end of the text."""
    lengths = np.cumsum([len(each.fates) for each in decided])
    staying = np.flatnonzero(np.concatenate([each.fates for each in decided]) < DROPPED)
    wanted = [staying[round(at * (len(staying) - 1) / max(1, SAMPLES - 1))] for at in range(SAMPLES)]
    for place in dict.fromkeys(int(each) for each in wanted if len(staying)):
        part = int(np.searchsorted(lengths, place, side="right"))
        within = place - (int(lengths[part - 1]) if part else 0)
        pieces = pieces_of(job.files, surveys[part].part, job.how, job.read, Skips())
        _, piece = next(islice(pieces, within, None))
        domain = decision.domains[int(decided[part].domains[within])].name
        yield Sample(domain, marked(piece.content, job, decided[part].fates[within] == HELDOUT))
