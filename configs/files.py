"""Files that are whole or absent: written beside, synced, renamed. What is in them is decided elsewhere."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from configs.errors import ShoalError, StateError

if TYPE_CHECKING:
    from pydantic import BaseModel  # not imported: commands must answer at once

M = TypeVar("M", bound="BaseModel")

ELSEWHERE = "move it away, the swarm still has what it held"
LARGE_BYTES = 1 << 20  # from which on a file's last content is kept as a spare, to be written over


def is_full(error: OSError) -> bool:
    """Whether a disk has no room left, or this user's part of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors(path: Path, size_bytes: int = 0) -> Iterator[None]:
    """Turn what the disk refuses while `path` is being written, of `size_bytes` if that is known, into a StateError."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            room = f"at least {max(1, size_bytes >> 20)} MiB" if size_bytes else "some space"
            raise StateError(
                f"the disk is full, so {path} was not written; free {room}, then start again: what was saved is intact"
            ) from None
        where = f" ({error.filename})" if error.filename not in (None, path, str(path)) else ""
        raise StateError(
            f"cannot write {path}: {error.strerror}{where}; check its folder and its disk, or choose another place"
        ) from None


def write_file(path: Path, *pieces: bytes | bytearray | memoryview, mode: int = 0o666, is_new: bool = False) -> None:
    """Replace `path` atomically by these bytes: whoever reads it, now or after a crash, finds the old or the new.

    `mode` is as for `open`. If it `is_new`, what another process has written meanwhile stands.
    Raises StateError if the disk is full or refuses; the old content stays.
    """
    size = sum(memoryview(piece).nbytes for piece in pieces)
    is_large = size >= LARGE_BYTES and not is_new
    beside = path.with_name(f".{path.name}.{'spare' if is_large else f'{os.getpid()}.part'}")
    with disk_errors(path, size):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | (0 if is_large else os.O_TRUNC)
            with os.fdopen(os.open(beside, flags, mode), "wb") as file:
                for piece in pieces:
                    file.write(piece)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                _link(beside, path)
            elif is_large:
                _exchange(beside, path)
            else:
                beside.replace(path)
            sync_folder(path.parent)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise


def put_in_place(beside: Path, path: Path) -> None:
    """Let a file that was written beside, and synced, appear as `path`, for good. Raises OSError."""
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable: a power cut must not bring an old one back. Not every file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def _link(beside: Path, path: Path) -> None:
    with suppress(FileExistsError):
        os.link(beside, path)
    beside.unlink()


def _exchange(beside: Path, path: Path) -> None:
    """Put `beside` in the place of `path`, atomically; what was there is written over the next time.

    A large file costs less CPU time so: the pages that the kernel holds of it are used again, not made anew.
    """
    kept = path.with_name(f".{path.name}.kept")
    try:
        kept.unlink(missing_ok=True)
        os.link(path, kept)
    except OSError:  # nothing was there, or this file system has no links
        beside.replace(path)
        return
    beside.replace(path)
    kept.replace(beside)


def write_json(path: Path, value: Mapping[str, Any], mode: int = 0o666) -> None:
    """Replace `path` atomically with readable JSON; `mode` as in `write_file`."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True).encode(), mode=mode)


def discard(path: Path) -> None:
    """Remove a file, if it is there and the disk lets it: who cleans up after an error must not put another over it."""
    with suppress(OSError):
        path.unlink()


def make_folder(path: Path) -> None:
    """Make the folder `path` if it is not there. Raises StateError: something else is in its place, or the disk."""
    if path.exists() and not path.is_dir():
        raise StateError(f"{path} is a file where a folder should be; move it away")
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def read_model(path: Path, kind: type[M], remedy: str = ELSEWHERE, error: type[ShoalError] = StateError) -> M | None:
    """Return the JSON in `path` as a pydantic model of this kind, or None if there is no such file.

    Raises an `error`, which names the file, what is wrong with it, and the `remedy`.
    """
    data = read_bytes(path, remedy, error)
    if data is None:
        return None
    try:
        return kind.model_validate_json(bytes(data))
    except ValueError as problem:  # pydantic's own is one
        raise error(f"{path} is damaged ({first_problem(problem)}); {remedy}") from None


def read_json(path: Path, remedy: str = ELSEWHERE, error: type[ShoalError] = StateError) -> dict[str, Any] | None:
    """Return the object in `path`, or None if there is no such file. Raises an `error` as `read_model`."""
    data = read_bytes(path, remedy, error)
    if data is None:
        return None
    try:
        value = json.loads(data)
    except ValueError as problem:
        raise error(f"{path} is damaged ({problem}); {remedy}") from None
    if not isinstance(value, dict):
        raise error(f"{path} is damaged (it holds no object); {remedy}")
    return value


def read_bytes(path: Path, remedy: str = ELSEWHERE, error: type[ShoalError] = StateError) -> bytearray | None:
    """Return the content of `path`, or None if there is no such file. Raises an `error` with the `remedy`."""
    try:
        return bytearray(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise error(f"{path} cannot be read ({problem.strerror}); {remedy}") from None


def first_problem(error: ValueError) -> str:
    """Return the first thing that a validation has found, in one line: where it is, and what is wrong."""
    problems = getattr(error, "errors", None)
    if problems is None:
        return str(error)
    problem = problems()[0]
    where = ".".join(map(str, problem["loc"])) or "it"
    return f"{where}: {problem['msg']}"
