"""The corpus that a run is founded on when nobody brought data: text that every machine with Shoal has.

Three unlike domains: Python code of the standard library without its docstrings, those docstrings with Python's
help topics, and the C++ headers that torch brings. Which files are taken is decided by the hash of their names.
"""

import hashlib
import importlib.util
import inspect
import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from configs.errors import DataError
from peer.corpus.data import CORPUS_FILE, Corpus, open_corpus
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.sources.documents import Progress
from peer.sources.text import split_lines

MAX_BYTES = 2_000_000  # bytes of text of each domain, at most
MAX_FILE_BYTES = 60_000  # bytes of a source, at most; larger ones are mostly generated tables
TOKENIZER_CHARACTERS = 1_500_000
SHARD_TOKENS = 1 << 17  # tokens of a shard: few, so that a few peers can lease different ones
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "encodings"}

_DOCSTRING = re.compile(r'^[ \t]*[rR]?"""(.*?)"""[ \t]*\n', re.DOTALL | re.MULTILINE)


def built_in_corpus(cache: Path, vocab_size: int, context_length: int, progress: Progress | None = None) -> Corpus:
    """Return the built-in corpus, prepared in the folder `cache` the first time (some seconds), opened after that.

    Raises DataError: a damaged corpus there, or a Python without its sources; StateError: the disk is full.
    """
    out = cache / f"built-in-{vocab_size}-{context_length}"
    if not (out / CORPUS_FILE).exists():
        plan = Plan(
            vocab_size,
            tokenizer_bytes=TOKENIZER_CHARACTERS,
            context_length=context_length,
            shard_tokens=SHARD_TOKENS,
        )
        prepare_texts(built_in_texts(), out, plan, progress)
    return open_corpus(out)


def built_in_texts(max_bytes: int = MAX_BYTES) -> dict[str, list[str]]:
    """Return the domains, each with about `max_bytes` of documents; the same ones each time on one machine.

    Raises DataError: this Python or torch came without the files.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    domains = {
        "python": _documents(map(_without_docstrings, _read(library, ".py")), max_bytes),
        "docs": _documents(chain(_help_topics(), map(_docstrings, _read(library, ".py"))), max_bytes),
        "cpp": _documents(_read(_torch_headers() / "torch" / "csrc", ".h"), max_bytes),
    }
    for name, texts in domains.items():
        if sum(map(len, texts)) < max_bytes // 8:
            raise DataError(
                f"this machine lacks the files of the built-in corpus (domain '{name}'); "
                f"prepare text of your own with `shoal prepare` and name it with --data"
            )
    return domains


def _read(folder: Path, suffix: str) -> Iterator[str]:
    """Yield the files below `folder` with that suffix, in the order of their names' hashes: a fair mixture."""
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]  # not entered: site-packages is large
        for path in (Path(parent, name) for name in names if name.endswith(suffix)):
            files.append((hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest(), path))
    for _, path in sorted(files):
        if path.stat().st_size <= MAX_FILE_BYTES:
            yield path.read_text(encoding="utf-8", errors="ignore")


def _documents(texts: Iterable[str], max_bytes: int) -> list[str]:
    """Split texts into documents, until there are `max_bytes` of them (counted in characters)."""
    documents = []
    for text in texts:
        for document in split_lines(text):
            documents.append(document)
            max_bytes -= len(document)
        if max_bytes <= 0:
            break
    return documents


def _without_docstrings(code: str) -> str:
    return _DOCSTRING.sub("", code)


def _docstrings(code: str) -> str:
    return "\n\n".join(inspect.cleandoc(text) for text in _DOCSTRING.findall(code))


def _help_topics() -> Iterator[str]:
    """Yield the pages of Python's `help()`: the language reference as text."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield topics[name]


def _torch_headers() -> Path:
    found = importlib.util.find_spec("torch")
    return Path(found.origin).parent / "include" if found and found.origin else Path("missing")
