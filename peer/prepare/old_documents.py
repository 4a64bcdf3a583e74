"""Finds the files and folders that a user names, and reads documents from text, JSON lines and Parquet files.

A document is a text or, in JSON lines whose first record has `input` and `target`, an example of a task. Documents are
yielded one after the other; no file is held in memory as a whole. Tokens are `prepare.py`'s.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import DataError
from peer.corpus.chats import check_turns
from peer.corpus.examples import Example

TEXT = {".txt", ".text", ".md", ".rst"}
JSON_LINES = {".jsonl", ".ndjson"}
PARQUET = {".parquet"}
KNOWN = TEXT | JSON_LINES | PARQUET
MIN_CHARACTERS = 1000  # characters of a document in a text file; shorter paragraphs are joined with those that follow
PARQUET_ROWS = 1024  # rows that are read at once
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
EXAMPLE_KEYS = {"input", "target"}
CHAT_KEY = "messages"  # of a chat, as OpenAI's API has it: a list of {"role": …, "content": …}

BATCH_CHARACTERS = 1 << 20  # characters that are encoded at once

Document = str | Example
Documents = Callable[[], Iterator[tuple[str, Document]]]  # yields (domain, document) from the start, at each call
Progress = Callable[[str, int, int], None]  # stage, characters done, characters in all (0: not known yet)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """Which columns of JSON lines and Parquet matter."""

    text: str = "text"
    domain: str | None = None  # None: files and folders are the domains


def find_files(sources: Sequence[Path], may_share_names: bool = False) -> list[tuple[str, Path]]:
    """Return the files to read, each with its domain, in a fixed order.

    One directory: each of its sub-folders and files is a domain. Otherwise each source is one, named like the file
    or folder, or like the folder above where names are the same (`a/train.txt b/train.txt`).

    Raises DataError: no such path, a file whose extension says nothing, a folder without usable files, equal names
    (unless they may be: then all is one domain).
    """
    if not sources:
        raise DataError("no text was given; name files or folders, such as: shoal prepare texts/ --out corpus")
    for source in sources:
        if not source.exists():
            raise DataError(f"no such file or folder: {source}; check the path")
    roots = list(sources)
    if len(roots) == 1 and roots[0].is_dir():
        roots = [path for path in sorted(roots[0].iterdir()) if not path.name.startswith(".") and _files(path)]
        if not roots:
            raise DataError(f"{sources[0]} holds no text; it needs files that end in {', '.join(sorted(KNOWN))}")
    names = _names(roots)
    if not may_share_names:
        _check_names_differ(names, roots)
    found = []
    for name, root in zip(names, roots, strict=True):
        files = _files(root)
        if not files and root.is_dir():
            raise DataError(f"{root} holds no text; it needs files that end in {', '.join(sorted(KNOWN))}")
        if not files:
            raise DataError(f"{root}: cannot tell what it holds; its name must end in {', '.join(sorted(KNOWN))}")
        found += [(name, file) for file in files]
    return found


def read_documents(path: Path, columns: Columns) -> Iterator[tuple[str | None, Document]]:
    """Yield each document that is not blank, with its domain if a column names it.

    Raises DataError, which names the line or byte: unreadable, not UTF-8, broken, a missing column, no documents,
    text and examples in one file, an example that lacks something.
    """
    count = 0
    rows: Iterator[tuple[str | None, Document]]
    try:
        if path.suffix.lower() in TEXT:
            if columns.domain is not None:
                raise DataError(f"{path} has no column '{columns.domain}'; use JSON lines or Parquet")
            rows = ((None, text) for text in split_lines(_text_lines(path)))
        elif path.suffix.lower() in JSON_LINES:
            rows = _records(_json_lines(path), columns)
        else:
            rows = (_row(record, columns, where) for where, record in _parquet_rows(path, columns))
        for domain, document in rows:
            if isinstance(document, Example) or document.strip():
                count += 1
                yield domain, document
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; check the file and its permissions") from None
    if not count:
        raise DataError(f"{path} holds no text; fill it or leave it out")


def split_lines(lines: Iterable[str]) -> Iterator[str]:
    """Yield documents: paragraphs, which blank lines separate, joined until there are MIN_CHARACTERS.

    A last short one is yielded as it is.
    """
    document: list[str] = []
    characters = 0
    for line in lines:
        if line.strip():
            document.append(line)
            characters += len(line) + 1
        elif characters >= MIN_CHARACTERS:
            yield "\n".join(document)
            document, characters = [], 0
        elif document and document[-1]:
            document.append("")
    yield "\n".join(document).rstrip("\n")


def cut_text(text: str, longest: int) -> Iterator[str]:
    """Yield passages of at most `longest` characters, cut after the last line end of their second half, or last space.

    Together they are the text; blank ones are left out.
    """
    start = 0
    while start < len(text):
        middle, stop = start + longest // 2, start + longest
        if stop < len(text):
            stop = text.rfind("\n", middle, stop) + 1 or text.rfind(" ", middle, stop) + 1 or stop
        passage = text[start:stop]
        if passage.strip():
            yield passage
        start = stop


def text_of(document: Document) -> str:
    """Return what a tokenizer learns of a document."""
    return document if isinstance(document, str) else document.text


def position_of(document: Document) -> float:
    """Return where in [0, 1] a document falls, by its hash: the low end is held out, the high end trains tokenizers.

    Of an example the input decides: none that is trained on is held out with another target.
    """
    text = document if isinstance(document, str) else "".join([*(said for _, said in document.before), document.input])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def batches(documents: Iterator[tuple[str, Document]]) -> Iterator[list[tuple[str, Document]]]:
    """Yield documents in lists of about BATCH_CHARACTERS."""
    batch: list[tuple[str, Document]] = []
    characters = 0
    for domain, document in documents:
        batch.append((domain, document))
        characters += len(text_of(document))
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def domain_name(text: str) -> str:
    """Turn any text into a domain's name: word characters, dots and hyphens, at most 64."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:64] or "unnamed"


