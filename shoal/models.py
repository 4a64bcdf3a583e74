"""Text to a corpus, blocks to a model, a model to text and scores: what the commands of these names do, as functions.

Each returns what it has made, and may be called where an event loop runs, as in a notebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack

if TYPE_CHECKING:
    from configs.corpus import ChatFormat
    from peer.corpus.data import Corpus
    from peer.fused.evaluate import Evaluation
    from peer.fused.generate import Segment
    from peer.fused.routed import RoutedModel
    from peer.fused.scores import TaskScores
    from peer.member.invited import Home
    from peer.prepare.job import Job
    from peer.prepare.plan import Plan
    from peer.sources.documents import DocumentUnit, End, Reading
    from peer.sources.listing import Listing

Progress = Callable[[str, int, int], None]  # (what is being done, how much is done, of how much)
T = TypeVar("T")


class Preparing(TypedDict, total=False):
    """How `prepare` makes a corpus, as the options of the command say it; files may be URLs."""

    # Tokens and domains: the fields of `peer.prepare.plan.Plan`, where each is explained.
    vocab_size: int | None
    tokenizer: str | Path | None
    context_length: int
    prompt: str  # --prompt-format
    chat: ChatFormat | None  # --chat-format
    keep: End
    heldout_share: float
    max_bad: float
    shard_tokens: int
    is_private: bool
    counts_noise: float | None
    domains: int | None
    # Files: of `peer.sources.listing.Listing`.
    extensions: str | Iterable[str]  # of what is read as code, such as ".py"
    heldout: str | Path | Iterable[str | Path]
    document: DocumentUnit | None
    encoding: str | None
    # Records: of `peer.sources.documents.Reading`.
    text_column: str | None
    domain_column: str | None
    split_column: str | None
    input_column: str | None
    target_column: str | None
    prompt_columns: str | None  # a task's input, "{context} {question}": --prompt
    # What is left out: of `peer.prepare.cleaning.Cleaning`.
    languages: str | Iterable[str]
    min_characters: int | None
    max_characters: int | None
    decontaminate: str | Path | Iterable[str | Path]
    is_deduplicated: bool
    near: float | None  # --near-duplicates


class Fusing(TypedDict, total=False):
    """How `fuse` makes a model."""

    format: Literal["routed", "mixtral", "llama", "peft", "gguf"]  # "routed" unless said otherwise
    sub_model: str | None  # take only this one
    base: Path | None  # a copy of the pretrained model that the run began with: it need not be downloaded
    best: bool  # the states whose held-out loss was best, which only state directories have
    tune_on: tuple[Corpus, int] | None  # tokens of a corpus that a fused Mixtral is trained on
    state_dir: Path | None  # has the invitation to a closed run


class Drawing(TypedDict, total=False):
    """How `generate` draws tokens; the fields of `peer.fused.sampling.Sampling`, where each is explained."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seed: int
    no_repeat_ngram: int


@dataclass(frozen=True)
class Fused:
    """A model that `fuse` has written."""

    path: Path
    format: str
    run_id: str
    run_name: str
    tokens: Mapping[str, int]  # block → tokens that the swarm has put into it


@dataclass(frozen=True)
class Model:
    """A model in memory: what a swarm has trained, or any causal LM of Transformers."""

    path: Path
    routed: RoutedModel  # its sub-models, and the router between them

    @property
    def sub_models(self) -> tuple[str, ...]:
        """The names of its sub-models."""
        return tuple(info.name for info in self.routed.sub_models)


@dataclass(frozen=True)
class Answer:
    """What a model has written."""

    text: str
    has_ended: bool  # by itself; else it was cut at `max_tokens`
    segments: Sequence[Segment]  # the prompt and the text, cut where another sub-model speaks


@dataclass(frozen=True)
class Scores:
    """How well a model does on the held-out part of a corpus."""

    foretelling: Evaluation
    answering: Mapping[str, TaskScores] = field(default_factory=dict)  # task → scores, where they were asked for

    @property
    def perplexities(self) -> dict[str, float]:
        """The perplexity in each domain."""
        return self.foretelling.perplexities


def prepare(
    sources: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    like: str | Path | None = None,
    progress: Progress | None = None,
    **how: Unpack[Preparing],
) -> Corpus:
    """Turn text, tasks and tables, or folders or URLs of them, into a corpus at `out`, and open it.

    `out` is a folder, or a URL of one; what is small of a corpus there is copied to the user's cache. `like` is a run's
    address or another corpus, whose tokenizer and domains are taken. Raises DataError, StateError, and NetworkError if
    nobody answers there.
    """
    from configs.errors import UsageError
    from peer.prepare.engine import job_of

    if like is not None and any(how.get(name) is not None for name in ("vocab_size", "tokenizer", "domains")):
        raise UsageError("like= takes tokens and domains from there: leave out vocab_size, tokenizer and domains")
    plan, reading, listing = _options(how)
    with TemporaryDirectory() as folder:
        if like is not None:
            from peer.visit.likeness import alike

            length, begun = how.get("context_length"), plan
            plan = _aside(lambda: alike(str(like), begun, Path(folder), length, _home(None)))
        job = job_of([str(each) for each in _listed(sources)], plan, reading, listing)
        return _prepared(job, str(out), progress or (lambda stage, done, total: None))


