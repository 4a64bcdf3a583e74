"""Finds the files that a user names, and says of each: its domain, its split, what it holds, in which encoding.

What is there and is not used is counted in `skips`. What is named by itself and cannot be used is an error at once.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median

from configs.corpus import MAX_DOMAINS
from configs.errors import DataError
from configs.outlets import is_url
from configs.text import clean
from peer.corpus.data import CORPUS_FILE, TOKENIZER_FILE
from peer.sources.documents import DocumentUnit, SourceFile, Split, domain_name
from peer.sources.encodings import check_encoding, detect_encoding
from peer.sources.formats import (
    HEAD_BYTES,
    KNOWN,
    ZIP,
    Kind,
    is_about,
    is_packed,
    kind_of,
    may_be_sniffed,
    stem_of,
    unit_of,
)
from peer.sources.layout import Place, places, source_said
from peer.sources.looking import Looked, Unused, heads, look, read_head, why_unreadable
from peer.sources.skips import SHOWN, Reason, SkipError, Skips
from peer.sources.streams import open_url
from peer.sources.walking import Entry, Source, find_source, is_hidden, walk

HEADS = 8  # files of a domain that say what one document is in all of them
SAVED_SPLITS = "dataset_dict.json"  # of a dataset saved by the library `datasets`, beside the folders of its splits
COLUMNS = ("json_lines", "json", "csv", "tsv", "parquet", "arrow")


@dataclass(frozen=True)
class Listing:
    """What a user says of the files."""

    extensions: tuple[str, ...] = ()  # of what is read as code
    heldout: tuple[str, ...] = ()  # files and folders of which all is held out
    unit: DocumentUnit | None = None  # one document in a file of text; None: told from the files of a domain
    encoding: str | None = None  # of what does not prove to be in another; None: it must be sure
    has_domain_column: bool = False
    may_share_names: bool = False  # all sources become one domain


@dataclass(frozen=True)
class _Found:
    """A file that holds text, as far as its name says."""

    entry: Entry
    kind: Kind
    is_named: bool
    domain: str = ""
    split: Split | None = None
    is_shard: bool = False


@dataclass
class _Known:
    """What was walked through before, by identity, so that a second path to it is told."""

    used: set[object] = field(default_factory=set)
    passed: set[object] = field(default_factory=set)  # and counted in the skips
    saved: dict[str, set[str]] = field(default_factory=dict)  # source → folders whose sub-folders are splits


def find_files(sources: Sequence[str], options: Listing, skips: Skips) -> list[SourceFile]:
    """Return the files to read, in a fixed order. All others that were found are counted in `skips`.

    One folder: each sub-folder in it is a domain, and the files beside them are one, named like the folder. Otherwise
    each source is one, named like the file or folder, or like the folder above where names are the same; shards and
    splits are one. What `options.heldout` names beside them is of the domain with its name, or of the only one.

    Raises DataError: nothing is there, names nothing, or says too much. SkipError: what was named by itself cannot be
    used.
    """
    if not sources:
        raise DataError("no text was given; name files or folders, such as: shoal prepare texts/ --out corpus")
    if options.encoding is not None:
        check_encoding(options.encoding)
    extensions = tuple("." + extension.lower().lstrip(".") for extension in options.extensions)
    known = _Known()
    roots = [find_source(source) for source in sources]
    found = [_candidates(root, extensions, known, skips) for root in roots]
    for root, inside in zip(roots, found, strict=True):
        if not inside and root.is_folder:
            raise DataError(_no_text(root.url, skips))
    if len(roots) == 1 and roots[0].is_folder:
        placed = _in_folder(roots[0], found[0], known)
    else:
        placed = _of_sources(roots, found, known, options)
    for named in options.heldout:
        placed = _held_out(placed, find_source(named), extensions, known, skips)
    _check_domains(placed, roots, options)
    files = _files(_looked_at(placed, options, skips), options)
    if not files:
        raise DataError(_no_text(roots[0].url, skips))
    if all(file.split == "heldout" for file in files):
        raise DataError(
            f"all text would be held out, {clean(files[0].url)} and the others, as names (valid, dev, test …) or "
            "--heldout say; add text to train on, or give them other names"
        )
    return files


def _candidates(
    root: Source, extensions: Sequence[str], known: _Known, skips: Skips, again: set[object] | None = None
) -> list[_Found]:
    """Return the files of a source that hold text by their names. `again`: is told of those that are used already."""
    found = []
    entries = walk(root, skips)
    corpora = _corpora(entries)
    passed: dict[object, tuple[Entry, Unused]] = {}
    for entry in entries:
        name = entry.relative.rpartition("/")[2]
        kind = kind_of(name, extensions)
        if name == SAVED_SPLITS:
            known.saved.setdefault(root.url, set()).add(entry.relative.rpartition("/")[0])
        unused = _passed_over(entry, name, kind) if root.is_folder else None
        if any(entry.relative.startswith(folder) for folder in corpora):
            unused = Unused(Reason.KIND, ": a part of a corpus that was prepared before")
        if not root.is_folder and kind.form is None and not may_be_sniffed(name, kind.compression) and "." in name:
            raise SkipError(_unknown(entry, name))
        if entry.identity in known.used:
            if again is None:
                skips.add(Reason.LINKED, clean(entry.url), 0)
            else:
                again.add(entry.identity)
        elif unused is None:
            known.used.add(entry.identity)
            found.append(_Found(entry, kind, not root.is_folder))
        elif entry.identity not in known.passed:
            known.passed.add(entry.identity)
            passed[entry.identity] = entry, unused
    for identity, (entry, unused) in passed.items():
        if identity not in known.used:  # by a name that says more, such as that of a link
            skips.add(unused.reason, clean(entry.url) + unused.said(), entry.size_bytes)
    return found


def _corpora(entries: Iterable[Entry]) -> list[str]:
    """Return the folders of prepared corpora, each with a slash behind it; the source itself is an empty text."""
    names = {entry.relative for entry in entries}
    folders = [name.removesuffix(CORPUS_FILE) for name in names if f"/{name}".endswith(f"/{CORPUS_FILE}")]
    return [folder for folder in folders if folder + TOKENIZER_FILE in names]


def _passed_over(entry: Entry, name: str, kind: Kind) -> Unused | None:
    """Return why a file that was found in a folder is not read, if its name says so."""
    if is_hidden(entry.relative):
        return Unused(Reason.HIDDEN, "")
    if is_about(name, kind.form):
        return Unused(Reason.ABOUT, "")
    if name.startswith("cache-") and kind.form == "arrow":
        return Unused(Reason.KIND, ": what the library `datasets` computed of others")
    if kind.form is not None or may_be_sniffed(name, kind.compression):
        return None
    if is_packed(name):
        return Unused(Reason.KIND, ": unpack it into a folder")
    _, dot, extension = name.rpartition(".")
    advice = f"read it with --ext .{clean(extension)}" if dot else f"name it {clean(name)}.txt"
    return Unused(Reason.KIND, f": if that is text, {advice}")


def _unknown(entry: Entry, name: str) -> str:
    """Return why a file named by itself is not read, whose name says nothing."""
    if is_packed(name):
        return f"{clean(entry.url)} is an archive of another kind than .zip; unpack it and name the folder"
    head = read_head(entry.url, HEAD_BYTES[None])
    advice = "convert it to one of those"
    if isinstance(head, bytes) and head and detect_encoding(head, len(head) >= entry.size_bytes):
        advice = f"or say that it is text with --ext .{clean(name.rpartition('.')[2])}"
    return f"{clean(entry.url)}: cannot tell what it holds; its name must end in {KNOWN}; {advice}"


def _in_folder(root: Source, found: Sequence[_Found], known: _Known) -> list[_Found]:
    """Return the files of the one folder that is a source, with the domains and splits that its sub-folders say."""
    said = _places(root, found, known)
    own = stem_of(root.name) if root.name.lower().endswith(ZIP) else root.name
    placed = [_placed(each, where, where.domain or own) for each, where in zip(found, said, strict=True)]
    return _without_tests(placed)


def _of_sources(
    roots: Sequence[Source], found: Sequence[Sequence[_Found]], known: _Known, options: Listing
) -> list[_Found]:
    """Return the files of several sources, each of which is a domain."""
    said = [source_said(root.name, root.is_folder) for root in roots]
    keys = [(_folder_of(root.url), each.base) for root, each in zip(roots, said, strict=True)]
    names = dict.fromkeys(keys, "")
    names.update({key: key[1] or root.above or "text" for key, root in zip(keys, roots, strict=True)})
    if len({domain_name(name) for name in names.values()}) < len(names):
        for key, root in zip(keys, roots, strict=True):
            names[key] = names[key] if root.is_folder else root.above
    taken: dict[str, tuple[str, str]] = {}
    for key, root in zip(keys, roots, strict=True):
        other = taken.setdefault(domain_name(names[key]), key)
        if other != key and not (options.may_share_names or options.has_domain_column):
            name = domain_name(names[key])
            raise DataError(
                f"{clean(root.url)}: another source would be the domain '{name}' as well; rename one of them"
            )
    # A single file called `test.txt` is what there is to train on.
    is_choice = any(each.split != "heldout" for each in said)
    placed = []
    for root, key, own, inside in zip(roots, keys, said, found, strict=True):
        for each, where in zip(inside, _places(root, inside, known), strict=True):
            split = where.split if root.is_folder else None
            if is_choice and (own.split == "heldout" or split is None):
                split = own.split
            placed.append(_placed(each, where._replace(split=split), names[key]))
    return _without_tests(placed)


def _folder_of(url: str) -> str:
    """Return the folder of a source, which may be named in several ways."""
    return url.rpartition("/")[0] if is_url(url) else os.path.dirname(os.path.abspath(url))  # noqa: PTH100, PTH120


def _places(root: Source, found: Sequence[_Found], known: _Known) -> list[Place]:
    # A source file that is called `test_parser.py` holds nothing out.
    relatives = [
        each.entry.relative.rpartition("/")[0] + "/code" if each.kind.form == "code" else each.entry.relative
        for each in found
    ]
    return places(relatives, known.saved.get(root.url, ()), root.name)


def _placed(found: _Found, where: Place, domain: str) -> _Found:
    return _Found(found.entry, found.kind, found.is_named, domain, where.split, where.is_shard)


def _without_tests(placed: list[_Found]) -> list[_Found]:
    """Return code whose `test` folders are its tests, not what is held out: none says what is trained on."""
    if any(each.kind.form == "code" and each.split == "train" for each in placed):
        return placed
    return [replace(each, split=None) if each.kind.form == "code" and each.split else each for each in placed]


def _held_out(
    placed: Sequence[_Found], root: Source, extensions: Sequence[str], known: _Known, skips: Skips
) -> list[_Found]:
    """Return the files with those at `root` held out, which are added if they are not among them."""
    again: set[object] = set()
    passed = Skips()
    new = _candidates(root, extensions, known, passed, again)
    if not new and not again:
        raise DataError(f"--heldout {_no_text(root.url, passed)}")
    if new:  # otherwise it is in a source, and was walked through before
        skips.take(passed)
    domains = {domain_name(each.domain): each.domain for each in placed}
    own = source_said(root.name, root.is_folder).base or root.above or "text"
    placed = [replace(each, split="heldout") if each.entry.identity in again else each for each in placed]
    for each, where in zip(new, _places(root, new, known), strict=True):
        named = [domains.get(domain_name(name)) for name in (where.domain, own) if name]
        domain = next(filter(None, named), None)
        if domain is None:
            domain = next(iter(domains.values())) if len(domains) == 1 else where.domain or own
        placed.append(_placed(each, where._replace(split="heldout"), domain))
    return placed


def _check_domains(placed: Sequence[_Found], roots: Sequence[Source], options: Listing) -> None:
    """Raise DataError if folders make too many domains, or two of the same name."""
    if options.may_share_names or options.has_domain_column:
        return
    names: dict[str, str] = {}
    for domain in dict.fromkeys(each.domain for each in placed):
        other = names.setdefault(domain_name(domain), domain)
        if other != domain:
            raise DataError(
                f"the folders {clean(other)} and {clean(domain)} would both be the domain '{domain_name(domain)}'; "
                "rename one of them"
            )
    if len(names) > MAX_DOMAINS:
        is_many = len(roots) > 1
        what = "sources" if is_many else f"sub-folders of {clean(roots[0].url)}"
        advice = "name the folder that they are in, or let domains be found" if is_many else "let domains be found"
        raise DataError(
            f"{len(names)} {what} would be a domain each, and there can be {MAX_DOMAINS}; "
            f"{advice} in the text of all, as many as are useful: --domains 8"
        )


def _looked_at(placed: Sequence[_Found], options: Listing, skips: Skips) -> Iterator[tuple[_Found, Looked]]:
    """Yield the files that hold text, with what was seen at their beginnings."""
    beginnings = heads([each.entry for each in placed], [each.kind for each in placed])
    for found, head in zip(placed, beginnings, strict=True):
        entry = found.entry
        try:
            if isinstance(head, Exception):
                raise head
            looked = look(found.kind, entry.size_bytes, head, options.encoding, partial(open_url, entry.url))
        except (OSError, DataError) as error:
            looked = why_unreadable(error)
        if isinstance(looked, Looked) and options.has_domain_column and looked.form not in COLUMNS:
            advice = "use JSON lines or Parquet, or leave --domain-column out"
            looked = Unused(Reason.COLUMN, f"has no columns, and so none for its domain; {advice}")
        if isinstance(looked, Looked):
            yield found, looked
        elif found.is_named:
            raise SkipError(f"{clean(entry.url)} {looked.said()}")
        else:
            before = skips.by_reason.get(looked.reason)
            is_shown = before is None or before.count < SHOWN
            said = f": {looked.said()}" if is_shown else ""
            skips.add(looked.reason, clean(entry.url) + said, entry.size_bytes)


def _files(looked_at: Iterable[tuple[_Found, Looked]], options: Listing) -> list[SourceFile]:
    """Return the files, with what one document is in those of each domain."""
    seen: list[tuple[_Found, Looked]] = []
    texts: dict[str, list[str]] = {}  # the beginnings of some files of each domain
    sizes: dict[str, list[int]] = {}  # of all of its files that are no shards
    for found, looked in looked_at:
        if looked.form == "text":
            some = texts.setdefault(found.domain, [])
            if len(some) < HEADS:
                some.append(looked.text)
            if not found.is_shard:
                sizes.setdefault(found.domain, []).append(found.entry.size_bytes)
        seen.append((found, looked._replace(text="")))
    units = {domain: _unit(some, sizes.get(domain, [])) for domain, some in texts.items()}
    return [
        SourceFile(
            url=found.entry.url,
            size_bytes=found.entry.size_bytes,
            form=looked.form,
            domain=domain_name(found.domain),
            compression=looked.compression,
            split=found.split,
            encoding=looked.encoding,
            unit=options.unit or ("file" if looked.form in ("code", "html") else units.get(found.domain, "paragraph")),
            is_named=found.is_named,
        )
        for found, looked in seen
    ]


def _unit(texts: Sequence[str], sizes: Sequence[int]) -> DocumentUnit:
    return unit_of(texts, len(sizes), int(median(sizes)) if sizes else 0)


def _no_text(url: str, skips: Skips) -> str:
    # What stands in the way comes before what was left out on purpose, with what is to be done about it.
    bad = [skipped for reason, skipped in skips.by_reason.items() if reason.is_bad]
    if bad:
        others = sum(skipped.count for skipped in bad) - 1
        more = f" (and {others:,} more that cannot be used)" if others else ""
        return f"{clean(url)} holds no text that can be used: {bad[0].places[0]}{more}"
    places = [f"{each.places[0].partition(': ')[0]} {reason.words}" for reason, each in skips.by_reason.items()]
    why = f" ({'; '.join(places[:3])})" if places else ""
    return f"{clean(url)} holds no text{why}; it needs files that end in {KNOWN}, or others with --ext"
