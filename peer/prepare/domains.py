"""Finds domains in text that names none: passages of it go to one of K clusters each (mixture.py).

The clusters are fitted on a sample that fits into memory and has nothing that is held out; then all passages are read
once more and assigned, part by part. What stays in memory of the rest is a byte a passage. Several machines do that
together, each with its own text, by what they give each other through `Search.together`: sums. Where the domains are
those of a run, each passage goes to the one whose unigram counts, which the run publishes, it is likeliest under.
Either way text is sorted alike on every machine and stays where it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from peer.corpus.data import Corpus, Tokens
from peer.corpus.mixture import (
    FEW_PASSAGES,
    SHORT_PART,
    Mixture,
    Passages,
    alone,
    fit,
    halves_of,
    log_unigrams_of,
    whole_of,
)
from peer.corpus.tokenizer import Vocabulary, read_tokenizer
from peer.prepare.plan import Together
from peer.sources.documents import batches

SAMPLE_BYTES = 16 << 20  # bytes of text that clusters are fitted on: some 5 M tokens, 200 MB meanwhile
PASSAGES, WINDOWS = 4, 8  # what a domain needs of a text, where others have it too, for a part of it to be held out
SHORTEST_WORD = 3  # letters of a typical word, at least; shorter ones name nothing

Sample = Callable[[int], Sequence[Tokens]]  # returns the tokens of the passages with hashes from this on


@dataclass(frozen=True)
class Search:
    """How many domains to find, and in what."""

    domains: int
    seed: int
    size_bytes: int  # of the text
    lowest: int  # hash of a passage that is not held out; nothing is fitted on those below
    together: Together | None = None  # with whom; None: nobody


@dataclass(frozen=True)
class Assigned:
    """Where the passages of a part belong."""

    clusters: NDArray[np.uint8]  # (N,)
    counts: NDArray[np.int64]  # (K,), passages of each cluster
    tokens: NDArray[np.int64]  # (K,)

    def to_bytes(self) -> bytes:
        """Write it down; `from_bytes` reads it."""
        return np.concatenate([self.counts, self.tokens]).astype("<i8").tobytes() + self.clusters.tobytes()

    @classmethod
    def from_bytes(cls, raw: bytes, num_clusters: int) -> "Assigned":
        """Read what `to_bytes` wrote."""
        counts, tokens = np.frombuffer(raw, dtype="<i8", count=2 * num_clusters).reshape(2, num_clusters)
        return cls(np.frombuffer(raw, dtype=np.uint8, offset=16 * num_clusters), counts, tokens)


def fitted(sample: Sample, search: Search, vocabulary: Vocabulary) -> Mixture:
    """Fit a mixture on a sample of the text: of this place, or of all that are together.

    The same passages, vocabulary and search give the same mixture, in one place or in several. Raises DataError: there
    are too few passages; and what `together` raises.
    """
    with nullcontext(alone) if search.together is None else search.together(vocabulary) as add:
        size_bytes = max(1, whole_of(add(np.array(halves_of(search.size_bytes)))))
        chosen = sample(max(search.lowest, round((1 - min(1.0, SAMPLE_BYTES / size_bytes)) * 2**64)))
        count = int(add(np.array([len(chosen)]))[0])
        if search.together is not None and (count < FEW_PASSAGES * SHORT_PART or not chosen):
            raise DataError(
                f"all of you have {count:,} passages to find domains in, and here are {len(chosen):,} of them; there "
                f"must be {FEW_PASSAGES * SHORT_PART} together, for single ones to be hidden, and one here: "
                "give more text"
            )
        if count < 2 * search.domains:
            raise DataError(
                f"{search.domains} domains need at least {2 * search.domains} documents to train on and there are "
                f"{count}; lower --domains, give more text, or separate its documents (by blank lines in text files)"
            )
        return fit(Passages.of(chosen), (search.domains, vocabulary.size), search.seed, add)


def assign(passages: Iterator[str], mixture: Mixture, vocabulary: Vocabulary) -> Assigned:
    """Say where the passages of a part belong."""
    clusters = [np.empty(0, dtype=np.uint8)]
    counts, tokens = np.zeros((2, len(mixture.prices)), dtype=np.int64)
    for each in read_passages(passages, vocabulary):
        found = mixture.assign(each)
        clusters.append(found.astype(np.uint8))
        counts += np.bincount(found, minlength=len(counts))
        tokens += np.bincount(found, each.lengths, minlength=len(counts)).astype(np.int64)
    return Assigned(np.concatenate(clusters), counts, tokens)


def check_alone(counts: NDArray[np.int64]) -> None:
    """Raise DataError unless each cluster, (K,), has passages to train on and to hold out."""
    if counts.min() < 2:
        raise DataError(
            f"the text is too much alike for {len(counts)} domains: only {int((counts > 1).sum())} have two "
            "documents or more; lower --domains or give more text"
        )


def too_small(counts: NDArray[np.int64], tokens: NDArray[np.int64], enough_tokens: int) -> NDArray[np.bool_]:
    """Return which clusters, (K,), get too little of this text, where others have more of them; they are left out here.

    Raises DataError: that is all of them.
    """
    is_small = (counts > 0) & ((counts < PASSAGES) | (tokens < enough_tokens))
    if is_small.any() and is_small[counts > 0].all():
        is_small[np.argmax(tokens)] = False
        if not is_small.any():
            raise DataError(
                f"the text is too short for any of the domains: each needs {PASSAGES} passages and {enough_tokens} "
                "tokens; give more text"
            )
    return is_small


def sort_into(
    known: Mapping[str, NDArray[np.uint64]],
    scores: NDArray[np.float64],
    lengths: NDArray[np.int64],
    context_length: int,
) -> NDArray[np.uint8]:
    """Return in which `known` domain (name → unigram counts (V,)) each passage is likeliest, (N,), by scores (N, K).

    Domains that get fewer than PASSAGES passages or WINDOWS windows are left out. Raises DataError: those are all.
    """
    clusters = enough(scores, lengths, WINDOWS * context_length)
    if clusters is None:
        raise DataError(
            f"the text is too short for any of the domains {', '.join(known)}: each needs {PASSAGES} passages and "
            f"{WINDOWS} windows of {context_length} tokens; give more text"
        )
    return clusters.astype(np.uint8)


def enough(scores: NDArray[np.float64], lengths: NDArray[np.int64], tokens: int) -> NDArray[np.int64] | None:
    """Return the likeliest domain of each passage, (N,), by scores (N, K); None if no domain gets enough.

    A domain has enough with PASSAGES passages and `tokens` tokens; while some have not, the smallest is left out.
    """
    open_ = list(range(scores.shape[1]))
    while open_:
        clusters: NDArray[np.int64] = np.asarray(open_)[np.argmax(scores[:, open_], axis=1)]
        counts = np.bincount(clusters, minlength=scores.shape[1])
        sizes = np.bincount(clusters, lengths, minlength=scores.shape[1])
        if all(counts[domain] >= PASSAGES and sizes[domain] >= tokens for domain in open_):
            return clusters
        open_.remove(min(open_, key=lambda domain: sizes[domain]))
    return None


def typical_words(corpus: Corpus, count: int = 6) -> dict[str, list[str]]:
    """Return the words that tell each domain from all others, those first that tell most of its text; to name it by."""
    tokenizer = read_tokenizer(corpus.path, corpus.info.vocab_size).tokenizer
    counts = np.stack([corpus.counts(domain).astype(np.int64) for domain in corpus.info.domains])
    shares, common = np.exp(log_unigrams_of(counts)), np.exp(log_unigrams_of(counts.sum(axis=0, keepdims=True)))
    found: dict[str, list[str]] = {}
    for domain, order in zip(corpus.info.domains, np.argsort(-shares * np.log(shares / common), axis=1), strict=True):
        texts = (tokenizer.decode([int(token)]) for token in order)
        words = (text[1:] for text in texts if text.startswith(" ") and len(text) > SHORTEST_WORD)
        found[domain.name] = list(islice(filter(str.isalpha, words), count))
    return found


def read_passages(passages: Iterator[str], vocabulary: Vocabulary) -> Iterator[Passages]:
    """Yield the tokens of passages, some at a time, in their order."""
    for batch in batches(passages, len):
        yield Passages.of(vocabulary.encode(batch))
