"""Files that are whole or absent: written beside, synced, renamed. What is in them is decided elsewhere."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from configs.errors import StateError

LARGE_BYTES = 1 << 20  # from which on a file's last content is kept as a spare, to be written over


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """Turn the errors of a disk that is full or read-only into a StateError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StateError(
                f"the disk is full, so {out} was not written; free space or choose another place"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
            raise StateError(f"cannot write {out}: {error.strerror}; choose another place") from None
        raise


def write_file(path: Path, *pieces: bytes | bytearray | memoryview) -> None:
    """Replace `path` atomically by these bytes: whoever reads it, now or after a crash, finds the old or the new.

    Raises StateError if the disk is full or refuses; the old content stays.
    """
    size = sum(memoryview(piece).nbytes for piece in pieces)
    is_large = size >= LARGE_BYTES
    beside = path.with_name(f".{path.name}.{'spare' if is_large else f'{os.getpid()}.part'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("r+b" if is_large and beside.exists() else "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        if is_large:
            _exchange(beside, path)
        else:
            beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            needed = f"free at least {max(1, size >> 20)} MiB; the last checkpoint is intact"
            raise StateError(f"the disk that holds {path.parent} is full; {needed}") from None
        raise StateError(f"cannot write {path}: {error.strerror}") from None


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


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` atomically with readable JSON."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in `path`, or None if there is none. Raises StateError if it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read ({error}); move it away, the swarm still has what it held") from None
    if not isinstance(value, dict):
        raise StateError(f"{path} is damaged; move it away, the swarm still has what it held")
    return value


def read_bytes(path: Path) -> bytearray | None:
    """Return the content of `path`, or None if there is none."""
    try:
        return bytearray(path.read_bytes())
    except FileNotFoundError:
        return None