def _files(root: Path) -> list[Path]:
    """Return the readable files at and below `root`; those in a folder of another kind are passed over."""
    if root.is_file():
        return [root] if root.suffix.lower() in KNOWN else []
    inside = [path for path in sorted(root.rglob("*")) if path.is_file() and not _is_hidden(path.relative_to(root))]
    files = [path for path in inside if path.suffix.lower() in KNOWN]
    if len(files) < len(inside):
        log.warning("%s: %d files of another kind were passed over", root, len(inside) - len(files))
    return files


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _names(roots: Sequence[Path]) -> list[str]:
    resolved = [root.resolve() for root in roots]
    names = [domain_name(root.stem if root.is_file() else root.name) for root in resolved]
    if len(set(names)) < len(names):
        names = [domain_name(root.parent.name) if root.is_file() else domain_name(root.name) for root in resolved]
    return names


def _check_names_differ(names: Sequence[str], roots: Sequence[Path]) -> None:
    for name, root in zip(names, roots, strict=True):
        if names.count(name) > 1:
            raise DataError(f"{root}: another source would be the domain '{name}' as well; rename one of them")


def _text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without their ends."""
    offset = 0
    with path.open("rb") as file:
        for raw in file:
            line = raw.removeprefix(BYTE_ORDER_MARK) if offset == 0 else raw
            try:
                yield line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                at = offset + len(raw) - len(line) + error.start
                raise DataError(
                    f"{path} is not UTF-8 at byte {at}; convert it, for example: iconv -f LATIN1 -t UTF-8 {path}"
                ) from None
            offset += len(raw)


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(_text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: broken JSON ({error}); repair or remove the line") from None
        if not isinstance(record, dict):
            raise DataError(f'{path}, line {number}: not a JSON object; write {{"text": "…"}} on each line')
        yield f"{path}, line {number}", record


def _parquet_rows(path: Path, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            wanted = [name for name in (columns.text, columns.domain) if name in file.schema_arrow.names]
            if columns.text not in wanted:
                raise _missing(str(path), columns.text, file.schema_arrow.names)
            row = 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{path}, row {row}", record
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is no readable Parquet file, write it again: {str(error).splitlines()[0]}") from None


def _records(records: Iterator[tuple[str, dict[str, Any]]], columns: Columns) -> Iterator[tuple[str | None, Document]]:
    """Yield the documents of JSON lines, all of the kind that the first one is."""
    is_task: bool | None = None
    for where, record in records:
        is_example = (record.keys() >= EXAMPLE_KEYS or CHAT_KEY in record) and columns.text not in record
        if is_task is None:
            is_task = is_example
        if is_task:
            yield _domain(record, columns, where), _example(record, where)
        elif is_example:
            raise DataError(f"{where}: an example with 'input' and 'target' among lines of text; put them in two files")
        elif columns.text not in record and record.keys() & EXAMPLE_KEYS:
            raise DataError(f"{where}: an example needs both 'input' and 'target'; add what is missing")
        else:
            yield _row(record, columns, where)


def _example(record: dict[str, Any], where: str) -> Example:
    if CHAT_KEY in record:
        return _chat(record[CHAT_KEY], where)
    if lost := sorted(EXAMPLE_KEYS - record.keys()):
        raise DataError(
            f"{where}: no '{lost[0]}', but the file begins with examples; give each line 'input' and 'target', "
            "and put text in a file of its own"
        )
    source, target = (_filled(record[key], key, where) for key in ("input", "target"))
    references, options = (_texts(record, key, where) for key in ("targets", "options"))
    if references and target not in references:
        raise DataError(f"{where}: 'target' is not among 'targets'; add it, or leave 'targets' out")
    references = references or (target,)
    if options and not set(options) & set(references):
        raise DataError(f"{where}: 'target' is not among 'options'; add it, or leave 'options' out")
    return Example(source, target, references, options)


def _chat(messages: object, where: str) -> Example:
    """Return the example whose target is the last turn of a chat."""
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise DataError(f"{where}: '{CHAT_KEY}' must be a list of turns, each with a role and a content; mend the line")
    turns = [
        (str(each.get("role")), _filled(each.get("content"), f"content of turn {at}", where))
        for at, each in enumerate(messages, start=1)
    ]
    try:
        check_turns(turns)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    *before, (_, said), (_, target) = turns
    return Example(said, target, (target,), before=tuple(before))


def _texts(record: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return the list of texts under `key`; nothing if there is none."""
    values = record.get(key)
    if values is None:
        return ()
    if not isinstance(values, list):
        raise DataError(f"{where}: '{key}' holds {type(values).__name__}, not a list of texts; mend or remove it")
    return tuple(_filled(value, key, where) for value in values)


