"""What the names of files and folders say: domains, splits, shards. All of it is pure.

A domain is a folder at its top, whatever is below; folders that only say a split, or a number of shards, are none. A
split is a whole word in a name, of a file or of any folder that it is in: held out counts before trained on.
"""

import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from peer.sources.documents import Split
from peer.sources.formats import ZIP, stem_of

SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "validation", "val", "dev", "test", "heldout", "eval"), "heldout"),
}
TITLE_WORDS = 5  # a name of so many is a title, in which `train` or `test` is a word like any other
PLAIN_WORDS = {"set", "data", "split", "splits", "file", "files"}  # beside a split they say nothing: `test_set`
# Folders that only wrap everything: a clone of a dataset's repository has its files in `data`.
WRAPPERS = {"data", "dataset", "datasets", "corpus", "corpora", "text", "texts", "raw", "files"}
SHARD_WORD = re.compile(
    r"(?:^|[-_.])(?:(?:part|shard|chunk)[-_.]?(?:[rm]-)?\d+(?:-[0-9a-f]{4,}.*)?|\d+[-_.]of[-_.]\d+)$", re.IGNORECASE
)
SHARD_NUMBER = re.compile(r"(?:^|[-_.])(?:0\d+|\d{5,})$")
SHARD_FOLDER = re.compile(r"(?:(?:part|shard|chunk)[-_.]?)?\d+$", re.IGNORECASE)
YEAR = re.compile(r"[12]\d{3}$")


class Name(NamedTuple):
    """What a name without its extension says."""

    base: str  # what is left without the split and the number of a shard; empty: that is all it says
    split: Split | None
    is_shard: bool  # by a word, not by a number alone


class Place(NamedTuple):
    """What a file's folders and its name say."""

    domain: str | None  # the folder; None: that of the source
    split: Split | None
    is_shard: bool


@lru_cache(maxsize=1 << 12)
def said_by(name: str) -> Name:
    """Return what a name says. Both splits in it, or one in a title, say none."""
    shard = SHARD_WORD.search(name)
    base = name[: shard.start()] if shard else SHARD_NUMBER.sub("", name)
    tokens = re.split(r"([\W_]+)", re.sub(r"held[-_ ]out", "heldout", base, flags=re.IGNORECASE))
    words = [re.sub(r"\d+$", "", token).lower() for token in tokens[::2]]
    said = {SPLITS[word] for word in words if word in SPLITS}
    if len(said) != 1 or sum(word != "" for word in words) >= TITLE_WORDS:
        return Name(base, None, shard is not None)
    kept = [token for token, word in zip(tokens[::2], words, strict=True) if word not in SPLITS]
    is_plain = all(token.lower() in PLAIN_WORDS or not token for token in kept)
    return Name("" if is_plain else "-".join(filter(None, kept)), said.pop(), shard is not None)


def place(relative: str, saved: Collection[str] = ()) -> Place:
    """Return what the path of a file below its source says.

    `saved`: the folders of saved datasets whose sub-folders are splits.
    """
    *folders, file = relative.split("/")
    domain: str | None = None
    splits: set[Split | None] = set()
    for depth, folder in enumerate(folders):
        said = _folder_said(folder)
        splits.add(said.split)
        if domain is None and said.base and "/".join(folders[:depth]) not in saved:
            is_archive = depth > 0 and folders[depth - 1] == folder + ZIP  # corpus.zip holds all of it in corpus/
            domain = None if is_archive else said.base
    own = said_by(stem_of(file))
    splits.add(own.split)
    split: Split | None = "heldout" if "heldout" in splits else "train" if "train" in splits else None
    return Place(domain, split, own.is_shard or (own.split is not None and not own.base))


def source_said(name: str, is_folder: bool) -> Name:
    """Return what the name of a source says."""
    return _folder_said(name) if is_folder and not name.lower().endswith(ZIP) else said_by(stem_of(name))


def places(relatives: Sequence[str], saved: Collection[str], source_name: str) -> list[Place]:
    """Return the places of all files below one source; a folder that only wraps everything is no domain."""
    found = [place(relative, saved) for relative in relatives]
    while True:
        domains = {each.domain for each in found}
        only = domains.pop() if len(domains) == 1 else None
        if only is None or only.lower() not in WRAPPERS | {source_name.lower()}:
            return found
        relatives = [_without(relative, only) for relative in relatives]
        saved = {_without(f"{folder}/", only).rstrip("/") for folder in saved}
        found = [place(relative, saved) for relative in relatives]


def _folder_said(folder: str) -> Name:
    if folder.lower().endswith(ZIP):
        return said_by(stem_of(folder))._replace(base="")
    if SHARD_FOLDER.match(folder) and not YEAR.match(folder):
        return Name("", None, True)
    said = said_by(folder)
    return said if said.split is not None else said._replace(base=folder)


def _without(relative: str, folder: str) -> str:
    """Return a path without the first folder that gave the domain `folder`."""
    parts = relative.split("/")
    at = next((at for at, part in enumerate(parts[:-1]) if _folder_said(part).base == folder), None)
    if at is None:
        return relative
    # What the folder says of a split stays, so does all that comes before it.
    split = _folder_said(parts[at]).split
    return "/".join([*parts[:at], *([split] if split else []), *parts[at + 1 :]])
