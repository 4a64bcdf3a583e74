"""What a prepared corpus consists of: domains, and blobs that are named by their content.

These models travel between peers, so everything in them is bounded. The files themselves are `peer/train/data.py`'s.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from configs.run import Count, Frozen

MAX_SHARDS = 256  # of one domain
MAX_DOMAINS = 64

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
DomainName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^\w[\w.-]*$")]


class ShardInfo(Frozen):
    """One blob of a corpus: the file `blobs/<content_id>`."""

    content_id: Digest  # configs/content.py
    tokens: Count  # how many tokens it holds or, for unigram counts, how many it counted
    size_bytes: Count


class DomainInfo(Frozen):
    """A part of the corpus that belongs together, cut into shards."""

    name: DomainName
    shards: Annotated[tuple[ShardInfo, ...], Field(min_length=1, max_length=MAX_SHARDS)]
    heldout: ShardInfo  # never trained on
    counts: ShardInfo  # unigram counts of the shards: little-endian uint64, one for each token of the vocabulary
    is_public: bool  # whether the swarm may serve shards and held-out tokens; of a private domain only counts travel

    @property
    def tokens(self) -> int:
        """Tokens to train on."""
        return sum(shard.tokens for shard in self.shards)


class CorpusInfo(Frozen):
    """The `corpus.json` of a prepared corpus. Domains are ordered: sub-model k trains domain k."""

    tokenizer_sha256: Digest  # of the bytes of tokenizer.json
    vocab_size: Annotated[int, Field(ge=1, le=262_144)]
    end_of_text: Count  # the token after each document
    domains: Annotated[tuple[DomainInfo, ...], Field(min_length=1, max_length=MAX_DOMAINS)]

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [domain.name for domain in self.domains]
        if len(set(names)) < len(names):
            raise ValueError("two domains have the same name")
        if self.end_of_text >= self.vocab_size:
            raise ValueError(f"end_of_text {self.end_of_text} must be below vocab_size {self.vocab_size}")
        return self
