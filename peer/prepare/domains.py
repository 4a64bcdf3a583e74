"""Finds domains in text that names none: cuts it into passages and gives each to one of K clusters (mixture.py).

The clusters are fitted on a sample that fits into memory and has nothing that is held out; then all passages are read
once more and assigned. What stays in memory of the rest is a byte a passage. Where the domains are those of a run, each
passage goes to the one whose unigram counts, which the run publishes, it is likeliest under: so text is sorted alike on
every machine and stays where it is.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from peer.corpus.data import Corpus
from peer.corpus.mixture import Mixture, Passages, fit, log_unigrams_of
from peer.corpus.tokenizer import Vocabulary, read_tokenizer
from peer.prepare.documents import BATCH_CHARACTERS, Progress, hash_of

SAMPLE_BYTES = 16 << 20  # bytes of text that clusters are fitted on: some 5 M tokens, 200 MB meanwhile
PASSAGES, WINDOWS = 4, 8  # what a known domain needs of a text, for a part of it to be held out
SHORTEST_WORD = 3  # letters of a typical word, at least; shorter ones name nothing


Texts = Callable[[], Iterator[str]]  # yields the passages from the start, at each call


@dataclass(frozen=True)
class Search:
    """How many domains to find, and in what."""

    domains: int
    seed: int
    size_bytes: int  # of the text
    lowest: int  # hash of a passage that is not held out; nothing is fitted on those below


def find_domains(passages: Texts, search: Search, vocabulary: Vocabulary, progress: Progress) -> NDArray[np.uint8]:
    """Return the domain of each passage, (N,): 0 is that of the first one, and so on.

    Equal passages are in one domain. The same passages, vocabulary and search give the same domains.
    Raises DataError: there are too few passages, or they are too much alike.
    """
    sample = _sample(passages, search, vocabulary)
    if len(sample) < 2 * search.domains:
        raise DataError(
            f"{search.domains} domains need at least {2 * search.domains} documents to train on and there are "
            f"{len(sample)}; lower --domains, give more text, or separate its documents (by blank lines in text files)"
        )
    progress("finding domains", 0, search.size_bytes)
    mixture = fit(Passages.of(sample), (search.domains, vocabulary.size), search.seed)
    clusters = _assign(passages, search, mixture, vocabulary, progress)
    found, counts = np.unique(clusters, return_counts=True)
    if len(found) < search.domains or counts.min() < 2:
        raise DataError(
            f"the text is too much alike for {search.domains} domains: only {int((counts > 1).sum())} have two "
            "documents or more; lower --domains or give more text"
        )
    return clusters


def sort_into(
    passages: Texts,
    known: Mapping[str, NDArray[np.uint64]],
    context_length: int,
    size_bytes: int,
    vocabulary: Vocabulary,
    progress: Progress,
) -> NDArray[np.uint8]:
    """Return in which `known` domain (name → unigram counts (V,)) each passage is likeliest, (N,).

    Domains that get fewer than PASSAGES passages or WINDOWS windows are left out. `size_bytes` are those of the text.
    Raises DataError: the text is too short for any domain.
    """
    unigrams = log_unigrams_of(np.stack([counts.astype(np.int64) for counts in known.values()]))
    reading = _read(passages, vocabulary, partial(progress, "sorting into domains"), size_bytes)
    read = [(each.scores(unigrams), each.lengths) for each in reading]
    scores, lengths = (np.concatenate(parts) for parts in zip(*read, strict=True))
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


def _sample(passages: Texts, search: Search, vocabulary: Vocabulary) -> list[NDArray[np.integer]]:
    """Return the tokens of about SAMPLE_BYTES, chosen by hashes."""
    lowest = max(search.lowest, round((1 - min(1.0, SAMPLE_BYTES / search.size_bytes)) * 2**64))
    chosen = (passage for passage in passages() if hash_of(passage) >= lowest)
    return [tokens for batch in _batches(chosen) for tokens in vocabulary.encode(batch)]


def _assign(
    passages: Texts, search: Search, mixture: Mixture, vocabulary: Vocabulary, progress: Progress
) -> NDArray[np.uint8]:
    """Return the cluster of each passage, numbered in the order in which they come."""
    reading = _read(passages, vocabulary, partial(progress, "finding domains"), search.size_bytes)
    found = [mixture.assign(each).astype(np.uint8) for each in reading]
    clusters = np.concatenate(found)
    names, firsts = np.unique(clusters, return_index=True)
    ranks = np.zeros(search.domains, dtype=np.uint8)
    ranks[names[np.argsort(firsts)]] = np.arange(len(names))
    return ranks[clusters]


def _read(
    passages: Texts, vocabulary: Vocabulary, progress: Callable[[int, int], None], size_bytes: int
) -> Iterator[Passages]:
    """Yield the tokens of all passages, some at a time, in their order."""
    done = 0
    for batch in _batches(passages()):
        yield Passages.of(vocabulary.encode(batch))
        done += sum(len(text.encode()) for text in batch)
        progress(done, size_bytes)


def _batches(passages: Iterator[str]) -> Iterator[list[str]]:
    """Yield passages in lists of about BATCH_CHARACTERS."""
    batch: list[str] = []
    characters = 0
    for passage in passages:
        batch.append(passage)
        characters += len(passage)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
