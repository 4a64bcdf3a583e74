"""What every place for checkpoints and models does, whatever client talks to it; and a folder, which needs none."""

import io
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from configs.content import Buffer, content_id_of_pieces
from configs.errors import DataError
from configs.files import disk_errors, put_in_place, write_file
from configs.outlets import Target

READ_BYTES = 1 << 20  # of a file that is read through
PACED_BYTES = 1 << 16  # that go out at once behind a cap

Pace = Callable[[int], None]  # waits until so many bytes may go; raises to end a transfer


class Place(Protocol):
    """One target, open. Names are paths below it; what is put under one appears whole, or not at all."""

    def sizes(self, under: str = "") -> dict[str, int]:
        """Return name → bytes of all that lies there, or below the folder `under`."""

    def read(self, name: str, most_bytes: int) -> bytes | None:
        """Return what lies there, None for nothing. Raises DataError if it is larger."""

    def put(self, name: str, data: Buffer) -> None:
        """Put a part there. Where several appear together, it does with `commit`."""

    def put_file(self, name: str, path: Path, content_id: str) -> bool:
        """Put a file there, unless it is there already; return whether it was sent."""

    def fetch(self, name: str, path: Path) -> None:
        """Write what lies there into a file. Raises DataError if nothing does."""

    def commit(self, name: str, data: bytes, gone: Collection[str] = ()) -> None:
        """Put the last of what belongs together, then remove what is `gone`."""


class Folder:
    """A folder on this machine, or one that is mounted here."""

    def __init__(self, target: Target) -> None:
        self._root = Path(target.root) / target.prefix

    def sizes(self, under: str = "") -> dict[str, int]:
        """Look through the folder."""
        found: dict[str, int] = {}
        with disk_errors(self._root):
            for folder, folders, names in os.walk(self._root / under):
                folders[:] = [name for name in folders if not name.startswith(".")]
                paths = [Path(folder) / name for name in names if not name.startswith(".")]
                found |= {path.relative_to(self._root).as_posix(): path.stat().st_size for path in paths}
        return found

    def read(self, name: str, most_bytes: int) -> bytes | None:
        """Read a file."""
        path = self._root / name
        if not path.is_file():
            return None
        with disk_errors(path):
            check_size(path.stat().st_size, most_bytes, str(path))
            return path.read_bytes()

    def put(self, name: str, data: Buffer) -> None:
        """Write a file."""
        write_file(self._root / name, data)

    def put_file(self, name: str, path: Path, content_id: str) -> bool:
        """Copy a file, unless the same lies there."""
        there = self._root / name
        if there.is_file() and there.stat().st_size == path.stat().st_size and content_id_of_file(there) == content_id:
            return False
        copy_file(path, there)
        return True

    def fetch(self, name: str, path: Path) -> None:
        """Copy a file from there."""
        if not (self._root / name).is_file():
            raise DataError(f"{self._root / name} is not there any more; try again")
        copy_file(self._root / name, path)

    def commit(self, name: str, data: bytes, gone: Collection[str] = ()) -> None:
        """Write the last file, and delete those that are gone."""
        if data:
            write_file(self._root / name, data)
        for each in gone:
            with disk_errors(self._root / each):
                (self._root / each).unlink(missing_ok=True)


def copy_file(source: Path, path: Path) -> None:
    """Copy a file so that it appears whole. Raises StateError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with disk_errors(path, source.stat().st_size):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, beside)
            put_in_place(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


def content_id_of_file(path: Path) -> str:
    """Return the content id of a file, read through once."""
    with path.open("rb") as file:
        return content_id_of_pieces(iter(lambda: file.read(READ_BYTES), b""))


def check_size(size_bytes: int, most_bytes: int, where: str) -> None:
    """Raise DataError if something is larger than whatever is wanted may be."""
    if size_bytes > most_bytes:
        raise DataError(f"{where} has {size_bytes} bytes, and at most {most_bytes} are taken; it is none of ours")


class Paced(io.BytesIO):
    """Bytes that wait for their turn while they are sent; clients also read them before, to sign them."""

    def __init__(self, data: Buffer, pace: Pace) -> None:
        super().__init__(data)
        self._pace, self._is_sent, self._ahead = pace, False, 0

    def signal_transferring(self) -> None:
        """Say that what is read from now on is sent."""
        self._is_sent = True

    def signal_not_transferring(self) -> None:
        """Say that it is not."""
        self._is_sent = False

    def read(self, size: int | None = -1) -> bytes:
        """Read on, after a wait if that is sent."""
        data = super().read(min(size, PACED_BYTES) if self._is_sent and size and size > 0 else size)
        self._ahead += len(data) if self._is_sent else 0
        if self._ahead >= PACED_BYTES or not data:  # every wait is a way through the event loop
            ahead, self._ahead = self._ahead, 0
            self._pace(ahead)
        return data
