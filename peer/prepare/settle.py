"""From what the surveys say to what becomes of each piece: what `prepare` and a look before it have in common."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from configs.errors import DataError
from peer.prepare.cleaning import Cleaning
from peer.prepare.fates import Decision, PartFates, count, fates
from peer.prepare.job import Job
from peer.prepare.repeats import repeated, surveys_on_disk
from peer.prepare.survey import IS_TASK, OF_TASKS, Chunk, PartSurvey, chunks, with_domains
from peer.sources.documents import Progress
from peer.sources.skips import Skips

POOL = "all"  # the one domain of text in which domains are found


def surveyed(
    job: Job, done_by: Callable[[Sequence[Chunk]], Iterator[bytes]], progress: Progress, file: Path | None = None
) -> list[PartSurvey]:
    """Return what is in all chunks, which `done_by` surveys; with a `file`, signatures are there and not in memory."""

    def found() -> Iterator[PartSurvey]:
        total, done = sum(each.size_bytes for each in job.files), 0
        items = chunks(job.files, job.part_bytes)
        for chunk, raw in zip(items, done_by(items), strict=True):
            yield from PartSurvey.list_from_bytes(raw)
            done += sum(each.size_bytes for each in job.files[chunk.start : chunk.stop])
            progress("reading", done, total)

    return list(found()) if file is None else surveys_on_disk(found(), file)


def pooled(job: Job, surveys: list[PartSurvey]) -> list[PartSurvey]:
    """Return the surveys with all text in one domain, if those that the sources name do not count.

    Raises DataError: there are examples of a task.
    """
    if not job.plan.is_pooled:
        return surveys
    for survey in surveys:
        for place in np.unique(survey.domains[survey.flags & IS_TASK > 0]):
            raise DataError(
                f"'{survey.names[place].rstrip(OF_TASKS)}' is a task (examples with input and target), and domains are "
                "found in text alone; prepare it without --domains, as a domain of its own"
            )
    return [with_domains(each, (POOL,), np.zeros(len(each.sizes), dtype=np.uint16)) for each in surveys]


def skipped(job: Job, surveys: Sequence[PartSurvey]) -> Skips:
    """Return what was left out while files were found and read."""
    skips = Skips()
    for each in (job.skips, *(survey.skips for survey in surveys)):
        skips.take(each)
    return skips


def read_bytes(surveys: Sequence[PartSurvey]) -> int:
    """Return the bytes of all text that can be used."""
    return sum(int(survey.sizes.sum()) for survey in surveys)


def settle(
    surveys: Sequence[PartSurvey], decided: list[PartFates], decision: Decision, cleaning: Cleaning, signatures: Path
) -> list[PartFates]:
    """Return what becomes of each part, without duplicates as far as they are to go, and count it in `decision`.

    `decided`: what becomes of it with them. The file `signatures` is written where near ones are looked for.
    """
    if cleaning.is_deduplicated or cleaning.near is not None:
        decided = list(fates(surveys, decision, repeated(surveys, decided, cleaning, signatures)))
    count(surveys, decided, decision)
    return decided
