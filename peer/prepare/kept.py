"""What a preparation has done so far: a folder beside the corpus, each result in a file, which is whole or absent."""

import fcntl
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from configs.errors import StateError
from configs.files import write_file

FINGERPRINT = "fingerprint"


Item = TypeVar("Item")


class Workers(Protocol):
    """Whoever does the steps. A step is a pure function that can be sent to another process, as can its items."""

    def run(self, step: Callable[[Item], bytes], items: Sequence[Item]) -> Iterator[bytes]:
        """Yield what the step makes of each item, in their order."""
        ...


class Here:
    """This process, one item after the other."""

    def run(self, step: Callable[[Item], bytes], items: Sequence[Item]) -> Iterator[bytes]:
        """Yield what the step makes of each item, in their order."""
        return map(step, items)


class Kept:
    """The results of one job, which its `fingerprint` tells from others."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self._fingerprint = fingerprint

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Begin, or go on where the same job was. Raises StateError: another process works at it."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self.folder.with_suffix(".lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateError(
                    f"another process prepares {self.folder.name[1:].removesuffix('.unfinished')} at this moment; "
                    "wait for it, or choose another place"
                ) from None
            try:
                mark = self.folder / FINGERPRINT
                if not mark.is_file() or mark.read_text() != self._fingerprint:
                    self.remove()
                    self.folder.mkdir()
                    write_file(mark, self._fingerprint.encode())
                self._begin_anew("corpus", "scratch")
                yield
            finally:
                self.folder.with_suffix(".lock").unlink(missing_ok=True)

    def result(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Return the result of that name; make it if it is not there."""
        if not self.has(name):
            write_file(self.folder / name, make())
        return self._read(name)

    def results(
        self, name: str, workers: "Workers", step: Callable[[Item], bytes], items: Sequence[Item]
    ) -> Iterator[bytes]:
        """Yield the result of each item, in their order; those that are not there are made by the workers."""
        missing = [at for at in range(len(items)) if not self.has(f"{name}.{at}")]
        made = zip(missing, workers.run(step, [items[at] for at in missing]), strict=True)
        ahead = next(made, None)
        for at in range(len(items)):
            if ahead is not None and ahead[0] == at:
                write_file(self.folder / f"{name}.{at}", ahead[1])
                yield ahead[1]
                ahead = next(made, None)
            else:
                yield self._read(f"{name}.{at}")

    def has(self, name: str) -> bool:
        """Whether that result is there."""
        return (self.folder / name).exists()

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def remove(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _begin_anew(self, *names: str) -> None:
        for name in names:
            shutil.rmtree(self.folder / name, ignore_errors=True)
