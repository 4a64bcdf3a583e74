"""Reading parts once more: the same pieces in any order, and a compressed file once where they follow each other."""

import gzip
import json
import pickle
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from peer.prepare.survey import Chunk, Part, PartSurvey, Reader, Sieve, pieces_of, survey_chunk
from peer.sources.documents import Piece, Reading, SourceFile
from peer.sources.listing import Listing, find_files
from peer.sources.reading import read
from peer.sources.skips import Skips

HOW = Reading(piece_characters=2000)
PARAGRAPH = "The shoal turns at once, and nobody has said where to. "


@pytest.fixture
def files(tmp_path: Path) -> tuple[SourceFile, ...]:
    texts = ["".join(PARAGRAPH for _ in range(1 + number % 90)) + str(number) for number in range(300)]
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n\n".join(texts).encode()))
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.html").write_text("<html><body><p>" + "</p><p>".join(texts) + "</p></body></html>")
    return tuple(find_files([str(tmp_path)], Listing(), Skips()))


def surveyed(files: tuple[SourceFile, ...]) -> list[PartSurvey]:
    return list(survey_chunk(files, Chunk(0, len(files)), HOW, Sieve(), 20_000, read))


def begun_anew(files: tuple[SourceFile, ...], part: Part) -> list[Piece]:
    return [piece for _, piece in islice(pieces_of(files, part, HOW, read, Skips()), part.count)]


def test_parts_that_follow_each_other_are_read_in_one_go(files: tuple[SourceFile, ...]) -> None:
    begun = []

    def counted(file: SourceFile, how: Reading, skips: Skips, since: int) -> Iterator[Piece]:
        begun.append((Path(file.url).name, since))
        yield from read(file, how, skips, since)

    surveys, reader = surveyed(files), Reader(files, HOW, counted)
    assert len(surveys) > 60
    for survey in surveys:
        assert list(reader.pieces(survey.part)) == begun_anew(files, survey.part)
    assert begun == [("a.txt.gz", 0), ("b.jsonl.gz", 0), ("c.html", 0)]


def test_parts_in_another_order_and_left_in_the_middle_are_the_same(files: tuple[SourceFile, ...]) -> None:
    surveys, reader = surveyed(files), Reader(files, HOW, read)
    chosen = random.Random(0).choices(surveys, k=30)
    for survey in [*chosen, surveys[3], surveys[4], surveys[-1], surveys[0], surveys[1]]:
        assert next(reader.pieces(survey.part)) == begun_anew(files, survey.part)[0]
        assert list(reader.pieces(survey.part)) == begun_anew(files, survey.part)


def test_a_reader_travels_to_another_process_without_what_it_has_open(files: tuple[SourceFile, ...]) -> None:
    surveys, reader = surveyed(files), Reader(files, HOW, read)
    list(reader.pieces(surveys[0].part))
    there = pickle.loads(pickle.dumps(reader))
    assert list(there.pieces(surveys[1].part)) == begun_anew(files, surveys[1].part)
