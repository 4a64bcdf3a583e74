"""What is to be prepared, and the steps of it, each a pure function of a part: they can be done anywhere."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from peer.corpus.tokenizer import Vocabulary
from peer.prepare.cleaning import Filter
from peer.prepare.documents import Reading, SourceFile
from peer.prepare.encode import Staying, encode_part, sample_part, staying
from peer.prepare.fates import PartFates
from peer.prepare.plan import Plan
from peer.prepare.skips import Skips
from peer.prepare.survey import Chunk, Part, PartSurvey, Read, Sieve, survey_chunk


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

    def survey(self, chunk: Chunk) -> bytes:
        """Return what is in a chunk: its parts, as `PartSurvey.list_to_bytes` writes them."""
        found = survey_chunk(self.files, chunk, self.how, self.sieve, self.part_bytes, self.read)
        return PartSurvey.list_to_bytes(list(found))

    def staying(self, part: Part, decided: PartFates) -> Iterator[Staying]:
        """Yield the pieces of a part that are in the corpus."""
        return staying(self.files, part, decided, self.how, self.read)

    def sample(self, lowest: Sequence[int], item: tuple[PartSurvey, PartFates]) -> bytes:
        """Return the texts of a part that a tokenizer is trained on, as a JSON list."""
        return json.dumps(list(sample_part(self.files, *item, lowest, self.how, self.read))).encode()

    def encode(self, vocabulary: Vocabulary, item: tuple[Part, PartFates]) -> bytes:
        """Return the tokens of a part, as `encode_part` writes them."""
        return encode_part(self.staying(*item), vocabulary, self.plan.format())
