"""The first reading: what there is, piece by piece, as numbers that fit into memory where the text does not.

Files are surveyed in *chunks*, consecutive small files or one large one, and each gives *parts* of about as much text:
the unit in which text is tokenized, kept after a kill, and handed to other machines. What a survey says depends on the
files and the options alone.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peer.prepare.cleaning import Filter
from peer.prepare.duplicates import VALUES, Signature
from peer.sources.documents import (
    LEAST_PIECE_CHARACTERS,
    PIECE_CHARACTERS,
    Piece,
    Reading,
    SourceFile,
    hash_of,
    text_of,
)
from peer.sources.skips import Reason, Skips

PARTS = 256  # that a corpus is cut into, about: what a kill loses is half of one
LEAST_PART_BYTES, MOST_PART_BYTES = 1 << 18, 16 << 20  # of text in a part
LONGEST_BYTES = 32 << 20  # of a document that is not cut by the end of a part
PIECES_OF_DOMAIN = 64  # that the smallest domain should have, so that one in twenty can be held out

IS_FIRST, IS_LAST, IS_TASK, IS_HELDOUT = 1, 2, 4, 8  # flags of a piece

OF_TASKS = "\t"  # ends the name, in surveys, of a domain's examples: they are a domain of their own beside its text

Read = Callable[[SourceFile, Reading, Skips, int], Iterator[Piece]]
REASONS = tuple(Reason)  # a verdict is 0, or 1 and the place here of what drops a piece


@dataclass(frozen=True)
class Chunk:
    """Consecutive files: those from `start` up to `stop` of the listing."""

    start: int
    stop: int


@dataclass(frozen=True)
class Part:
    """Where a part begins, and how many pieces it has: those of the files of its chunk that follow."""

    file: int  # place in the listing
    mark: int
    chunk: Chunk
    count: int


@dataclass(frozen=True)
class Sieve:
    """What a survey looks at besides: whether single documents stay, and what tells which are nearly the same."""

    filter: Filter | None = None
    has_signatures: bool = False


@dataclass(frozen=True)
class PartSurvey:
    """What was found in a part. Arrays have an entry for each piece, N of them."""

    part: Part
    names: tuple[str, ...]  # of its domains; see OF_TASKS
    domains: NDArray[np.uint16]  # (N,), places in `names`
    hashes: NDArray[np.uint64]  # (N,)
    sizes: NDArray[np.uint32]  # (N,), bytes of UTF-8
    flags: NDArray[np.uint8]  # (N,)
    verdicts: NDArray[np.uint8]  # (N,)
    signatures: NDArray[np.uint32]  # (D, K), of the documents that end here; (0, K) where nobody looks for near ones
    skips: Skips  # of the whole chunk, in its last part

    def to_bytes(self) -> bytes:
        """Write it down; `from_bytes` reads it."""
        file, part = io.BytesIO(), self.part
        about = {
            "part": [part.file, part.mark, part.chunk.start, part.chunk.stop, part.count],
            "names": self.names,
            "skips": self.skips.as_dict(),
        }
        np.savez(
            file,
            about=np.frombuffer(json.dumps(about).encode(), dtype=np.uint8),
            domains=self.domains,
            hashes=self.hashes,
            sizes=self.sizes,
            flags=self.flags,
            verdicts=self.verdicts,
            signatures=self.signatures,
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "PartSurvey":
        """Read what `to_bytes` wrote."""
        with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
            file, mark, start, stop, count = about["part"]
            return cls(
                part=Part(file, mark, Chunk(start, stop), count),
                names=tuple(about["names"]),
                skips=Skips.from_dict(about["skips"]),
                **{key: arrays[key] for key in ("domains", "hashes", "sizes", "flags", "verdicts", "signatures")},
            )

    @classmethod
    def list_from_bytes(cls, raw: bytes) -> "list[PartSurvey]":
        """Read what `list_to_bytes` wrote."""
        lengths = np.frombuffer(raw[8:], dtype="<u8", count=int.from_bytes(raw[:8], "little"))
        ends = 8 + lengths.nbytes + np.cumsum(lengths, dtype=np.int64)
        return [cls.from_bytes(raw[end - int(length) : end]) for end, length in zip(ends, lengths, strict=True)]

    @staticmethod
    def list_to_bytes(surveys: "Sequence[PartSurvey]") -> bytes:
        """Write several down as one."""
        written = [survey.to_bytes() for survey in surveys]
        lengths = np.array([len(each) for each in written], dtype="<u8")
        return b"".join([len(written).to_bytes(8, "little"), lengths.tobytes(), *written])


def part_bytes_of(files: Sequence[SourceFile]) -> int:
    """Return how much text a part has, in bytes."""
    return min(MOST_PART_BYTES, max(LEAST_PART_BYTES, sum(file.size_bytes for file in files) // PARTS))


def piece_characters_of(files: Sequence[SourceFile]) -> int:
    """Return how long a piece is at most: so short that the smallest domain has enough of them."""
    sizes: dict[str, int] = {}
    for file in files:
        sizes[file.domain] = sizes.get(file.domain, 0) + file.size_bytes
    return min(PIECE_CHARACTERS, max(LEAST_PIECE_CHARACTERS, min(sizes.values()) // PIECES_OF_DOMAIN))


def chunks(files: Sequence[SourceFile], part_bytes: int) -> list[Chunk]:
    """Group consecutive files until they are as large as a part."""
    found, start, size_bytes = [], 0, 0
    for at, file in enumerate(files):
        if size_bytes and size_bytes + file.size_bytes > part_bytes:
            found.append(Chunk(start, at))
            start, size_bytes = at, 0
        size_bytes += file.size_bytes
    return [*found, Chunk(start, len(files))]


def pieces_of(
    files: Sequence[SourceFile], part: Part, how: Reading, read: Read, skips: Skips
) -> Iterator[tuple[int, Piece]]:
    """Yield the pieces from where `part` begins to the end of its chunk, each with the place of its file."""
    for at in range(part.file, part.chunk.stop):
        for piece in read(files[at], how, skips, part.mark if at == part.file else 0):
            yield at, piece


_NOTHING: tuple[None, Iterator[tuple[int, Piece]]] = (None, iter(()))  # is left where no part was read to its end


class Reader:
    """Reads parts once more, and of parts that follow each other each from where the one before ended.

    What is compressed, a page, or one long record can be passed over only by reading it. A reader that began anew for
    each part of a large file would read most of it hundreds of times.
    """

    def __init__(self, files: Sequence[SourceFile], how: Reading, read: Read) -> None:
        self._files, self._how, self._read = files, how, read
        # The piece that follows the last part that was read to its end, and what follows that.
        self._left: tuple[tuple[int, Piece] | None, Iterator[tuple[int, Piece]]] = _NOTHING

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_left": _NOTHING}

    def pieces(self, part: Part) -> Iterator[Piece]:
        """Yield the pieces of a part."""
        (found, rest), self._left = self._left, _NOTHING
        if found is None or (found[0], found[1].mark) != (part.file, part.mark):
            rest = pieces_of(self._files, part, self._how, self._read, Skips())
            found = next(rest, None)
        for _ in range(part.count):
            if found is None:
                return
            yield found[1]
            found = next(rest, None)
        self._left = found, rest


def survey_chunk(
    files: Sequence[SourceFile], chunk: Chunk, how: Reading, sieve: Sieve, part_bytes: int, read: Read
) -> Iterator[PartSurvey]:
    """Read a chunk and yield its parts; one at least, which may be without pieces."""
    notes, skips = _Notes(files, sieve), Skips()
    for at, piece in pieces_of(files, Part(chunk.start, 0, chunk, 0), how, read, skips):
        if notes.is_full(part_bytes):
            yield notes.part(chunk, Skips())
        notes.take(at, piece)
    yield notes.part(chunk, skips)


class _Notes:
    """What is found until a part is full. A verdict on a document is one on all its pieces in the part."""

    def __init__(self, files: Sequence[SourceFile], sieve: Sieve) -> None:
        self._files, self._sieve = files, sieve
        self._verdict, self._characters, self._is_open = 0, 0, False  # of the document that is being read
        self._signature = Signature()
        self._clear()

    def _clear(self) -> None:
        self._begin: tuple[int, int] | None = None
        self._names: dict[str, int] = {}
        self._digests: list[bytes] = []
        self._domains: list[int] = []
        self._sizes: list[int] = []
        self._flags: list[int] = []
        self._verdicts: list[int] = []
        self._signatures: list[NDArray[np.uint32]] = []
        self._of_document = 0  # pieces here of the document that is being read
        self._bytes = 0

    def is_full(self, part_bytes: int) -> bool:
        return self._bytes >= part_bytes and (not self._is_open or self._bytes >= LONGEST_BYTES)

    def take(self, at: int, piece: Piece) -> None:
        content, file = piece.content, self._files[at]
        if self._begin is None:
            self._begin = at, piece.mark
        if isinstance(content, str):
            raw, kind = content.encode(), 0
            self._digests.append(hashlib.sha256(raw).digest()[7::-1])
            size_bytes = len(raw)
        else:
            kind, size_bytes = IS_TASK, len(content.text.encode())
            self._digests.append(hash_of(content).to_bytes(8, "little"))
        self._flags.append(
            kind
            | (0 if self._is_open else IS_FIRST)
            | (IS_LAST if piece.is_last else 0)
            | (IS_HELDOUT if (piece.split or file.split) == "heldout" else 0)
        )
        self._sizes.append(size_bytes)
        self._bytes += size_bytes
        name = (piece.domain or file.domain) + (OF_TASKS if kind else "")
        self._domains.append(self._names.setdefault(name, len(self._names)))
        self._of_document = 1 + (self._of_document if self._is_open else 0)
        if self._sieve.filter is not None:
            self._sift(self._sieve.filter, text_of(content), piece.is_last)
        if self._sieve.has_signatures:
            self._sign(text_of(content), piece.is_last)
        self._is_open = not piece.is_last

    def _sift(self, sifting: Filter, text: str, is_last: bool) -> None:
        if not self._is_open:
            self._verdict, self._characters = 0, 0
            reason = sifting.verdict(text, is_whole=is_last)
        else:
            reason = sifting.of_list(text) if not self._verdict else None
        self._characters += len(text)
        if is_last and self._is_open and reason is None and not self._verdict:
            reason = sifting.of_length(self._characters)
        self._verdicts.append(self._verdict)
        if reason is not None:
            self._verdict = 1 + REASONS.index(reason)
            self._verdicts[-self._of_document :] = [self._verdict] * self._of_document

    def _sign(self, text: str, is_last: bool) -> None:
        self._signature.update(text)
        if is_last:
            self._signatures.append(self._signature.values)
            self._signature = Signature()

    def part(self, chunk: Chunk, skips: Skips) -> PartSurvey:
        """Return what was found, and begin the next part."""
        count = len(self._sizes)
        file, mark = self._begin or (chunk.start, 0)
        signatures = np.stack(self._signatures) if self._signatures else np.empty((0, VALUES), dtype=np.uint32)
        verdicts = self._verdicts or [0] * count
        found = PartSurvey(
            part=Part(file, mark, chunk, count),
            names=tuple(self._names),
            domains=np.array(self._domains, dtype=np.uint16),
            hashes=np.frombuffer(b"".join(self._digests), dtype="<u8").astype(np.uint64),
            sizes=np.array(self._sizes, dtype=np.uint32),
            flags=np.array(self._flags, dtype=np.uint8),
            verdicts=np.array(verdicts, dtype=np.uint8),
            signatures=signatures,
            skips=skips,
        )
        self._clear()
        return found


def with_domains(survey: PartSurvey, names: Sequence[str], domains: NDArray[np.integer]) -> PartSurvey:
    """Return the same with other domains, (N,) places in `names`; each piece is a document of its own."""
    flags = survey.flags | np.uint8(IS_FIRST | IS_LAST)
    return replace(survey, names=tuple(names), domains=domains.astype(np.uint16), flags=flags)
