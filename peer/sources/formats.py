"""What a file holds, by its name and its first bytes, and what is one document in a file of text: all of it pure."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from peer.sources.documents import Compression, DocumentUnit, Form

FORMS: dict[str, Form] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".jsonl": "json_lines",
    ".ndjson": "json_lines",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
ZIP = ".zip"
KNOWN = ", ".join([*FORMS, ZIP])  # in messages
MAGIC: tuple[tuple[re.Pattern[bytes], Compression], ...] = (
    (re.compile(rb"\x1f\x8b"), "gzip"),
    (re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"), "zstd"),  # or a frame that is to be passed over
    (re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"), "bz2"),
    (re.compile(rb"\xfd7zXZ\x00"), "xz"),
)
# Bytes of a compressed file that give its first text: bz2 gives nothing before a block of up to 900 kB is whole.
HEAD_BYTES: dict[Compression | None, int] = {
    None: 1 << 16,
    "gzip": 1 << 16,
    "zstd": 1 << 18,
    "xz": 1 << 18,
    "bz2": 1 << 20,
}
PACKED = (".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")  # archives that are not looked into
POINTER = b"version https://git-lfs"

ABOUT = re.compile(
    r"(readme|licen[cs]es?|copying)([._-].*)?$|(changelog|contributing|citation|notice|code_of_conduct|data(set)?[_-]?card)"
    r"(\.\w+)?$",
    re.IGNORECASE,
)
ABOUT_SAVED = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
NUMBERED = re.compile(
    r"(?:[\w-]*[-_])?\d+$"
)  # without an extension: part-00000 of Hadoop, wiki_00, 51060 of a newsgroup

MANY_FILES = 20  # of which each is a document, if they are small
SEVERAL_FILES = 5  # of which each is one, if they are tiny and have no blank lines
SMALL_BYTES, TINY_BYTES = 64 << 10, 8 << 10
PARAGRAPH_CHARACTERS = 8192  # between blank lines, at most, where these separate anything
FEW_LINES = 10  # say nothing of what a line is
HUGE_LINE = 20_000  # characters
MIN_MARGIN, MAX_MARGIN = 30, 100  # characters of a line, where prose is wrapped by hand


class Kind(NamedTuple):
    """What a name says of a file."""

    form: Form | None  # None: nothing
    compression: Compression | None = None


def kind_of(name: str, extensions: Sequence[str] = ()) -> Kind:
    """Return what the name of a file says. `extensions`: of what is read as code, with their dots, in lower case."""
    stem, dot, last = name.lower().rpartition(".")
    compression = COMPRESSIONS.get(dot + last) if stem else None
    if compression is not None:
        stem, dot, last = stem.rpartition(".")
    if not stem:
        return Kind(None, compression)
    if dot + last in extensions:
        return Kind("code", compression)
    return Kind(FORMS.get(dot + last), compression)


def stem_of(name: str) -> str:
    """Return a file's name without the extensions that say what it holds."""
    lower = name.lower()
    for extension in (*COMPRESSIONS, ZIP):
        if lower.endswith(extension) and len(lower) > len(extension):
            lower = lower.removesuffix(extension)
            break
    stem, dot, _ = lower.rpartition(".")
    return name[: len(stem)] if dot and stem else name[: len(lower)]


def is_about(name: str, form: Form | None) -> bool:
    """Say whether a file found in a folder is about the text in it."""
    if name.lower() in ABOUT_SAVED:
        return True
    return form in ("text", "html", None) and ABOUT.match(name) is not None


def is_packed(name: str) -> bool:
    """Say whether it is an archive that somebody must unpack."""
    return any(part in PACKED for part in re.findall(r"\.[a-z0-9]+", name.lower())[-2:])


def may_be_sniffed(name: str, compression: Compression | None) -> bool:
    """Say whether a file whose name says nothing is told by its first bytes: `corpus.gz`, `part-00000`."""
    return not is_packed(name) and (compression is not None or NUMBERED.match(name) is not None)


def compression_of(head: bytes) -> Compression | None:
    """Return how bytes are compressed, by how they begin."""
    return next((compression for magic, compression in MAGIC if magic.match(head)), None)


def form_of_json(text: str) -> Form | None:
    """Return how the JSON that begins with `text` is laid out; None: its first line end is not in it, and is needed.

    One object, or an array, is "json"; an object on each of several lines is "json_lines".
    """
    text = text.lstrip("\ufeff \t\r\n")
    if not text.startswith("{"):
        return "json"
    first, end, rest = text.partition("\n")
    if not end:
        return None
    return "json_lines" if rest.lstrip().startswith("{") and first.rstrip().endswith("}") else "json"


def sniffed(head: bytes, text: str | None) -> Form | None:
    """Return what a file holds whose name does not say; None: it is not sure. `text`: the head, if it is any."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "arrow"
    if text is None or head[257:262] == b"ustar":
        return None
    begin = text.lstrip("\ufeff \t\r\n")
    if begin.startswith("{"):
        return "json_lines" if _is_record(begin.partition("\n")[0]) and form_of_json(begin) == "json_lines" else "json"
    if re.match(r"\[\s*[\[{\"]", begin):
        return "json"
    if re.match(r"<!doctype html|<html|<\?xml[^>]*>\s*<(!doctype )?html", begin, re.IGNORECASE):
        return "html"
    return None if _is_table(begin) else "text"


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_table(text: str) -> bool:
    """Say whether text may as well be a table: the first lines have as many commas or tabs each."""
    lines = text.split("\n")[:6]
    return len(lines) > 1 and any(
        len({line.count(mark) for line in lines[:-1]}) == 1 and mark in lines[0] for mark in ",\t;"
    )


def unit_of(heads: Sequence[str], files: int = 1, median_bytes: int = 0) -> DocumentUnit:
    """Return what is one document in the files of a domain, of which `heads` are the beginnings of some.

    `files`: how many there are, shards not counted, with their median size.
    """
    if files >= MANY_FILES and median_bytes < SMALL_BYTES:
        return "file"
    lines = [line.rstrip() for head in heads for line in head.strip().split("\n")]
    separations = sum(not line and bool(after) for line, after in pairwise(lines))
    if separations * PARAGRAPH_CHARACTERS >= sum(map(len, heads)):
        return "paragraph"
    if files >= SEVERAL_FILES and median_bytes < TINY_BYTES:
        return "file"
    filled = [line for line in lines if line]
    if len(filled) < FEW_LINES * len(heads) or max(map(len, filled)) > HUGE_LINE or _is_wrapped(filled):
        return "file"
    return "line"


def _is_wrapped(lines: Sequence[str]) -> bool:
    """Say whether lines are those of prose or verse: most of them near a margin, and few the end of a sentence."""
    margin = sorted(map(len, lines))[len(lines) * 19 // 20]
    if not MIN_MARGIN <= margin <= MAX_MARGIN:
        return False
    near = sum(0.75 * margin <= len(line) <= margin for line in lines)
    ended = sum(line[-1] in ".!?…。！？:;\"'”’»)" for line in lines)
    return near >= 0.5 * len(lines) and ended < 0.5 * len(lines)