def fuse(sources: str | Path | Iterable[str | Path], out: str | Path, **how: Unpack[Fusing]) -> Fused:
    """Build one model from the blocks of a run, and write it to `out`.

    `sources` are the address of a live peer, or state directories, whose peers need not be running. Raises UsageError,
    NetworkError, DataError, StateError.
    """
    from peer.commands.beginning import check_fuse

    places, path = [str(each) for each in _listed(sources)], Path(out)
    check_fuse(places, path)
    from peer.visit.gather import Sources, fuse_from

    form = how.get("format", "routed")
    home = _home(how.get("state_dir"))
    gathered = Sources(places, how.get("base"), how.get("best", False), home)
    parts = _aside(lambda: fuse_from(gathered, path, form, how.get("sub_model"), how.get("tune_on")))
    tokens = {block: sum(ages.values()) for block, ages in parts.ages.items()}
    return Fused(path, form, parts.spec.run_id, parts.spec.name, tokens)


def load_model(path: str | Path | Fused, device: str = "cpu") -> Model:
    """Read what `fuse` wrote, or a Hugging Face directory; runs no code from it. Raises DataError."""
    from peer.commands.options import check_model

    folder = path.path if isinstance(path, Fused) else Path(path)
    check_model(folder)
    from peer.fused.routed import RoutedModel

    return Model(folder, RoutedModel.load(folder, device))


def generate(
    model: Model,
    prompt: str,
    *,
    task: bool | None = None,
    heard: Callable[[str], object] = lambda piece: None,
    **how: Unpack[Drawing],
) -> Answer:
    """Let a model go on from a prompt, or answer it if it was trained on a task (or as `task` says).

    `heard` is called with each piece as soon as it is there. Raises DataError, ConfigError.
    """
    from pydantic import ValidationError

    from configs.errors import ConfigError
    from configs.load import describe
    from peer.fused.generate import Generation, task_prompt
    from peer.fused.sampling import Sampling

    try:
        sampling = Sampling(**how)
    except ValidationError as error:
        raise ConfigError(describe(error, "generate")) from None
    is_task = model.routed.task is not None if task is None else task
    read = task_prompt(model.routed, prompt) if is_task else prompt
    generation, pieces = Generation(model.routed, read, sampling), []
    for piece in generation:
        pieces.append(piece)
        heard(piece)
    return Answer("".join(pieces), generation.has_ended, generation.segments())


def evaluate(
    model: Model,
    corpus: Corpus | str | Path,
    *,
    max_tokens: int | None = None,
    metrics: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Score a model on the held-out part of each domain of a corpus; of tasks the targets count.

    `max_tokens` are read of each domain, `limit` examples of each task. With `metrics` the model answers the tasks, and
    the answers are scored. Raises DataError: another tokenizer or prompt format, no task to answer.
    """
    from peer.corpus.data import Corpus
    from peer.corpus.remote import opened_corpus
    from peer.fused.on_corpus import answer_tasks, check_has_tasks, check_tokenizer, foretell

    with nullcontext(corpus) if isinstance(corpus, Corpus) else opened_corpus(str(corpus)) as opened:
        check_tokenizer(model.path, opened)
        if metrics:
            check_has_tasks(opened)
        foretold = foretell(model.routed, opened, max_tokens, limit, progress)
        return Scores(foretold, answer_tasks(model.routed, opened, limit, progress) if metrics else {})


def _listed(sources: str | Path | Iterable[str | Path]) -> list[str | Path]:
    return [sources] if isinstance(sources, str | Path) else list(sources)


def _prepared(job: Job, out: str, progress: Progress) -> Corpus:
    from configs.outlets import is_url
    from peer.corpus.data import open_corpus
    from peer.prepare.delivery import Delivery, cache_folder
    from peer.prepare.engine import Engine

    if not is_url(out):
        Engine(job, Path(out), progress).run()
        return open_corpus(Path(out))
    from configs.limits import GB
    from configs.machine import PeerConfig
    from peer.corpus.remote import open_remote

    delivery = Delivery(out)
    delivery.prepare(job, progress)
    delivery.forget()
    most_gb = PeerConfig.model_fields["cache_gb"].default
    return open_remote(out, cache_folder() / "corpora", round(most_gb * GB))


def _options(how: Preparing) -> tuple[Plan, Reading, Listing]:
    """Return what the options say, by whom they are for. Raises UsageError: there is no such option."""
    from configs.errors import UsageError
    from peer.prepare.cleaning import Cleaning
    from peer.prepare.plan import Plan
    from peer.sources.documents import Reading
    from peer.sources.listing import Listing

    given: dict[str, Any] = dict(how)
    if unknown := given.keys() - Preparing.__annotations__.keys():
        raise UsageError(f"prepare has no option {min(unknown)}; it has {', '.join(Preparing.__annotations__)}")
    for name in ("extensions", "heldout", "languages", "decontaminate"):
        if name in given:
            given[name] = tuple(str(each) for each in _listed(given[name]))
    if given.get("tokenizer") is not None:
        given["tokenizer"] = Path(given["tokenizer"])

    def of(kind: Any) -> dict[str, Any]:
        return {name: given.pop(name) for name in kind.__dataclass_fields__ if name in given and name != "prompt"}

    reading = Reading(prompt=given.pop("prompt_columns", None), **of(Reading))
    listing = Listing(unit=given.pop("document", None), **of(Listing))
    cleaning = Cleaning(**of(Cleaning))
    return Plan(cleaning=cleaning, **given), reading, listing


def _home(state_dir: Path | None) -> Home:
    from peer.commands.options import home_of

    return home_of(state_dir, None)


def _aside(work: Callable[[], T]) -> T:
    """Do in a thread what brings its own event loop: the caller's may be running."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
