"""Walks through what a user names: local folders, what fsspec lists, ZIP archives. Gives the files in a fixed order.

Links are followed, after all that is there by itself; what a link shows a second time is counted. Hidden files are
counted as well.
"""

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from configs.errors import DataError
from configs.outlets import is_url
from configs.text import clean
from peer.corpus.stores import filesystem_of
from peer.sources.formats import ZIP
from peer.sources.skips import Reason, SkipError, Skips
from peer.sources.streams import DamagedError, held_archive

# What other programs leave beside their files: of Hadoop, macOS and Python.
HIDDEN = {"_SUCCESS", "_metadata", "_common_metadata", "_temporary", "__MACOSX", "__pycache__", "Thumbs.db"}
UNPACKED_HERE = (0, 8, 12, 14)  # how ZIP archives store, as Python reads them


class Entry(NamedTuple):
    """A file below a source."""

    url: str  # a path, a URL, or zip://MEMBER::PATH
    relative: str  # its path below the source, with slashes; its name, if it is the source
    size_bytes: int
    identity: object  # the same for the same file, whatever path leads there
    is_link: bool = False


@dataclass(frozen=True)
class Source:
    """A file or folder that a user names."""

    url: str
    is_folder: bool  # or an archive
    name: str  # of the file or folder itself
    above: str  # the name of the folder that it is in
    size_bytes: int = 0


def find_source(named: str) -> Source:
    """Return what is at a path or URL. Raises DataError: nothing, or nothing that can be read again and again."""
    path = named.removeprefix("file://") if named.startswith("file://") else named
    if not is_url(path):
        return _local_source(path)
    fs, inside = filesystem_of(path)
    try:
        info = fs.info(inside)
    except FileNotFoundError:
        raise DataError(f"no such file or folder: {clean(path)}; check the address") from None
    except Exception as error:  # each file system has errors of its own
        raise DataError(f"cannot read {clean(path)}: {trouble(error)}; check the address and the rights") from None
    bare = path.partition("?")[0].rstrip("/")
    above, _, name = bare.partition("://")[2].rpartition("/")
    is_folder = info["type"] == "directory" or name.lower().endswith(ZIP)
    return Source(path.rstrip("/"), is_folder, name or "unnamed", above.rpartition("/")[2], info.get("size") or 0)


def walk(source: Source, skips: Skips) -> list[Entry]:
    """Return the files of a source, also those of archives in it: links last, otherwise by their relative paths.

    Raises DataError if the source itself cannot be listed.
    """
    try:
        if not source.is_folder:
            found = [_entry_of(source)]
        elif _is_archive(source):
            found = list(_members(_entry_of(source), "", skips))
        elif is_url(source.url):
            found = list(_remote(source, skips))
        else:
            found = list(_local(source.url, skips))
    except DamagedError as error:
        raise SkipError(f"{clean(source.url)} {error}") from None
    except OSError as error:
        raise DataError(f"cannot read {clean(source.url)}: {trouble(error)}; check it and its permissions") from None
    return sorted(found, key=lambda entry: (entry.is_link, entry.relative))


def trouble(error: Exception) -> str:
    """Return what an error says, on one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return clean(said or type(error).__name__)


def is_hidden(relative: str) -> bool:
    """Say whether a file, or a folder that it is in, is hidden."""
    return any(part[:1] == "." or part in HIDDEN for part in relative.split("/"))


def _local_source(path: str) -> Source:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no such file or folder: {clean(path)}; check the path") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {clean(path)}: {trouble(error)}; check the path and its permissions") from None
    above, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 the name that the user gave, not that of a link
    is_folder = stat.S_ISDIR(status.st_mode)
    if not is_folder and not stat.S_ISREG(status.st_mode):
        raise SkipError(f"{clean(path)} is no file, and text is read more than once; write it into a file first")
    bare = path.rstrip("/") or "/"
    is_folder = is_folder or name.lower().endswith(ZIP)
    return Source(bare, is_folder, name, os.path.basename(above), status.st_size)  # noqa: PTH119


def _is_archive(source: Source) -> bool:
    is_named_so = source.name.lower().endswith(ZIP)
    return is_named_so and (is_url(source.url) or not os.path.isdir(source.url))  # noqa: PTH112


def _entry_of(source: Source) -> Entry:
    identity: object = source.url
    if not is_url(source.url):
        status = os.stat(source.url)  # noqa: PTH116
        identity = (status.st_dev, status.st_ino)
    return Entry(source.url, source.name, source.size_bytes, identity)


def _local(root: str, skips: Skips) -> Iterator[Entry]:
    """Yield the files below a folder. What is linked comes after what is there, and each folder once."""
    status = os.stat(root)  # noqa: PTH116
    seen = {(status.st_dev, status.st_ino)}
    waiting: list[tuple[str, str]] = [(root, "")]  # folders to walk through, with their relative paths
    links: list[tuple[str, str]] = []
    is_linked = False
    while waiting or links:
        if not waiting:
            links.sort(key=lambda link: link[1], reverse=True)
            path, relative = links.pop()
            is_linked = True
            yield from _followed(path, relative, seen, waiting, skips)
            continue
        folder, above = waiting.pop()
        try:
            with os.scandir(folder) as inside:
                children = list(inside)
        except OSError as error:
            if folder == root:
                raise
            skips.add(Reason.UNREADABLE, f"{clean(folder)}: {trouble(error)}", 0)
            continue
        for child in children:
            relative = above + child.name
            if child.is_symlink():
                links.append((child.path, relative))
                continue
            try:
                status = child.stat(follow_symlinks=False)
            except OSError as error:  # it is gone since
                skips.add(Reason.UNREADABLE, f"{clean(child.path)}: {trouble(error)}", 0)
                continue
            yield from _one(child.path, relative, status, is_linked, seen, waiting, skips)


def _followed(
    path: str, relative: str, seen: set[tuple[int, int]], waiting: list[tuple[str, str]], skips: Skips
) -> Iterator[Entry]:
    """Yield the file that a link leads to, or have its folder walked through."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        skips.add(Reason.UNREADABLE, f"{clean(path)}: a link that leads nowhere ({trouble(error)})", 0)
        return
    yield from _one(path, relative, status, True, seen, waiting, skips)


