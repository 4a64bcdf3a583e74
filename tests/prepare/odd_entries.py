"""What an odd input is: what lies in a folder, the command that takes it, and what must come of it.

Texts are made of sentences that occur nowhere else, so that each can be found again. What is written is written by
other libraries than those that read it, where there are two.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Write = Callable[[Path], None]
Texts = Mapping[str, Sequence[str]]  # domain → documents
Skipped = Mapping[str, tuple[int, int | str]]  # reason → how many, and bytes, or the files whose size that is

SENTENCES = (
    "boat {n} of {tag} came home late with {m} baskets of herring.",
    "the {tag} harbour counted {m} masts on day {n} of that year.",
    "{m} gulls of {tag} followed plough {n} over the wet fields.",
    "letter {n} from {tag} said that {m} cows were sold at the fair.",
    "nobody in {tag} could tell why bell {n} had rung {m} times.",
)


@dataclass(frozen=True)
class Remedy:
    """What a message says to do."""

    words: str  # in which the message says it
    options: tuple[str, ...] = ()  # of the command, which is given again; a number among them is the user's
    is_instead: bool = False  # the options are given instead of those before
    mend: Write | None = None  # what is done to the files, in the folder of the entry
    sources: tuple[str, ...] | None = None  # named instead


@dataclass(frozen=True)
class Odd:
    """One odd input."""

    name: str
    write: Write  # fills the folder of the entry, which is the current one
    texts: Texts  # that must be in the corpus, trained on or held out
    sources: tuple[str, ...] = ("in",)
    options: tuple[str, ...] = ()
    heldout: Texts | None = None  # of the domains whose splits say it; of others the share that is asked for
    skipped: Skipped = field(default_factory=dict)
    refused: str = ""  # what the command says before the remedy is followed; empty: it takes this as it is
    remedy: Remedy | None = None
    share: float = 0.05
    clusters: int = 0  # domains that are found in the text; which has what does not matter
    is_whole: bool = True  # documents stay whole; False: what counts is that all words are there
    context: int = 16  # tokens
    needs_user: bool = False  # to be no superuser, to whom everything is open
    most_bytes: int | None = None  # of memory, in a process of its own


def sentences(tag: str, count: int, start: int = 0) -> list[str]:
    """Return sentences, each of them a short text."""
    return [
        SENTENCES[n % len(SENTENCES)].format(n=n, m=n * 7919 % 997, tag=tag).capitalize()
        for n in range(start, start + count)
    ]


def passages(tag: str, count: int = 30, characters: int = 1050, start: int = 0) -> list[str]:
    """Return texts of one line that are long enough to be documents of their own in a file of paragraphs."""
    each = characters // 50 + 1
    return [" ".join(sentences(tag, each, (start + at) * each)) for at in range(count)]


def asked(question: str, answer: str) -> str:
    """Return an example as a model reads it, in the usual format of tasks."""
    return f"{question}\n\n###\n{answer}"


def chatted(*turns: str) -> str:
    """Return a chat as a model reads it, in the format that needs no tokens of its own; the user begins."""
    roles = ("User", "Assistant")
    return "\n".join(f"{roles[at % 2]}:\n{turn}" for at, turn in enumerate(turns))


def size(texts: Iterable[str]) -> int:
    """Return the bytes of texts."""
    return sum(len(text.strip().encode()) for text in texts)


def lines_of(texts: Iterable[str], column: str = "text", **more: object) -> str:
    """Return texts as JSON lines."""
    return "".join(json.dumps({column: text, **more}, ensure_ascii=False) + "\n" for text in texts)


def records(rows: Iterable[object]) -> str:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def paragraphs(texts: Iterable[str]) -> str:
    """Return texts with blank lines between them."""
    return "\n\n".join(texts) + "\n"


def put(path: Path, content: str | bytes) -> Path:
    """Write a file, and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def filled(files: Mapping[str, str | bytes]) -> Write:
    """Return what writes these files."""

    def write(place: Path) -> None:
        for name, content in files.items():
            put(place / name, content)

    return write


def also(*writes: Write) -> Write:
    """Return what does several things one after the other."""

    def write(place: Path) -> None:
        for each in writes:
            each(place)

    return write


def removed(*names: str) -> Write:
    """Return what removes files."""

    def mend(place: Path) -> None:
        for name in names:
            (place / name).unlink()

    return mend


def renamed(old: str, new: str) -> Write:
    """Return what renames a file or folder."""

    def mend(place: Path) -> None:
        (place / old).rename(place / new)

    return mend
