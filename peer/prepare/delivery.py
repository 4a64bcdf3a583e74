"""Brings a corpus to a store: made on this machine as any other, then written to a URL that fsspec knows.

It is made in a folder of the user's cache that is named by a hash of the URL, and stays there until all of it is in the
store. So a run that was killed goes on there, and one that could not write goes on with what is not written yet.
`corpus.json` comes last: until then nobody takes for a corpus what is not a whole one.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from configs.errors import DataError, NetworkError, ShoalError, UsageError
from configs.files import disk_errors, read_json, write_json
from peer.corpus.data import BLOBS, CORPUS_FILE, TOKENIZER_FILE, open_corpus
from peer.corpus.stores import KEYS, PIECE_BYTES, REFUSALS, filesystem_of
from peer.prepare.assemble import Lost
from peer.prepare.engine import Engine, Prepared, fingerprint
from peer.prepare.job import Job
from peer.prepare.kept import Workers
from peer.sources.documents import Progress
from peer.sources.skips import Skips

REPORT_FILE = "report.json"  # beside the corpus: whose it is, and what is said of it in the end
READ_ONLY = ("http", "https")


class Delivery:
    """A corpus that is to lie at a URL. `folder` is where it is made, and lies until `forget`."""

    def __init__(self, url: str, cache: Path | None = None) -> None:
        """Open nothing yet but the client. Raises ConfigError: no such kind of store, or its library is not here."""
        self.url = url.rstrip("/")
        if urlsplit(url).scheme in READ_ONLY:
            raise UsageError(f"{self.url} cannot be written to; give a folder, or a URL such as s3://BUCKET/PATH")
        self._files, self._root = filesystem_of(self.url)
        work = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.folder = (cache or cache_folder()) / "prepared" / work / "corpus"

    def prepare(self, job: Job, progress: Progress, workers: Workers | None = None) -> Prepared:
        """Make the corpus, if the same was not made before, and write it to the store as far as it is not there.

        Raises as `engine.prepare`; DataError: the place is not empty; UsageError, NetworkError: it cannot be written
        to, and what was made is kept.
        """
        mark = fingerprint(job)
        prepared = self._made_before(mark)
        self._check_is_free(has_begun=prepared is not None)
        if prepared is None:
            with disk_errors(self.folder):
                shutil.rmtree(self.folder, ignore_errors=True)
                self._report.unlink(missing_ok=True)
            prepared = Engine(job, self.folder, progress, workers).run()
            write_json(self._report, {"fingerprint": mark, **_report(prepared)})
        self._write(progress)
        return prepared

    def forget(self) -> None:
        """Remove what was made on this machine."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    @property
    def _report(self) -> Path:
        return self.folder.parent / REPORT_FILE

    def _made_before(self, mark: str) -> Prepared | None:
        if not (self.folder / CORPUS_FILE).is_file():
            return None
        report = read_json(self._report)
        if report is None or report["fingerprint"] != mark:
            return None
        return _reported(self.folder, report)

    def _check_is_free(self, has_begun: bool) -> None:
        """Raise DataError if there are files in the place that are none of the corpus that was begun there."""
        with self._told("looked at", is_kept=has_begun):
            there = self._there()
            if CORPUS_FILE in there:
                with self._files.open(f"{self._root}/{CORPUS_FILE}", "rb") as file:
                    begun = file.read()
                # Ours, or the beginning of it that a kill has left.
                has_begun = has_begun and (self.folder / CORPUS_FILE).read_bytes().startswith(begun)
        own = self._own() if has_begun else {}
        if foreign := sorted(there.keys() - own.keys()):
            raise DataError(f"{self.url} is not empty: there is {foreign[0]}; choose another place or delete it")

    def _own(self) -> dict[str, int]:
        """Return the names of the corpus' files in the order in which they are written, with their sizes."""
        blobs = sorted(f"{BLOBS}/{path.name}" for path in (self.folder / BLOBS).iterdir())
        return {name: (self.folder / name).stat().st_size for name in (*blobs, TOKENIZER_FILE, CORPUS_FILE)}

    def _there(self) -> dict[str, int]:
        """Return the names of all files in the place, with their sizes; folders that no corpus has end in a slash."""
        self._files.invalidate_cache()
        found: dict[str, int] = {}
        for entry in self._listed(self._root):
            name = _name(entry)
            if entry["type"] != "directory":
                found[name] = entry["size"]
            elif name == BLOBS:
                blobs = self._listed(f"{self._root}/{BLOBS}")
                found |= {f"{BLOBS}/{_name(blob)}": blob["size"] for blob in blobs}
            else:
                found[f"{name}/"] = 0
        return found

    def _listed(self, folder: str) -> list[Mapping[str, Any]]:
        try:
            entries: list[Mapping[str, Any]] = self._files.ls(folder, detail=True)
        except FileNotFoundError:
            return []
        marks = {folder.strip("/"), ""}  # some stores have an object that stands for the folder itself
        return [each for each in entries if each["type"] != "directory" or each["name"].strip("/") not in marks]

    def _write(self, progress: Progress) -> None:
        """Write what is not there yet. What a kill cut off has another size, and is written again."""
        own, done = self._own(), 0
        total = sum(own.values())
        with self._told("written to", is_kept=True):
            if urlsplit(self.url).scheme != "s3":  # which has no folders, and would make a bucket
                self._files.makedirs(f"{self._root}/{BLOBS}", exist_ok=True)
            there = self._there()
            for name, size_bytes in own.items():
                if name == CORPUS_FILE:
                    self._check_is_there({each: size for each, size in own.items() if each != CORPUS_FILE})
                if there.get(name) != size_bytes or not name.startswith(BLOBS):
                    self._put(name)
                done += size_bytes
                progress("writing to the store", done, total)

    def _put(self, name: str) -> None:
        with (self.folder / name).open("rb") as source, self._files.open(f"{self._root}/{name}", "wb") as target:
            while piece := source.read(PIECE_BYTES):
                target.write(piece)

    def _check_is_there(self, own: Mapping[str, int]) -> None:
        there = self._there()
        if lost := [name for name, size_bytes in own.items() if there.get(name) != size_bytes]:
            raise OSError(f"{lost[0]} was written and is not there as it was")

    @contextmanager
    def _told(self, what: str, is_kept: bool) -> Iterator[None]:
        """Turn what the client raises into one line with a remedy."""
        kept = f"; the corpus is kept in {self.folder}, and the same command then only writes it" if is_kept else ""
        try:
            yield
        except ShoalError:
            raise
        except Exception as error:  # each client has errors of its own
            said = " ".join(str(error).split())[:300] or type(error).__name__
            is_refused = isinstance(error, PermissionError) or any(word in said for word in (*REFUSALS, "redential"))
            if is_refused:
                keys = KEYS.get(urlsplit(self.url).scheme, "as is usual for such a store")
                raise UsageError(f"{self.url} may not be {what} ({said}); give a key that may: {keys}{kept}") from None
            raise NetworkError(
                f"{self.url} cannot be {what}: {said}; see whether the place is there, the store up, and the network"
                f"{kept}"
            ) from None


def cache_folder() -> Path:
    """Return where this user's programs keep what they can make again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shoal"


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).rstrip("/").rpartition("/")[2]


def _report(prepared: Prepared) -> dict[str, Any]:
    """Return what `_reported` reads, but for what is in the corpus."""
    return {
        "skipped": prepared.skips.as_dict(),
        "held_out_by": prepared.held_out_by,
        "lost": {name: lost._asdict() for name, lost in prepared.lost.items()},
    }


def _reported(folder: Path, report: Mapping[str, Any]) -> Prepared:
    lost = {name: Lost(**values) for name, values in report["lost"].items()}
    return Prepared(open_corpus(folder).info, Skips.from_dict(report["skipped"]), report["held_out_by"], lost)
