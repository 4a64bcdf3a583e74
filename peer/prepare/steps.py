"""What `prepare` does part by part, as steps that travel to workers, and the engine that has them done there.

Results are kept where those of one machine are, under the same names; then the engine of one machine goes over them. So
the corpus is the same, byte for byte, and a run that was begun on a cluster may be ended on one machine, or again.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from configs.corpus import TaskFormat
from configs.files import write_file
from peer.corpus.tokenizer import Vocabulary
from peer.prepare.documents import Progress, Reading, SourceFile
from peer.prepare.encode import encode_part, sample_part, staying
from peer.prepare.engine import Engine, Job, Prepared, job_of
from peer.prepare.fates import Decision, PartFates, fates
from peer.prepare.listing import Listing
from peer.prepare.plan import Plan
from peer.prepare.reading import read
from peer.prepare.survey import Chunk, Part, PartSurvey, chunks, survey_chunk

Item = TypeVar("Item")


class Workers(Protocol):
    """Who does steps: `spark.SparkWorkers`, or whatever gives the same."""

    def run(self, step: Callable[[Item], bytes], items: Sequence[Item]) -> Iterator[bytes]:
        """Yield what `step` makes of each item, in their order."""


@dataclass(frozen=True)
class SurveyStep:
    """Chunk → its surveys."""

    job: Job

    def __call__(self, chunk: Chunk) -> bytes:
        """Do the step."""
        job = self.job
        found = survey_chunk(job.files, chunk, job.how, job.plan.sifting(), job.part_bytes, job.read)
        return PartSurvey.list_to_bytes(list(found))


@dataclass(frozen=True)
class SampleStep:
    """Part, with its survey and fates → the texts of it that a tokenizer is trained on, as a JSON array."""

    files: tuple[SourceFile, ...]
    how: Reading
    lowest: tuple[int, ...]  # by domain: the hash from which on a piece is in the sample

    def __call__(self, item: tuple[PartSurvey, PartFates]) -> bytes:
        """Do the step."""
        return json.dumps(list(sample_part(self.files, *item, self.lowest, self.how, read))).encode()


@dataclass(frozen=True)
class EncodeStep:
    """Part, with its fates → its tokens."""

    files: tuple[SourceFile, ...]
    how: Reading
    vocabulary: Vocabulary
    form: TaskFormat

    def __call__(self, item: tuple[Part, PartFates]) -> bytes:
        """Do the step."""
        return encode_part(staying(self.files, *item, self.how, read), self.vocabulary, self.form)


def prepare_on(
    workers: Workers,
    sources: Sequence[str | Path],
    out: Path,
    plan: Plan | None = None,
    how: Reading | None = None,
    listing: Listing | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Prepare as `engine.prepare` does, with what is done part by part done by `workers`. Raises what they raise, too.

    Sources are paths or URLs under which every worker finds them.
    """
    job = job_of(sources, plan or Plan(), how or Reading(), listing or Listing())
    return ClusterEngine(job, out, progress or _silent, workers).run()


class ClusterEngine(Engine):
    """One job, on many machines."""

    def __init__(self, job: Job, out: Path, progress: Progress, workers: Workers) -> None:
        super().__init__(job, out, progress)
        self._workers = workers

    def _survey(self) -> list[PartSurvey]:
        job = self._job
        items = {f"survey.{at}": chunk for at, chunk in enumerate(chunks(job.files, job.part_bytes))}
        self._fill("reading", SurveyStep(job), items)
        return super()._survey()

    def _sample(self, surveys: Sequence[PartSurvey], decision: Decision) -> Iterator[str]:
        job = self._job
        budget = job.plan.tokenizer_bytes / len(decision.domains)
        shares = [min(1.0, budget / domain.size_bytes) for domain in decision.domains]
        lowest = tuple(min(2**64 - 1, round((1 - share) * 2**64)) for share in shares)
        items = list(zip(surveys, fates(surveys, decision), strict=True))
        for done, raw in enumerate(self._workers.run(SampleStep(job.files, job.how, lowest), items)):
            yield from json.loads(raw)
            self._progress("training the tokenizer", done + 1, len(items))

    def _encode(
        self, surveys: Sequence[PartSurvey], decided: Sequence[PartFates], vocabulary: Vocabulary
    ) -> Iterator[bytes]:
        job = self._job
        parts = [(survey.part, fates_) for survey, fates_ in zip(surveys, decided, strict=True)]
        step = EncodeStep(job.files, job.how, vocabulary, job.plan.format())
        self._fill("tokenizing", step, {f"tokens.{at}": part for at, part in enumerate(parts)})
        return super()._encode(surveys, decided, vocabulary)

    def _fill(self, stage: str, step: Callable[[Item], bytes], items: Mapping[str, Item]) -> None:
        """Have the workers do what is not kept yet."""
        missing = [name for name in items if not self._kept.has(name)]
        for done, (name, raw) in enumerate(
            zip(missing, self._workers.run(step, [items[name] for name in missing]), strict=True)
        ):
            write_file(self._kept.folder / name, raw)
            self._progress(stage, len(items) - len(missing) + done + 1, len(items))


def _silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""
