"""What is to be prepared, and the steps of it, each a pure function of a part: they can be done anywhere."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from peer.corpus.mixture import Mixture
from peer.corpus.tokenizer import Vocabulary
from peer.prepare.cleaning import Filter
from peer.prepare.domains import assign, read_passages
from peer.prepare.encode import Staying, encode_part, sample_part, staying
from peer.prepare.fates import DROPPED, TRAIN, PartFates, all_trained
from peer.prepare.plan import Plan
from peer.prepare.survey import Chunk, Part, PartSurvey, Read, Reader, Sieve, survey_chunk
from peer.sources.documents import Reading, SourceFile, text_of
from peer.sources.skips import Skips

MOST = (1 << 64) - 1  # the highest hash


@dataclass(frozen=True)
class Job:
    """Text to be prepared: the files, how they are read, and by what."""

    files: tuple[SourceFile, ...]
    how: Reading
    plan: Plan
    read: Read
    part_bytes: int
    skips: Skips  # what the listing passed over
    listed: tuple[tuple[str, str], ...] = ()  # the decontamination list: file, text

    @cached_property
    def sieve(self) -> Sieve:
        """What the survey looks at besides."""
        cleaning = self.plan.cleaning
        return Sieve(Filter(cleaning, self.listed) if cleaning.is_filtering else None, cleaning.near is not None)

    @cached_property
    def reader(self) -> Reader:
        """What reads parts for all steps after the survey."""
        return Reader(self.files, self.how, self.read)

    def survey(self, chunk: Chunk) -> bytes:
        """Return what is in a chunk: its parts, as `PartSurvey.list_to_bytes` writes them."""
        found = survey_chunk(self.files, chunk, self.how, self.sieve, self.part_bytes, self.read)
        return PartSurvey.list_to_bytes(list(found))

    def staying(self, part: Part, decided: PartFates) -> Iterator[Staying]:
        """Yield the pieces of a part that are in the corpus."""
        return staying(self.reader.pieces(part), decided)

    def sample(self, lowest: Sequence[int], item: tuple[PartSurvey, PartFates]) -> bytes:
        """Return the texts of a part that a tokenizer is trained on, as a JSON list."""
        survey, decided = item
        texts = list(sample_part(self.reader.pieces(survey.part), survey, decided, lowest))
        return json.dumps(texts, ensure_ascii=False).encode()

    def encode(self, vocabulary: Vocabulary, item: tuple[Part, PartFates]) -> bytes:
        """Return the tokens of a part, as `encode_part` writes them."""
        return encode_part(self.staying(*item), vocabulary, self.plan.format())

    def tokens(self, vocabulary: Vocabulary, lowest: int, survey: PartSurvey) -> bytes:
        """Return the tokens of the passages of a part with hashes from `lowest` on, after their lengths."""
        is_chosen = (survey.hashes >= np.uint64(min(lowest, MOST))) & (survey.verdicts == 0)
        decided = PartFates(np.where(is_chosen, TRAIN, DROPPED).astype(np.uint8), survey.domains, is_chosen)
        found = list(read_passages(self._texts(survey, decided), vocabulary)) if is_chosen.any() else []
        lengths = np.concatenate([np.empty(0, dtype=np.int64), *(each.lengths for each in found)])
        values = np.concatenate([np.empty(0, dtype=np.int64), *(each.tokens for each in found)])
        return np.concatenate([[len(lengths)], lengths, values]).astype("<i8").tobytes()

    def assign(self, vocabulary: Vocabulary, mixture: Mixture, survey: PartSurvey) -> bytes:
        """Return where the passages of a part belong, as `Assigned.to_bytes` writes it."""
        return assign(self._texts(survey, all_trained(survey)), mixture, vocabulary).to_bytes()

    def score(self, vocabulary: Vocabulary, unigrams: NDArray[np.float64], survey: PartSurvey) -> bytes:
        """Return how likely the passages of a part are in each known domain: lengths (N,), then scores (N, K)."""
        found = list(read_passages(self._texts(survey, all_trained(survey)), vocabulary))
        lengths = np.concatenate([np.empty(0), *(each.lengths for each in found)])
        scores = np.concatenate([np.empty((0, len(unigrams))), *(each.scores(unigrams) for each in found)])
        return np.concatenate([lengths[:, None], scores], axis=1).astype("<f8").tobytes()

    def _texts(self, survey: PartSurvey, decided: PartFates) -> Iterator[str]:
        return (text_of(each.content) for each in self.staying(survey.part, decided))


def passages_of(raw: bytes) -> list[NDArray[np.int64]]:
    """Read what `Job.tokens` returned."""
    values = np.frombuffer(raw, dtype="<i8")
    count = int(values[0])
    return np.split(values[1 + count :], np.cumsum(values[1 : 1 + count])[:-1]) if count else []