def _filled(value: object, key: str, where: str) -> str:
    """Return a text of an example, which must hold something."""
    if not isinstance(value, str):
        raise DataError(f"{where}: '{key}' holds {type(value).__name__}, not text; mend or remove the line")
    if not value.strip():
        raise DataError(f"{where}: '{key}' is empty; fill it or remove the line")
    return _whole(value, where)


def _row(record: dict[str, Any], columns: Columns, where: str) -> tuple[str | None, str]:
    """Return the domain and text of one row of a table."""
    for column in (columns.text, columns.domain):
        if column is not None and column not in record:
            raise _missing(where, column, list(record))
    text = record[columns.text]
    if text is None:
        text = ""
    elif not isinstance(text, str):
        raise DataError(f"{where}: column '{columns.text}' holds {type(text).__name__}, not text; name another")
    return _domain(record, columns, where), _whole(text, where)


def _domain(record: dict[str, Any], columns: Columns, where: str) -> str | None:
    if columns.domain is None:
        return None
    if columns.domain not in record:
        raise _missing(where, columns.domain, list(record))
    if record[columns.domain] in (None, ""):
        raise DataError(f"{where}: column '{columns.domain}' is empty; fill it or remove the row")
    return domain_name(str(record[columns.domain]))


def _whole(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{where}: half a character at {error.start}; repair or remove the line") from None
    return text


def _missing(where: str, column: str, present: Sequence[str]) -> DataError:
    shown = ", ".join(list(present)[:8]) or "none"
    return DataError(
        f"{where}: no column '{column}'; the columns are: {shown}; name one with --text-column or --domain-column"
    )
