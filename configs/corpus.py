"""What a prepared corpus consists of: domains, and blobs that are named by their content.

These models travel between peers, so everything in them is bounded. The files themselves are `peer/corpus/data.py`'s.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from configs.names import Count, Digest, DomainName, Positive
from configs.run import Frozen

MAX_SHARDS = 256  # of one domain
MAX_DOMAINS = 64
INPUT = "{input}"
DEFAULT_PROMPT = INPUT + "\n\n###\n"  # a mark that text seldom has says that the answer begins

ChatFormat = Literal["chatml", "llama3", "mistral", "gemma", "plain"]  # peer/corpus/chats.py


class ShardInfo(Frozen):
    """One blob of a corpus: the file `blobs/<content_id>`."""

    content_id: Digest  # configs/content.py
    tokens: Count  # that it holds or, for unigram counts, that were counted; for a task's held-out part, examples
    size_bytes: Count


class TaskFormat(Frozen):
    """How an example becomes tokens: what a model reads before it answers, and in which windows it was trained."""

    prompt: Annotated[str, Field(max_length=1024)]
    window: Positive  # tokens that hold an example, its end mark included
    # How turns are written; None: as the prompt says, of which there is one. Left out of what is written when None.
    chat: Annotated[ChatFormat | None, Field(exclude_if=lambda value: value is None)] = None
    # Which end stays of an input that is too long. Left out of what is written when it is the usual one.
    keep: Annotated[Literal["start", "end"], Field(exclude_if=lambda value: value == "end")] = "end"

    @property
    def option(self) -> str:
        """What `shoal prepare` is told to write examples like this."""
        told = f"--chat-format {self.chat}" if self.chat else f"--prompt-format {self.prompt!r}"
        return told if self.keep == "end" else f"{told} --keep {self.keep}"

    @field_validator("prompt")
    @classmethod
    def _has_one_input(cls, prompt: str) -> str:
        if prompt.count(INPUT) != 1:
            raise ValueError(f"it must have {INPUT} in it once")
        return prompt


class TaskInfo(Frozen):
    """What a domain of examples, inputs with their targets, was made of."""

    format: TaskFormat
    examples: Count  # to train on
    cut: Count  # of these, inputs that lost their beginning, or their end if `keep` says so, for the target to fit
    left_out: Count  # examples whose target leaves no room for an input


class DomainInfo(Frozen):
    """A part of the corpus that belongs together, cut into shards."""

    name: DomainName
    shards: Annotated[tuple[ShardInfo, ...], Field(min_length=1, max_length=MAX_SHARDS)]
    heldout: ShardInfo  # never trained on
    counts: ShardInfo  # unigram counts of the shards: little-endian uint64, one for each token of the vocabulary
    is_public: bool  # whether the swarm may serve shards and held-out tokens; of a private domain only counts travel
    task: TaskInfo | None = None  # None: a domain of text. Of a task, `heldout` is JSON lines: its scores need the text

    @property
    def tokens(self) -> int:
        """Tokens to train on."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def task_format(self) -> TaskFormat | None:
        """How its examples become tokens; None for text."""
        return None if self.task is None else self.task.format


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
        if len({domain.task_format for domain in self.domains} - {None}) > 1:
            raise ValueError("two domains have different task formats")
        return self

    @property
    def task_format(self) -> TaskFormat | None:
        """The format of all domains that are tasks; None if none is."""
        return common_format(self.domains)


def common_format(domains: Iterable[DomainInfo]) -> TaskFormat | None:
    """Return the format of those domains that are tasks; a run has one."""
    return next((domain.task_format for domain in domains if domain.task_format is not None), None)
