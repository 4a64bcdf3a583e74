"""How a corpus is to be prepared: all that is asked for, checked before any text is read."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from configs.corpus import DEFAULT_PROMPT, INPUT, MAX_DOMAINS, ChatFormat, TaskFormat
from configs.errors import DataError
from peer.corpus.chats import form_of
from peer.corpus.mixture import Add
from peer.corpus.tokenizer import MAX_VOCABULARY, Vocabulary, read_tokenizer
from peer.prepare.cleaning import Cleaning
from peer.sources.documents import End

DEFAULT_VOCABULARY = 32_000

# Meets the others who find domains together, all with this vocabulary, and adds up with them as long as it is held.
Together = Callable[[Vocabulary], AbstractContextManager[Add]]
# Characters of a passage, at most, about a thousand tokens: a long document is no unit that belongs to one domain.
PASSAGE_CHARACTERS = 4096


@dataclass(frozen=True)
class Plan:
    """How to prepare a corpus."""

    vocab_size: int | None = None  # None: DEFAULT_VOCABULARY, or that of the given tokenizer
    tokenizer: Path | None = None  # a tokenizer.json or a folder that has one; None: train one
    tokenizer_bytes: int = 32 << 20  # of text that a tokenizer is trained on, from all domains alike
    context_length: int = 128  # each domain must fill one window; examples are cut to it
    prompt: str = DEFAULT_PROMPT  # of tasks: what a model reads before it answers
    chat: ChatFormat | None = None  # how turns are written; None: inputs stand in the prompt, and there are no chats
    keep: End = "end"  # which end stays of an input that is too long
    heldout_share: float = 0.05  # of the text of each domain, where no split says what is held out
    max_bad: float = 0.01  # of the text, that may be of no use without stopping everything
    cleaning: Cleaning = field(default_factory=Cleaning)
    shard_tokens: int = 4 << 20  # larger where a domain would have more than MAX_SHARDS
    is_private: bool = False
    counts_noise: float | None = None  # of the unigram counts, in COUNTED_TOKENS; None: they are exact
    domains: int | None = None  # to find in text whose own domains do not count; None: those that the sources name
    seed: int = 0  # of the search for them
    together: Together | None = None  # with whom they are found; None: in this text alone
    known: Mapping[str, np.ndarray] | None = None  # domains to sort the text into instead: name → unigram counts

    @property
    def is_pooled(self) -> bool:
        """Whether the domains that the sources name do not count."""
        return self.domains is not None or self.known is not None

    @property
    def passage_characters(self) -> int:
        """Characters of what belongs to one domain, where domains are found: a window at least."""
        return max(PASSAGE_CHARACTERS, 4 * self.context_length)

    def format(self) -> TaskFormat:
        """Return the format of tasks."""
        prompt = self.prompt if self.chat is None else INPUT
        return TaskFormat(prompt=prompt, window=self.context_length, chat=self.chat, keep=self.keep)

    def given_vocabulary(self) -> Vocabulary | None:
        """Read the tokenizer that was given, or return None if one is to be trained. Raises DataError."""
        if self.tokenizer is None:
            return None
        return read_tokenizer(self.tokenizer, self.vocab_size, form_of(self.format()).special)

    def check(self) -> None:
        """Raise DataError when an option makes no sense."""
        if self.vocab_size is not None and not 258 <= self.vocab_size <= MAX_VOCABULARY:
            raise DataError(
                f"a vocabulary of {self.vocab_size} tokens is not possible; choose from 258 to {MAX_VOCABULARY}"
            )
        if not 0 < self.heldout_share < 0.5:
            raise DataError(f"a held-out share of {self.heldout_share} is not possible; choose one between 0 and 0.5")
        if self.context_length < 1 or self.shard_tokens <= self.context_length:
            raise DataError(
                f"shards of {self.shard_tokens} tokens do not hold a window of {self.context_length}; make them longer"
            )
        self.cleaning.check()
        if not 0 <= self.max_bad <= 1:
            raise DataError(f"a share of {self.max_bad} is not possible for what is of no use; choose one from 0 to 1")
        if self.counts_noise is not None and not 0 < self.counts_noise <= 1e6:
            raise DataError(f"a noise of {self.counts_noise} is not possible; choose one between 0 and 1,000,000")
        if self.domains is not None and not 1 <= self.domains <= MAX_DOMAINS:
            raise DataError(f"{self.domains} domains are not possible; choose from 1 to {MAX_DOMAINS}")
        try:
            self.format()
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise DataError(
                f"the prompt format {self.prompt[:80]!r} is not possible: {reason}; such as '{INPUT} =>'"
            ) from None
