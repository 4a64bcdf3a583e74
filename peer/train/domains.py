"""Finds domains in text that names none: cuts it into passages and gives each to one of K clusters (mixture.py).

The clusters are fitted on a sample that fits into memory and has nothing that is held out; then all passages are read
once more and assigned. What stays in memory of the rest is a byte a passage. Where the domains are those of a run, each
passage goes to the one whose unigram counts, which the run publishes, it is likeliest under: so text is sorted alike on
every machine and stays where it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from peer.train.data import Corpus
from peer.train.documents import Document, Documents, Progress, batches, cut_text, position_of, text_of
from peer.train.examples import Example
from peer.train.mixture import Mixture, Passages, fit, log_unigrams_of
from peer.train.tokenizer import Vocabulary, read_tokenizer

PASSAGE_CHARACTERS = 4096  # at most, about a thousand tokens: a long document is no unit that belongs to one domain
SAMPLE_CHARACTERS = 16 << 20  # that clusters are fitted on: some 5 M tokens, 200 MB while they are fitted
POOL = "all"
PASSAGES, WINDOWS = 4, 8  # that a known domain needs of a text, for a part of it to be held out
SHORTEST_WORD = 3  # letters; shorter ones name nothing


@dataclass(frozen=True)
class Search:
    """How many domains to find, and in what."""

    domains: int
    seed: int
    characters: int  # of the text
    heldout_share: float  # of the passages; nothing is fitted on these
    context_length: int  # tokens that each domain must fill
    known: Mapping[str, NDArray[np.uint64]] | None = None  # domain → unigram counts (V,); None: domains are found


def pool(documents: Documents, context_length: int) -> Documents:
    """Return the passages of all documents as one domain; each is a document from here on.

    They are at most PASSAGE_CHARACTERS long, or longer if a window of `context_length` tokens is. Reading them raises
    DataError where a document is an example of a task.
    """
    longest = max(PASSAGE_CHARACTERS, 4 * context_length)

    def passages() -> Iterator[tuple[str, Document]]:
        for domain, document in documents():
            if isinstance(document, Example):
                raise DataError(
                    f"'{domain}' is a task (examples with input and target), and domains are found in text alone; "
                    "prepare it without --domains, as a domain of its own"
                )
            for passage in cut_text(document, longest):
                yield POOL, passage

    return passages


def find_domains(passages: Documents, search: Search, vocabulary: Vocabulary, progress: Progress) -> Documents:
    """Return the same passages, each in its domain: `cluster.0` is that of the first passage, and so on.

    Those that are `known` keep their names. Equal passages are in one domain. The same passages, vocabulary and search
    give the same domains. Raises DataError: there are too few passages, or they are too much alike.
    """
    if search.known is not None:
        return _into_known(passages, search, search.known, vocabulary, progress)
    sample = _sample(passages, search, vocabulary)
    if len(sample) < 2 * search.domains:
        raise DataError(
            f"{search.domains} domains need at least {2 * search.domains} documents to train on and there are "
            f"{len(sample)}; lower --domains, give more text, or separate its documents (by blank lines in text files)"
        )
    progress("finding domains", 0, search.characters)
    mixture = fit(Passages.of(sample), (search.domains, vocabulary.size), search.seed)
    clusters = _assign(passages, search, mixture, vocabulary, progress)
    found, counts = np.unique(clusters, return_counts=True)
    if len(found) < search.domains or counts.min() < 2:
        raise DataError(
            f"the text is too much alike for {search.domains} domains: only {int((counts > 1).sum())} have two "
            "documents or more; lower --domains or give more text"
        )

    def in_domains() -> Iterator[tuple[str, Document]]:
        for cluster, (_, passage) in zip(clusters, passages(), strict=True):
            yield f"cluster.{cluster}", passage

    return in_domains


def _into_known(
    passages: Documents,
    search: Search,
    known: Mapping[str, NDArray[np.uint64]],
    vocabulary: Vocabulary,
    progress: Progress,
) -> Documents:
    """Give each passage to the known domain that it is likeliest in, of those that get enough of the text."""
    names, done = list(known), 0
    unigrams = log_unigrams_of(np.stack([counts.astype(np.int64) for counts in known.values()]))
    scores, lengths = [], []
    for batch in batches(passages()):
        texts = [text_of(passage) for _, passage in batch]
        laid_out = Passages.of(vocabulary.encode(texts))
        scores.append(laid_out.scores(unigrams))
        lengths.append(laid_out.lengths)
        done += sum(map(len, texts))
        progress("sorting into domains", done, search.characters)
    clusters = enough(np.concatenate(scores), np.concatenate(lengths), WINDOWS * search.context_length)
    if clusters is None:
        raise DataError(
            f"the text is too short for any of the domains {', '.join(names)}: each needs {PASSAGES} passages and "
            f"{WINDOWS} windows of {search.context_length} tokens; give more text"
        )

    def in_domains() -> Iterator[tuple[str, Document]]:
        for cluster, (_, passage) in zip(clusters, passages(), strict=True):
            yield names[cluster], passage

    return in_domains


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


def _sample(passages: Documents, search: Search, vocabulary: Vocabulary) -> list[NDArray[np.integer]]:
    """Return the tokens of about SAMPLE_CHARACTERS, chosen by hashes."""
    lowest = max(search.heldout_share, 1 - SAMPLE_CHARACTERS / search.characters)
    chosen = ((domain, passage) for domain, passage in passages() if position_of(passage) >= lowest)
    return [tokens for batch in batches(chosen) for tokens in vocabulary.encode([text_of(each) for _, each in batch])]


def _assign(
    passages: Documents, search: Search, mixture: Mixture, vocabulary: Vocabulary, progress: Progress
) -> NDArray[np.uint8]:
    """Return the cluster of each passage, numbered in the order in which they come."""
    found = []
    done = 0
    for batch in batches(passages()):
        texts = [text_of(passage) for _, passage in batch]
        found.append(mixture.assign(Passages.of(vocabulary.encode(texts))).astype(np.uint8))
        done += sum(map(len, texts))
        progress("finding domains", done, search.characters)
    clusters = np.concatenate(found)
    names, firsts = np.unique(clusters, return_index=True)
    ranks = np.zeros(search.domains, dtype=np.uint8)
    ranks[names[np.argsort(firsts)]] = np.arange(len(names))
    return ranks[clusters]
