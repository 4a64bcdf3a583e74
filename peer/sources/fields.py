"""What of a record is learnt: its text, an example of a task, or a chat. Pure; reading records is `records.py`'s.

The first record of a file that can be used says of which kind all are. Whatever is wrong with one is a `Refusal`, which
names the option that helps.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from peer.corpus.examples import Example
from peer.sources.documents import Content, Reading, Split, domain_name
from peer.sources.skips import Reason
from peer.sources.tasks import alpaca, chat, example, pair, squad
from peer.sources.values import (
    Record,
    Refusal,
    RefusedError,
    checked,
    filled,
    has_column,
    listed,
    shown,
    text_of_value,
    type_name,
    value_in,
)

TEXT = "text"
# What else the column of a text is called; one of them must be there alone.
TEXT_NAMES = (
    "content",
    "contents",
    "body",
    "document",
    "article",
    "story",
    "code",
    "passage",
    "sentence",
    "raw_content",
)
# Columns of strings that say something about a text and are none.
ABOUT = (
    "id",
    "_id",
    "url",
    "uri",
    "path",
    "file",
    "filename",
    "date",
    "timestamp",
    "hash",
    "lang",
    "language",
    "version",
)
# Input and target of tasks that are known by the names of their columns.
PAIRS = (
    ("input", "target"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("question", "answer"),
    ("article", "highlights"),
    ("document", "summary"),
    ("dialogue", "summary"),
)
TARGETS = ("target", "output", "completion", "response", "answer", "summary", "highlights")
CHATS = ("messages", "conversations")
SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(
        ("valid", "validation", "val", "dev", "test", "testing", "eval", "heldout", "held-out", "held_out"), "heldout"
    ),
}
_NUMBER = re.compile(r"\s*[-+]?[\d.,]+(?:[eE][-+]?\d+)?\s*")  # tables of text have numbers as texts
_COLUMN = re.compile(r"\{([^{}]+)\}")  # in a prompt


class Found(NamedTuple):
    """What a record holds."""

    content: Content
    domain: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Kind:
    """Of which kind the records of a file are, and which of their columns are read."""

    content_of: Callable[[Record], Content]  # raises RefusedError
    columns: tuple[str, ...]  # that it needs, `a.b` for b in a
    text_column: str | None = None  # of texts; None: examples
    domain_column: str | None = None
    split_column: str | None = None

    def read(self, record: object) -> Found | Refusal:
        """Return what a record holds, or why it cannot be used."""
        try:
            return self._found(record)
        except RefusedError as refused:
            return refused.refusal

    def _found(self, record: object) -> Found:
        if isinstance(record, str) and self.text_column is not None:
            if not record.strip():
                raise RefusedError(Reason.BLANK, "is empty", 0)
            return Found(checked(record, "the text"), *self._labels({}))
        if not isinstance(record, Mapping):
            raise RefusedError(Reason.TYPE, f"holds {type_name(record)} where a record with columns should be")
        content = self.content_of(record)
        if isinstance(content, str) and not content.strip():
            raise RefusedError(Reason.BLANK, f"'{self.text_column}' is empty", 0)
        try:
            return Found(content, *self._labels(record))
        except RefusedError as refused:
            text = content if isinstance(content, str) else content.text
            reason, words, _ = refused.refusal
            raise RefusedError(reason, words, len(text.strip().encode())) from None

    def _labels(self, record: Record) -> tuple[str | None, Split | None]:
        domain: str | None = None
        if self.domain_column is not None:
            value = value_in(record, self.domain_column, "--domain-column")
            if value is None or value == "":
                words = f"'{self.domain_column}' is empty; fill it or name another with --domain-column"
                raise RefusedError(Reason.COLUMN, words)
            domain = domain_name(str(value))
        if self.split_column is None:
            return domain, None
        value = value_in(record, self.split_column, "--split-column")
        if (split := SPLITS.get(str(value).strip().lower())) is None:
            words = (
                f"'{self.split_column}' says {value!r}, neither train nor held out; name another with --split-column"
            )
            raise RefusedError(Reason.COLUMN, words)
        return domain, split


def kind_of(record: object, how: Reading) -> Kind | Refusal:
    """Return the kind of a file whose first record this is."""
    if isinstance(record, str):
        return _text_kind(how.text_column or TEXT, {}, how)
    if not isinstance(record, Mapping):
        return Refusal(Reason.TYPE, f'holds {type_name(record)}, no record; write {{"text": "…"}} on each line')
    try:
        if kind := known_kind(record, how):
            return kind
    except RefusedError as refused:
        return refused.refusal
    if isinstance(both := record.get("translation"), Mapping) and len(both) > 1:
        source, target = list(both)[:2]
        words = (
            f"'translation' has {', '.join(both)}, and which is the input is not said; say, for example, "
            f"--input-column translation.{source} --target-column translation.{target}"
        )
        return Refusal(Reason.COLUMN, words)
    if half := next((name for name in ("input", "target") if name in record), None):
        other = "target" if half == "input" else "input"
        words = f"has '{half}' and no '{other}'; add it, or name the columns with --input-column and --target-column"
        return Refusal(Reason.INCOMPLETE, f"{words}; text is named with --text-column")
    labels = {*ABOUT, how.domain_column, how.split_column or "split"}
    texts = [
        name
        for name, value in record.items()
        if isinstance(value, str) and name not in labels and not _NUMBER.fullmatch(value)
    ]
    if len(texts) == 1:
        return _text_kind(texts[0], record, how)
    if len(texts) > 1:
        words = f"which column is the text is not clear; name it with --text-column, one of: {listed(texts)}"
    else:
        words = f"no column holds text; the columns are: {listed(record)}; name one with --text-column"
    return Refusal(Reason.COLUMN, words)


def known_kind(record: Record, how: Reading) -> Kind | None:
    """Return the kind that options or the names of the columns say; None if they say none. Raises RefusedError."""
    if how.prompt is not None or how.input_column is not None or how.target_column is not None:
        return _said_task(record, how)
    text = how.text_column
    if text is not None or TEXT in record:
        return _text_kind(text or TEXT, record, how)
    if {"instruction", "output"} <= record.keys():
        return _task_kind(alpaca, ("instruction", "input", "output"), record, how)
    if {"context", "question", "answers"} <= record.keys():
        return _task_kind(squad, ("context", "question", "answers"), record, how)
    if column := next((name for name in CHATS if name in record), None):
        return _task_kind(lambda each: chat(each, column), (column,), record, how)
    for source, target in PAIRS:
        if source in record and target in record:
            return _pair_kind(source, target, record, how)
    names = [name for name in TEXT_NAMES if isinstance(record.get(name, 0), str | None)]
    return _text_kind(names[0], record, how) if len(names) == 1 else None


def is_record(value: object, how: Reading) -> bool:
    """Return whether this is by its names or by what options say a record, and no wrapping around many."""
    if not isinstance(value, Mapping):
        return False
    named = [each for each in (how.text_column, how.input_column, how.target_column) if each is not None]
    if named := [*named, *_COLUMN.findall(how.prompt or "")]:
        return any(has_column(value, column) for column in named)
    try:
        return known_kind(value, how) is not None
    except RefusedError:
        return True


def _text_kind(column: str, record: Record, how: Reading) -> Kind:
    def text(each: Record) -> str:
        return text_of_value(value_in(each, column, "--text-column"), column)

    return Kind(text, _needed((column,), how, record), column, how.domain_column, _split_column(record, how))


def _task_kind(content_of: Callable[[Record], Example], columns: tuple[str, ...], record: Record, how: Reading) -> Kind:
    return Kind(content_of, _needed(columns, how, record), None, how.domain_column, _split_column(record, how))


def _needed(columns: tuple[str, ...], how: Reading, record: Record) -> tuple[str, ...]:
    labels = (how.domain_column, _split_column(record, how))
    return tuple(dict.fromkeys([*columns, *(label for label in labels if label is not None)]))


def _split_column(record: Record, how: Reading) -> str | None:
    """Return the column that says splits: the one that was named, or one called so whose value is a split."""
    if how.split_column is not None:
        return how.split_column
    return "split" if str(record.get("split")).strip().lower() in SPLITS else None


def _said_task(record: Record, how: Reading) -> Kind:
    target = how.target_column or next((name for name in TARGETS if name in record), None)
    if target is None:
        words = f"the column of the target is not said; the columns are: {listed(record)}; name it with --target-column"
        raise RefusedError(Reason.COLUMN, words)
    if how.prompt is None:
        return _pair_kind(how.input_column or "input", target, record, how)
    prompt, named = how.prompt, tuple(_COLUMN.findall(how.prompt))
    if not named:
        raise RefusedError(
            Reason.COLUMN, "the prompt names no column; write one in braces, as in --prompt '{question}'"
        )

    def content(each: Record) -> Example:
        source = _COLUMN.sub(lambda found: shown(value_in(each, found[1], "--prompt"), found[1]), prompt)
        return example(source, filled(each, target, "--target-column"))

    return _task_kind(content, (*named, target), record, how)


def _pair_kind(source: str, target: str, record: Record, how: Reading) -> Kind:
    columns = (source, target, "targets", "options") if source == "input" else (source, target)
    return _task_kind(lambda each: pair(each, source, target), columns, record, how)
