"""What text is made of on its way into a corpus: files, documents, and the pieces in which long documents are read.

A document is a text, or an example of a task. It is read piece by piece, so that one of a gigabyte needs no more memory
than a million short ones. Where a reader stands is a *mark*: one that begins there gives the same pieces.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from peer.corpus.examples import Example

# Characters of a piece, at most: longer documents are cut at the last line end, or else the last space, in the second
# half of so many. Small corpora have smaller pieces, so that some of them can be held out.
PIECE_CHARACTERS, LEAST_PIECE_CHARACTERS = 1 << 15, 1 << 11
BATCH_CHARACTERS = 1 << 20  # characters that are encoded at once

Form = Literal["text", "code", "html", "json_lines", "json", "csv", "tsv", "parquet", "arrow"]
Compression = Literal["gzip", "zstd", "bz2", "xz"]
Split = Literal["train", "heldout"]
DocumentUnit = Literal["line", "paragraph", "file"]  # what is one document in a file of text
End = Literal["start", "end"]

T = TypeVar("T")
Content = str | Example
Progress = Callable[[str, int, int], None]  # stage, bytes done, bytes in all (0: not known yet)


class Piece(NamedTuple):
    """A part of a document of text, all of a short one, or an example."""

    content: Content
    mark: int  # a reader that begins here gives this piece first
    domain: str | None = None  # what a column says
    split: Split | None = None  # what a column says
    is_last: bool = True  # False: the document goes on with the next piece


@dataclass(frozen=True)
class SourceFile:
    """A file to read, and all that its name, its folder and its first bytes say."""

    url: str  # a path, or what fsspec opens: s3://…, hdfs://…, zip://MEMBER::PATH
    size_bytes: int  # as it lies there, compressed or not
    form: Form
    domain: str
    compression: Compression | None = None
    split: Split | None = None  # of all that is in it
    encoding: str = "utf-8"  # of text, as Python names it
    unit: DocumentUnit = "paragraph"  # of text
    is_named: bool = False  # by itself, not found in a folder: what cannot be used is an error at once


@dataclass(frozen=True)
class Reading:
    """What of a record is read, and how."""

    text_column: str | None = None  # None: `text`, or whatever column holds the text; `a.b` is b in a
    domain_column: str | None = None  # None: files and folders are the domains
    split_column: str | None = None  # None: one called `split`, if all that it says is a split
    input_column: str | None = None  # of a task, with `target_column`
    target_column: str | None = None
    prompt: str | None = None  # of a task: its input, with {column} for what a record says; None: the input column
    piece_characters: int = PIECE_CHARACTERS


def text_of(content: Content) -> str:
    """Return what a tokenizer learns of a document."""
    return content if isinstance(content, str) else content.text


def hash_of(content: Content) -> int:
    """Return 64 bits that stand for a document: equal ones have the same, and its place among all is chance.

    Of an example the input decides: none that is trained on is held out with another target.
    """
    text = content if isinstance(content, str) else "".join([*(said for _, said in content.before), content.input])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def cut_text(text: str, longest: int) -> Iterator[str]:
    """Yield passages of at most `longest` characters: cut after the last line end of their second half, or last space.

    Together they are the text; blank ones are left out. A space begins the next passage, as tokenizers have it.
    """
    start = 0
    while start < len(text):
        middle, stop = start + longest // 2, start + longest
        if stop < len(text):
            stop = text.rfind("\n", middle, stop) + 1 or max(0, text.rfind(" ", middle, stop)) or stop
        passage = text[start:stop]
        if passage.strip():
            yield passage
        start = stop


def batches(items: Iterable[T], characters_of: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield items in lists of about BATCH_CHARACTERS."""
    batch: list[T] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += characters_of(item)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def domain_name(text: str) -> str:
    """Turn any text into a domain's name: word characters, dots and hyphens, at most 64."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:64] or "unnamed"