def _one(
    path: str,
    relative: str,
    status: os.stat_result,
    is_link: bool,
    seen: set[tuple[int, int]],
    waiting: list[tuple[str, str]],
    skips: Skips,
) -> Iterator[Entry]:
    """Yield a file, or those of an archive, or have a folder walked through."""
    identity = (status.st_dev, status.st_ino)
    if stat.S_ISDIR(status.st_mode):
        if identity in seen:
            skips.add(Reason.LINKED, clean(path), 0)
        else:
            seen.add(identity)
            waiting.append((path, relative + "/"))
    elif not stat.S_ISREG(status.st_mode):
        skips.add(Reason.KIND, f"{clean(path)}: no file, but a pipe, a socket or a device", 0)
    else:
        yield from _opened(Entry(path, relative, status.st_size, identity, is_link), skips)


def _remote(source: Source, skips: Skips) -> Iterator[Entry]:
    """Yield the files that fsspec finds below a folder: one listing, not a question for each."""
    fs, root = filesystem_of(source.url)
    root = root.rstrip("/")
    try:
        found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
    except Exception as error:  # each file system has errors of its own
        raise DataError(
            f"cannot list {clean(source.url)}: {trouble(error)}; check the address and the rights"
        ) from None
    for path, info in found.items():
        if not path.startswith(root + "/") or path.endswith("/") or info.get("type") == "directory":
            continue  # how object stores mark folders
        relative = path[len(root) + 1 :]
        url = f"{source.url}/{relative}"
        yield from _opened(Entry(url, relative, info.get("size") or 0, url), skips)


def _opened(entry: Entry, skips: Skips) -> Iterator[Entry]:
    """Yield a file as it is, or what is in it if it is an archive."""
    if not entry.relative.lower().endswith(ZIP) or is_hidden(entry.relative):
        yield entry
        return
    try:
        yield from _members(entry, entry.relative + "/", skips)
    except DamagedError as error:
        skips.add(Reason.DAMAGED, f"{clean(entry.url)}: {error}", entry.size_bytes)
    except OSError as error:
        skips.add(Reason.UNREADABLE, f"{clean(entry.url)}: {trouble(error)}", entry.size_bytes)


def _members(entry: Entry, above: str, skips: Skips) -> list[Entry]:
    """Return the files in an archive, with the size that they have unpacked. Raises DamagedError, OSError."""
    found = []
    with held_archive(entry.url) as archive:
        for member in archive.infolist():
            url = f"zip://{member.filename}::{entry.url}"
            what = "is encrypted" if member.flag_bits & 1 else "is packed in an unusual way"
            if member.is_dir():
                continue
            if member.flag_bits & 1 or member.compress_type not in UNPACKED_HERE:
                skips.add(Reason.UNREADABLE, f"{clean(url)}: {what}; unpack it into a folder", member.file_size)
                continue
            # Nothing is unpacked to where a name says, so that one which leads out of the archive does no harm.
            relative = above + posixpath.normpath("/" + member.filename.replace("\\", "/")).lstrip("/")
            identity = (entry.identity, member.filename)
            found.append(Entry(url, relative, member.file_size, identity, entry.is_link))
    return found
