"""Finds domains in text that names none: cuts it into passages and gives each to one of K clusters (mixture.py).

The clusters are fitted on a sample that fits into memory and has nothing that is held out; then all passages are read
once more and assigned. What stays in memory of the rest is a byte a passage. Several machines do that together, each
with its own text, by what they give each other through `Search.together`: sums. Where the domains are those of a run,
each passage goes to the one whose unigram counts, which the run publishes, it is likeliest under. Either way text is
sorted alike on every machine and stays where it is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from peer.corpus.data import Corpus
from peer.corpus.examples import Example
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
from peer.prepare.old_documents import Document, Documents, Progress, batches, cut_text, position_of, text_of
from peer.prepare.plan import Together

# Characters of a passage, at most, about a thousand tokens: a long document is no unit that belongs to one domain.
PASSAGE_CHARACTERS = 4096
SAMPLE_CHARACTERS = 16 << 20  # characters that clusters are fitted on: some 5 M tokens, 200 MB meanwhile
POOL = "all"
PASSAGES, WINDOWS = 4, 8  # what a known domain needs of a text, for a part of it to be held out
SHORTEST_WORD = 3  # letters of a typical word, at least; shorter ones name nothing


@dataclass(frozen=True)
class Search:
    """How many domains to find, and in what."""

    domains: int
    seed: int
    characters: int  # of the text
    heldout_share: float  # of the passages; nothing is fitted on these
    together: Together | None = None  # with whom; None: nobody
    enough_tokens: int = 0  # of a domain, for this text to have a part in it, where others have one


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
    """Return the same passages, each in its domain: `cluster.0` is the largest of the sample, and so on.

    Equal passages are in one domain. The same passages, vocabulary and search give the same domains, in one place or in
    several together; then one that gets too little of this text is left out here.
    Raises DataError: there are too few passages, or they are too much alike; and what `together` raises.
    """
    progress("finding domains", 0, search.characters)
    mixture = _fit(passages, search, vocabulary)
    clusters, counts, tokens = _assign(passages, search, mixture, vocabulary, progress)
    if search.together is not None:
        while (is_small := (counts > 0) & ((counts < PASSAGES) | (tokens < search.enough_tokens))).any():
            if is_small[counts > 0].all():
                is_small[np.argmax(tokens)] = False
                if is_small.sum() == 0:
                    raise DataError(
                        f"the text is too short for any of the domains: each needs {PASSAGES} passages and "
                        f"{search.enough_tokens} tokens; give more text"
                    )
            mixture = mixture.without(is_small | (counts == 0))
            clusters, counts, tokens = _assign(passages, search, mixture, vocabulary, progress)
    elif counts.min() < 2:
        raise DataError(
            f"the text is too much alike for {search.domains} domains: only {int((counts > 1).sum())} have two "
            "documents or more; lower --domains or give more text"
        )
    return _in_domains(passages, clusters, [f"cluster.{cluster}" for cluster in range(search.domains)])


def _fit(passages: Documents, search: Search, vocabulary: Vocabulary) -> Mixture:
    """Fit the mixture on a sample of the text: of this place, or of all that are together."""
    with nullcontext(alone) if search.together is None else search.together(vocabulary) as add:
        characters = whole_of(add(np.array(halves_of(search.characters))))
        sample = _sample(passages, max(search.heldout_share, 1 - SAMPLE_CHARACTERS / max(characters, 1)), vocabulary)
        count = int(add(np.array([len(sample)]))[0])
        if search.together is not None and (count < FEW_PASSAGES * SHORT_PART or not sample):
            raise DataError(
                f"all of you have {count:,} passages to find domains in, and here are {len(sample):,} of them; there "
                f"must be {FEW_PASSAGES * SHORT_PART} together, for single ones to be hidden, and one here: "
                "give more text"
            )
        if count < 2 * search.domains:
            raise DataError(
                f"{search.domains} domains need at least {2 * search.domains} documents to train on and there are "
                f"{count}; lower --domains, give more text, or separate its documents (by blank lines in text files)"
            )
        return fit(Passages.of(sample), (search.domains, vocabulary.size), search.seed, add)


def sort_into(
    passages: Documents,
    known: Mapping[str, NDArray[np.uint64]],
    context_length: int,
    characters: int,
    vocabulary: Vocabulary,
    progress: Progress,
) -> Documents:
    """Return the same passages, each in the `known` domain (name → unigram counts (V,)) that it is likeliest in.

    Domains that get fewer than PASSAGES passages or WINDOWS windows are left out. `characters` are those of the text.
    Raises DataError: the text is too short for any domain.
    """
    unigrams = log_unigrams_of(np.stack([counts.astype(np.int64) for counts in known.values()]))
    reading = _read(passages, vocabulary, partial(progress, "sorting into domains"), characters)
    read = [(each.scores(unigrams), each.lengths) for each in reading]
    scores, lengths = (np.concatenate(parts) for parts in zip(*read, strict=True))
    clusters = enough(scores, lengths, WINDOWS * context_length)
    if clusters is None:
        raise DataError(
            f"the text is too short for any of the domains {', '.join(known)}: each needs {PASSAGES} passages and "
            f"{WINDOWS} windows of {context_length} tokens; give more text"
        )
    return _in_domains(passages, clusters, list(known))


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


def _sample(passages: Documents, lowest: float, vocabulary: Vocabulary) -> list[NDArray[np.integer]]:
    """Return the tokens of the passages whose hashes put them at `lowest` or above: SAMPLE_CHARACTERS in all places."""
    chosen = ((domain, passage) for domain, passage in passages() if position_of(passage) >= lowest)
    return [tokens for batch in batches(chosen) for tokens in vocabulary.encode([text_of(each) for _, each in batch])]


def _assign(
    passages: Documents, search: Search, mixture: Mixture, vocabulary: Vocabulary, progress: Progress
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """Return the cluster of each passage, (N,), and the passages and the tokens of each cluster, (K,)."""
    found = []
    counts, tokens = np.zeros((2, search.domains), dtype=np.int64)
    for each in _read(passages, vocabulary, partial(progress, "finding domains"), search.characters):
        clusters = mixture.assign(each)
        found.append(clusters.astype(np.uint8))
        counts += np.bincount(clusters, minlength=search.domains)
        tokens += np.bincount(clusters, each.lengths, minlength=search.domains).astype(np.int64)
    return np.concatenate(found), counts, tokens


def _read(
    passages: Documents, vocabulary: Vocabulary, progress: Callable[[int, int], None], characters: int
) -> Iterator[Passages]:
    """Yield the tokens of all passages, some at a time, in their order."""
    done = 0
    for batch in batches(passages()):
        texts = [text_of(passage) for _, passage in batch]
        yield Passages.of(vocabulary.encode(texts))
        done += sum(map(len, texts))
        progress(done, characters)


def _in_domains(passages: Documents, clusters: NDArray[np.integer], names: Sequence[str]) -> Documents:
    """Return the passages, each in the domain that its cluster is called by."""

    def documents() -> Iterator[tuple[str, Document]]:
        for cluster, (_, passage) in zip(clusters, passages(), strict=True):
            yield names[cluster], passage

    return documents
