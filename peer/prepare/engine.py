"""Turns text into a corpus on this machine: surveys it, takes or trains a tokenizer, tokenizes, and cuts shards.

Text is read two times, or three if a tokenizer is trained, and never kept: memory does not grow with the corpus. Each
step's results lie part by part in a folder beside the corpus until it is complete, so a run that is killed goes on
where it was. The same text and options give the same bytes on every machine.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.corpus import CorpusInfo
from configs.errors import DataError
from configs.files import disk_errors
from peer.corpus.data import TOKENIZER_FILE
from peer.corpus.mixture import log_unigrams_of
from peer.corpus.tokenizer import (
    MODEL_CONFIG_FILE,
    TOKENIZER_CONFIG_FILE,
    Vocabulary,
    train_tokenizer,
    trained_vocabulary,
)
from peer.prepare.assemble import Lost, assemble
from peer.prepare.cleaning import Cleaning
from peer.prepare.domains import WINDOWS, Assigned, Search, check_alone, fitted, sort_into, too_small
from peer.prepare.fates import By, Decision, PartFates, check_domains, decide, fates
from peer.prepare.job import Job, passages_of
from peer.prepare.kept import Here, Item, Kept, Workers
from peer.prepare.plan import DEFAULT_VOCABULARY, Plan
from peer.prepare.settle import pooled, read_bytes, settle, skipped, surveyed
from peer.prepare.survey import PartSurvey, part_bytes_of, piece_characters_of, with_domains
from peer.sources.documents import Content, Piece, Progress, Reading, SourceFile, cut_text, domain_name, text_of
from peer.sources.listing import Listing, find_files
from peer.sources.reading import read
from peer.sources.skips import Reason, Skips

VERSION = 1  # of what lies in the work folder


@dataclass(frozen=True)
class Prepared:
    """What came of it."""

    info: CorpusInfo
    skips: Skips
    held_out_by: Mapping[str, By]  # domain → how what is held out was chosen
    lost: Mapping[str, Lost]  # by tasks


def prepare(
    sources: Sequence[str | Path],
    out: Path,
    plan: Plan | None = None,
    how: Reading | None = None,
    listing: Listing | None = None,
    progress: Progress | None = None,
    workers: Workers | None = None,
) -> Prepared:
    """Prepare files, folders and what fsspec opens as the corpus `out`, which appears when it is complete.

    The domains are those of `listing.find_files`, or what the domain column names, or those that the plan finds or
    knows, in the text of all sources together. A run that was killed goes on where it was. `workers`: who does the
    steps, if not this process; the corpus is the same.
    Raises DataError (what to mend in the text or the options) or StateError (the disk is full or read-only).
    """
    job = job_of(sources, plan or Plan(), how or Reading(), listing or Listing())
    return Engine(job, out, progress or _silent, workers).run()


def job_of(sources: Sequence[str | Path], plan: Plan, how: Reading, listing: Listing) -> Job:
    """Return what there is to be done. Raises DataError: options that make no sense, sources that hold no text."""
    plan.check()
    if plan.is_pooled and how.domain_column is not None:
        raise DataError("--domains and --like find domains and --domain-column names them; leave one of them out")
    skips = Skips()
    listing = replace(
        listing,
        has_domain_column=how.domain_column is not None,
        may_share_names=plan.is_pooled or how.domain_column is not None,
    )
    files = tuple(find_files([str(source) for source in sources], listing, skips))
    characters = plan.passage_characters if plan.is_pooled else piece_characters_of(files)
    how = replace(how, piece_characters=characters)
    return Job(files, how, plan, read, part_bytes_of(files), skips, tuple(_listed(plan.cleaning)))


def _listed(cleaning: Cleaning) -> Iterator[tuple[str, str]]:
    """Yield the texts that no document may hold a part of, each with its file."""
    if not cleaning.decontaminate:
        return
    skips = Skips()
    for file in find_files(cleaning.decontaminate, Listing(may_share_names=True), skips):
        for piece in read(file, Reading(), skips, 0):
            content = piece.content
            for text in (content,) if isinstance(content, str) else (content.input, *content.references):
                yield file.url, text


def prepare_texts(
    domains: Mapping[str, Collection[Content]], out: Path, plan: Plan | None = None, progress: Progress | None = None
) -> CorpusInfo:
    """Prepare documents that are in memory: domain → documents, each iterated several times. Raises as `prepare`."""
    plan = plan or Plan()
    plan.check()
    if not domains:
        raise DataError("no text was given; name at least one domain")
    for domain, texts in domains.items():
        if not any(text_of(text).strip() for text in texts):
            raise DataError(f"domain '{domain}' holds no text; fill it or leave it out")
    files = tuple(
        SourceFile(domain, sum(len(text_of(text).encode()) for text in texts), "text", domain_name(domain))
        for domain, texts in domains.items()
    )
    longest = plan.passage_characters if plan.is_pooled else piece_characters_of(files)

    def pieces(file: SourceFile, how: Reading, skips: Skips, since: int = 0) -> Iterator[Piece]:
        mark = 0
        for content in domains[file.url]:
            if not text_of(content).strip():
                continue
            cut: list[Content] = [*cut_text(content, longest)] if isinstance(content, str) else [content]
            for at, each in enumerate(cut):
                if mark >= since:
                    yield Piece(each, mark, is_last=at == len(cut) - 1)
                mark += 1

    job = Job(files, Reading(piece_characters=longest), plan, pieces, part_bytes_of(files), Skips())
    return Engine(job, out, progress or _silent).run().info


class Engine:
    """One job on this machine."""

    def __init__(self, job: Job, out: Path, progress: Progress, workers: Workers | None = None) -> None:
        self._job, self._out, self._progress, self._workers = job, out, progress, workers or Here()
        self._kept = Kept(out.parent / f".{out.name}.unfinished", fingerprint(job))

    def run(self) -> Prepared:
        """Do all that is not done yet. What is kept goes if the text or the options are at fault."""
        out = self._out
        with disk_errors(out):
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise DataError(f"{out} exists and is not empty; choose another place or delete it")
            with self._kept.opened():
                try:
                    prepared = self._run()
                except DataError:
                    self._kept.remove()
                    raise
                (self._kept.folder / "corpus").rename(out)
                self._kept.remove()
        return prepared

    def _run(self) -> Prepared:
        job = self._job
        step = partial(self._kept.results, "survey", self._workers, job.survey)
        surveys = pooled(job, surveyed(job, step, self._progress, self._kept.folder / "surveyed"))
        skips = skipped(job, surveys)
        skips.check(read_bytes(surveys), job.plan.max_bad)
        decision = decide(surveys, job.plan.heldout_share, is_fixed=job.plan.is_pooled)
        decided = list(fates(surveys, decision))
        vocabulary = self._vocabulary(surveys, decided, decision)
        if job.plan.is_pooled:
            surveys = self._in_domains(surveys, decision, vocabulary)
            decision = decide(surveys, job.plan.heldout_share, pooled=decision)
            decided = list(fates(surveys, decision))
        decided = settle(surveys, decided, decision, job.plan.cleaning, self._kept.folder / "signatures")
        check_domains(decision)
        skips.take(decision.skips)
        items = [(survey.part, each) for survey, each in zip(surveys, decided, strict=True)]
        parts = self._each("tokenizing", "tokens", partial(job.encode, vocabulary), items, surveys)
        names = [(domain.name, domain.is_task) for domain in decision.domains]
        info, lost = assemble(parts, names, vocabulary, job.plan, self._kept.folder)
        for name, task in lost.items():
            if task.examples:
                where = f"in {name}, which a longer --context-length than {job.plan.context_length} takes"
                skips.add(Reason.OVERLONG, where, task.size_bytes, task.examples)
        return Prepared(info, skips, {domain.name: domain.by for domain in decision.domains}, lost)

    def _vocabulary(
        self, surveys: Sequence[PartSurvey], decided: Sequence[PartFates], decision: Decision
    ) -> Vocabulary:
        """Read the given tokenizer, or train one on an equal part of each domain, none of it held out."""
        plan = self._job.plan
        if (given := plan.given_vocabulary()) is not None:
            return given
        size = plan.vocab_size or DEFAULT_VOCABULARY
        items = list(zip(surveys, decided, strict=True))
        raw = self._kept.result("tokenizer", lambda: train_tokenizer(self._sample(items, decision), size).json)
        return trained_vocabulary(raw, size)

    def _sample(self, items: Sequence[tuple[PartSurvey, PartFates]], decision: Decision) -> Iterator[str]:
        job = self._job
        budget = job.plan.tokenizer_bytes / len(decision.domains)
        shares = [min(1.0, budget / domain.size_bytes) for domain in decision.domains]
        lowest = [min(2**64 - 1, round((1 - share) * 2**64)) for share in shares]
        expected = int(sum(min(budget, domain.size_bytes) for domain in decision.domains))
        done = 0
        for raw in self._workers.run(partial(job.sample, lowest), items):
            done += len(raw)
            self._progress("training the tokenizer", min(done, expected), expected)
            yield from json.loads(raw)

    def _in_domains(
        self, surveys: Sequence[PartSurvey], decision: Decision, vocabulary: Vocabulary
    ) -> list[PartSurvey]:
        """Return the surveys with the domains that are found, or known."""
        plan, [pool] = self._job.plan, decision.domains
        if plan.known is not None:
            names, clusters = tuple(plan.known), self._sorted(surveys, plan.known, vocabulary)
        else:
            assert plan.domains is not None
            search = Search(plan.domains, plan.seed, pool.size_bytes, pool.below << 48, plan.together)
            names = tuple(f"cluster.{cluster}" for cluster in range(plan.domains))
            clusters = self._found(surveys, search, vocabulary)
        return list(_with_clusters(surveys, names, clusters))

    def _found(self, surveys: Sequence[PartSurvey], search: Search, vocabulary: Vocabulary) -> NDArray[np.uint8]:
        job = self._job

        def sample(lowest: int) -> list[NDArray[np.int64]]:
            made = self._workers.run(partial(job.tokens, vocabulary, lowest), surveys)
            return [tokens for raw in made for tokens in passages_of(raw)]

        self._progress("finding domains", 0, search.size_bytes)
        mixture = fitted(sample, search, vocabulary)
        for attempt in range(search.domains):
            step = partial(job.assign, vocabulary, mixture)
            raw = self._each("finding domains", f"domains.{attempt}", step, surveys, surveys)
            found = [Assigned.from_bytes(each, search.domains) for each in raw]
            counts, tokens = sum(each.counts for each in found), sum(each.tokens for each in found)
            if search.together is None:
                check_alone(np.asarray(counts))
                break
            is_small = too_small(np.asarray(counts), np.asarray(tokens), WINDOWS * job.plan.context_length)
            if not is_small.any():
                break
            mixture = mixture.without(is_small | (np.asarray(counts) == 0))
        return np.concatenate([each.clusters for each in found])

    def _sorted(
        self, surveys: Sequence[PartSurvey], known: Mapping[str, NDArray[np.uint64]], vocabulary: Vocabulary
    ) -> NDArray[np.uint8]:
        unigrams = log_unigrams_of(np.stack([counts.astype(np.int64) for counts in known.values()]))
        step = partial(self._job.score, vocabulary, unigrams)
        raw = self._each("sorting into domains", "scores", step, surveys, surveys)
        rows = np.concatenate([np.frombuffer(each, dtype="<f8").reshape(-1, 1 + len(known)) for each in raw])
        return sort_into(known, rows[:, 1:], rows[:, 0].astype(np.int64), self._job.plan.context_length)

    def _each(
        self, stage: str, name: str, step: Callable[[Item], bytes], items: Sequence[Item], surveys: Sequence[PartSurvey]
    ) -> Iterator[bytes]:
        """Yield what a step makes of each part, an item and a survey each, and tell how far it is."""
        total, done = read_bytes(surveys), 0
        for survey, raw in zip(surveys, self._kept.results(name, self._workers, step, items), strict=True):
            yield raw
            done += int(survey.sizes.sum())
            self._progress(stage, done, total)


def _with_clusters(
    surveys: Sequence[PartSurvey], names: tuple[str, ...], clusters: NDArray[np.uint8]
) -> Iterator[PartSurvey]:
    """Yield the surveys with the clusters of their pieces; those that a filter left out have none."""
    done = 0
    for survey in surveys:
        own, is_kept = np.zeros(len(survey.sizes), dtype=np.uint8), survey.verdicts == 0
        own[is_kept] = clusters[done : done + int(is_kept.sum())]
        done += int(is_kept.sum())
        yield with_domains(survey, names, own)


def fingerprint(job: Job) -> str:
    """Return what tells this text and these options from others, so that nothing goes on with what was of those."""
    plan = asdict(replace(job.plan, known=None, together=None, tokenizer=None))
    known = {name: hashlib.sha256(counts.tobytes()).hexdigest() for name, counts in (job.plan.known or {}).items()}
    files = [(*asdict(file).values(), _changed_at(file)) for file in job.files]
    tokenizer = list(_contents(job.plan.tokenizer)) if job.plan.tokenizer else []
    facts = [VERSION, plan, job.plan.together is None, known, files, asdict(job.how), tokenizer]
    return hashlib.sha256(json.dumps(facts, default=str, sort_keys=True).encode()).hexdigest()


def _contents(tokenizer: Path) -> Iterator[str]:
    """Yield hashes of all that a tokenizer is read from, wherever it lies: --like has it in another place each time."""
    folder = tokenizer if tokenizer.is_dir() else tokenizer.parent
    file = tokenizer / TOKENIZER_FILE if tokenizer.is_dir() else tokenizer
    for path in (file, folder / MODEL_CONFIG_FILE, folder / TOKENIZER_CONFIG_FILE):
        with suppress(OSError):
            yield path.name + hashlib.sha256(path.read_bytes()).hexdigest()


def _changed_at(file: SourceFile) -> int:
    """Return when a file was last written, in nanoseconds; 0 where nobody says."""
    try:
        return Path(file.url).stat().st_mtime_ns
    except (OSError, ValueError):
        return 0


def _silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""
