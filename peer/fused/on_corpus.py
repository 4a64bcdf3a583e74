"""A model scored on the held-out part of a prepared corpus: how well it foretells it, and how well it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from configs.corpus import TaskFormat
from configs.errors import DataError
from peer.corpus import examples
from peer.corpus.data import TOKENIZER_FILE, Corpus

if TYPE_CHECKING:
    from peer.fused.evaluate import Evaluation
    from peer.fused.routed import RoutedModel
    from peer.fused.scores import TaskScores

Progress = Callable[[str, int, int], None]  # (what is being done, how much is done, of how much)


def foretell(
    model: RoutedModel,
    corpus: Corpus,
    max_tokens: int | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on the held-out tokens of each domain, of tasks on the targets of `limit` examples.

    Raises DataError, as `evaluate`; the corpus asks otherwise than the model was trained.
    """
    from peer.fused.evaluate import evaluate  # with Transformers, which takes seconds

    check_format(corpus.name, corpus.info.task_format, model.task)
    heldout = {domain.name: examples.heldout_tokens(corpus, domain, limit) for domain in corpus.info.domains}
    return evaluate(model, heldout, max_tokens=max_tokens, progress=progress)


def answer_tasks(
    model: RoutedModel, corpus: Corpus, limit: int | None = None, progress: Progress | None = None, note: str = ""
) -> dict[str, TaskScores]:
    """Let a model answer `limit` held-out examples of each task, and score the answers; `note` is told beside a name.

    Raises DataError: there is no task.
    """
    from peer.fused import scores  # rouge-score and sacrebleu take a second

    check_has_tasks(corpus)
    encoder, scored = examples.corpus_encoder(corpus), {}
    for domain in corpus.info.domains:
        if domain.task is not None:
            held = examples.heldout_examples(corpus, domain, limit)
            step = None if progress is None else _of(domain.name + note, progress)
            scored[domain.name] = scores.score_task(model, encoder, held, step)
    return scored


def check_has_tasks(corpus: Corpus) -> None:
    """Raise DataError if a corpus is of text only."""
    if corpus.info.task_format is None:
        raise DataError(
            f"{corpus.name} has no task to answer, only text; leave out --metrics, or prepare JSON lines with input "
            "and target"
        )


def check_format(data: str, form: TaskFormat | None, trained: TaskFormat | None) -> None:
    """Raise DataError if the examples of `data` would ask a model otherwise than it was trained."""
    if form is None or trained is None or (form.prompt, form.chat) == (trained.prompt, trained.chat):
        return
    raise DataError(
        f"{data} was prepared with {form.option}; prepare it again as the model was trained, with {trained.option}"
    )


def check_tokenizer(model: Path, corpus: Corpus) -> None:
    """Raise DataError if the tokens of a corpus would mean something else to the `model` in that folder."""
    tokenizer = model / TOKENIZER_FILE
    if tokenizer.is_file() and hashlib.sha256(tokenizer.read_bytes()).hexdigest() != corpus.info.tokenizer_sha256:
        raise DataError(
            f"{corpus.name} was prepared with another tokenizer than {model}'s; use --tokenizer {tokenizer} to prepare"
        )


def _of(domain: str, progress: Progress) -> Progress:
    return lambda stage, done, total: progress(f"{domain}: {stage}", done, total)
