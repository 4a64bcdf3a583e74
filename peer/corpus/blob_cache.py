"""Shards that lie here for as long as there is room: files named by their content, in a folder of bounded size.

Which are needed, and when, is for others to say. Several processes may share the folder: each blob is fetched by one of
them at a time, and none is removed while another holds it. A crash leaves nothing that counts: a blob appears whole and
checked, what was begun is written over, and who held what is known by locks that end with their process.
"""

import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from configs.content import content_id_of_pieces
from configs.corpus import ShardInfo
from configs.errors import DataError
from configs.files import discard, disk_errors, put_in_place

READ_BYTES = 1 << 20  # of a file that is read through
TRIES = 3  # fetches of a blob that comes damaged each time
LOCK, BEGUN = ".lock", ".part"

Fetch = Callable[[Path], None]  # writes the blob into a file


class DamagedBlobError(DataError):
    """A blob comes from its store damaged, again and again."""


@dataclass(frozen=True)
class Held:
    """A file of the cache as an evictor sees it."""

    path: Path
    size_bytes: int
    needed_at: float  # when it was needed last, in seconds since the epoch


class BlobCache:
    """The shards of a corpus in a folder, of which no more than `most_bytes` lie there.

    Only files that are named in `known` count: what else lies in the folder stays. Holds one open file for each blob
    that is held. For one thread at a time.
    """

    def __init__(self, folder: Path, most_bytes: int, known: Collection[str]) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        self._known = frozenset(known)
        self._held: dict[str, int] = {}  # content id → descriptor with a shared lock
        self._checked: set[str] = set()
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def path(self, content_id: str) -> Path:
        """Return where a blob lies, or would."""
        return self.folder / content_id

    def has(self, blob: ShardInfo) -> bool:
        """Return whether a blob lies here, whole by its size, and read through once by this process."""
        path = self.path(blob.content_id)
        with suppress(OSError):
            return blob.content_id in self._checked and path.stat().st_size == blob.size_bytes
        return False

    def obtain(self, blob: ShardInfo, fetch: Fetch) -> bool:
        """See to it that a blob lies here and is what it should be; return whether it had to be fetched.

        There must be room (`make_room`). Raises DamagedBlobError after several fetches of something else, what `fetch`
        raises, and StateError on a full disk.
        """
        path = self.path(blob.content_id)
        with self._locked(blob.content_id):
            if self._is_whole(path, blob):
                self._checked.add(blob.content_id)
                return False
            begun = path.with_name(f".{path.name}{BEGUN}")
            try:
                for _ in range(TRIES):
                    fetch(begun)
                    if self._is_whole(begun, blob):
                        with disk_errors(path):
                            put_in_place(begun, path)
                        self._checked.add(blob.content_id)
                        return True
                size_bytes = begun.stat().st_size
            finally:
                discard(begun)
        raise DamagedBlobError(
            f"blob {blob.content_id} is damaged where it comes from ({size_bytes} bytes, {blob.size_bytes} expected); "
            "put it there anew, from the folder that `shoal prepare` wrote"
        )

    def hold(self, wanted: Collection[str]) -> None:
        """Keep these blobs, and no others, from being removed by anybody; they count as needed now."""
        for content_id in self._held.keys() - set(wanted):
            os.close(self._held.pop(content_id))
        now = time.time()
        for content_id in set(wanted) & self._checked:
            path = self.path(content_id)
            with suppress(OSError):
                if content_id not in self._held:
                    self._held[content_id] = _open_locked(path)
                os.utime(path, (now, now))

    def make_room(self, size_bytes: int, keep: Collection[str]) -> bool:
        """Remove what was needed longest ago until so many bytes more fit; return whether they do.

        What is in `keep`, or held by anybody, stays.
        """
        files = self._files()
        used = sum(file.size_bytes for file in files)
        for file in sorted(files, key=lambda file: (file.needed_at, file.path.name)):
            if used + size_bytes <= self.most_bytes:
                break
            if file.path.name not in keep and file.path.name not in self._held and self._remove(file.path):
                used -= file.size_bytes
        return used + size_bytes <= self.most_bytes

    @property
    def used_bytes(self) -> int:
        """Bytes of the shards that lie here."""
        return sum(file.size_bytes for file in self._files())

    def close(self) -> None:
        """Hold nothing any more."""
        self.hold(())

    def _files(self) -> list[Held]:
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name in self._known:
                    with suppress(OSError):  # another process removes, too
                        facts = entry.stat()
                        found.append(Held(Path(entry.path), facts.st_size, facts.st_mtime))
        return found

    def _remove(self, path: Path) -> bool:
        """Remove a blob that nobody holds; return whether it is gone."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        self._checked.discard(path.name)
        return True

    def _is_whole(self, path: Path, blob: ShardInfo) -> bool:
        """Return whether a file is the blob; one that is not, by its size or its content, is removed."""
        try:
            if path.stat().st_size == blob.size_bytes:
                with path.open("rb") as file:
                    if content_id_of_pieces(iter(lambda: file.read(READ_BYTES), b"")) == blob.content_id:
                        return True
        except OSError:
            return False
        if path == self.path(blob.content_id):
            discard(path)
        return False

    @contextmanager
    def _locked(self, content_id: str) -> Iterator[None]:
        """Let no other process fetch that blob meanwhile. The lock's file stays: removed, it would be two."""
        path = self.folder / f".{content_id}{LOCK}"
        with disk_errors(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Return a descriptor of a file with a shared lock on it. Raises OSError if that file is gone, or just going."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
