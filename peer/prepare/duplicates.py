"""Finds documents that equal an earlier one, or nearly do, among all documents of a corpus, on arrays alone.

Which document goes is a pure function of the documents' order: held-out ones come first, then all others as they stand
in the corpus. How they are divided into parts does not matter, so that engines that group by key find the same.

*Exact*: of documents with the same hash the first stays.

*Near*: what two documents share is the Jaccard similarity of their runs of RUN words: the share of all runs in either
that both have. One word in twenty changed leaves about 0.8 of it, a sentence of ten left out 0.9. It is estimated from
a signature (MinHash; Broder, "On the resemblance and containment of documents", 1997): the share of its VALUES that are
equal, give or take 0.04. To compare few pairs, a signature is cut into bands, and documents meet in a *bucket* if all
values of a band are equal (Leskovec, Rajaraman and Ullman, "Mining of massive datasets", 3.4). In each bucket by
itself, in the documents' order:

    for each document: if it is near one of the bucket's leaders, it is dropped; else it becomes a leader,
    unless there are LEADERS already

and a document that is dropped in any bucket is dropped. Near is a similarity of at least the threshold; documents of
fewer than about SHORT runs are near only if their signatures are equal, since in a text of ten words another word makes
another text. So no two documents that stay are near and in one bucket, and none that stays is near a held-out one.

Legend: N documents, M documents in buckets, K = VALUES, B bands.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from peer.prepare.shingles import U64, mixed, runs, words

VALUES = 128  # of a signature: 512 bytes a document
RUN = 2  # words; longer runs are no better at telling near from different, and hide behind smaller similarities
SHORT = 32  # runs
NEAR = 0.7  # the threshold that finds texts of which one word in twenty was changed
LEADERS = 64

_FOUND = 0.98  # of the documents that are as similar as the threshold says, the share that meets in a bucket
_NOTHING = np.uint32(0xFFFFFFFF)  # the values of a document without words
_RUNS_AT_ONCE = 512  # so many times VALUES fit in a core's cache
_ROWS_AT_ONCE = 1 << 14  # signatures that are compared at once
_HASHES_AT_ONCE, _MOST_PASSES = 1 << 18, 64

_FACTORS = (mixed(np.arange(1, VALUES + 1, dtype=np.uint64)) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)  # (K,)
_OFFSETS = (mixed(np.arange(1001, VALUES + 1001, dtype=np.uint64)) >> np.uint64(32)).astype(np.uint32)  # (K,)

Flags = NDArray[np.bool_]
Signatures = NDArray[np.uint32]


class Signature:
    """The signature of a document that is read piece by piece; runs across the edges of pieces are lost."""

    def __init__(self) -> None:
        self.values: Signatures = np.full(VALUES, _NOTHING)  # (K,)

    def update(self, text: str) -> None:
        """Take in another piece."""
        found = words(text)
        for _, numbers in runs(found, [min(RUN, len(found))]):
            short = (numbers >> np.uint64(32)).astype(np.uint32)
            for start in range(0, len(short), _RUNS_AT_ONCE):
                block = short[start : start + _RUNS_AT_ONCE, None] * _FACTORS
                block += _OFFSETS
                np.minimum(self.values, block.min(0), out=self.values)


def signature(text: str) -> Signatures:
    """Return the MinHash signature of a text: (K,); the same on every machine."""
    made = Signature()
    made.update(text)
    return made.values


def exact(hashes: Sequence[U64], first: Sequence[Flags] | None = None) -> list[Flags]:
    """Say of each document whether it has the hash of an earlier one: a (N,) for each part.

    `hashes`: the parts' (N,), in the corpus' order; `first` marks the held-out ones, which come before all others.
    Both may be memory-mapped, or sequences that load a part whenever it is asked for: they are read in as many passes,
    at most _MOST_PASSES, as let each compare _HASHES_AT_ONCE. Beyond the result that needs some 50 bytes for each hash
    of a pass, and 20 for each of a part.
    """
    counts = [len(part) for part in hashes]
    passes = max(1, min(_MOST_PASSES, math.ceil(sum(counts) / _HASHES_AT_ONCE)))
    result = [np.zeros(count, np.bool_) for count in counts]
    for turn in range(passes if counts else 0):
        chosen = [_chosen(part, turn, passes) for part in hashes]
        values = np.concatenate([part[rows] for part, rows in zip(hashes, chosen, strict=True)])
        is_first = None if first is None else [part[rows] for part, rows in zip(first, chosen, strict=True)]
        order = _order(len(values), is_first)
        order = order[np.argsort(values[order], kind="stable")]
        repeated = np.zeros(len(values), np.bool_)
        repeated[order[1:]] = values[order[1:]] == values[order[:-1]]
        start = 0
        for part, rows in zip(result, chosen, strict=True):
            part[rows] = repeated[start : start + len(rows)]
            start += len(rows)
    return result


def near(parts: Sequence[Signatures], threshold: float = NEAR, first: Sequence[Flags] | None = None) -> list[Flags]:
    """Say of each document whether it is dropped for an earlier one that it is near to: a (N,) for each part.

    `parts`: signatures (N, K), in the corpus' order, memory-mapped where they are many; each band is read once. Beyond
    the result this needs 50 bytes for each document.
    """
    counts = [len(part) for part in parts]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    order = _order(sum(counts), first)
    dropped = np.zeros(sum(counts), np.bool_)
    rows = band_rows(threshold)
    for band in range(VALUES // rows if parts else 0):
        keys = np.concatenate([_band_key(part, band, rows) for part in parts])[order]
        meeting, buckets = _buckets(keys)
        members = order[meeting]  # (M,)
        leaders = members[:0]
        for start in range(0, len(members), _ROWS_AT_ONCE):
            stop = start + _ROWS_AT_ONCE
            batch = np.concatenate([leaders, members[start:stop]])
            bucket = np.concatenate([np.repeat(buckets[max(start - 1, 0)], len(leaders)), buckets[start:stop]])
            gone = dropped_of(_signatures(parts, starts, batch), bucket, threshold)
            dropped[batch[gone]] = True
            leaders = batch[(bucket == bucket[-1]) & ~gone][:LEADERS]  # the next batch may go on with this bucket
    return [dropped[start : start + count] for start, count in zip(starts[:-1], counts, strict=True)]


def band_rows(threshold: float) -> int:
    """Return how many values a band has: as many as let those that are as similar as the threshold meet."""
    fits = (rows for rows in range(VALUES, 0, -1) if 1 - (1 - threshold**rows) ** (VALUES // rows) >= _FOUND)
    return next(fits, 1)


def band_keys(signatures: Signatures, threshold: float = NEAR) -> U64:
    """Return the keys of the buckets of each document: (N, B), from (N, K); no two bands share a key.

    The key 0 is no bucket: a document without words is near to none.
    """
    rows = band_rows(threshold)
    return np.stack([_band_key(signatures, band, rows) for band in range(VALUES // rows)], axis=1)


def dropped_of(signatures: Signatures, buckets: U64, threshold: float = NEAR) -> Flags:
    """Say which documents are dropped in their bucket: (M,), by the rule above.

    `signatures`: (M, K), in the documents' order within a bucket. `buckets`: (M,), the same number for those of one
    bucket, which stand together.
    """
    needed = np.where(_is_short(signatures), VALUES, math.ceil(threshold * VALUES - 1e-9))
    dropped = np.zeros(len(signatures), np.bool_)
    rows = np.arange(len(signatures))  # neither dropped nor leaders so far
    for _ in range(LEADERS):  # in each bucket, the first that is left leads: all others are compared with it
        if not len(rows):
            break
        is_leader = np.ones(len(rows), np.bool_)
        is_leader[1:] = buckets[rows[1:]] != buckets[rows[:-1]]
        leaders = rows[is_leader][np.cumsum(is_leader) - 1][~is_leader]
        rows = rows[~is_leader]
        equal = np.count_nonzero(signatures[rows] == signatures[leaders], axis=1)
        is_near = equal >= np.maximum(needed[rows], needed[leaders])
        dropped[rows[is_near]] = True
        rows = rows[~is_near]
    return dropped


def _chosen(hashes: U64, turn: int, passes: int) -> NDArray[np.int64]:
    """Return the rows of a part whose hashes are looked at in a turn: they are chance, so the turns are alike."""
    return np.flatnonzero((hashes >> np.uint64(32)) * np.uint64(passes) >> np.uint64(32) == np.uint64(turn))


def _order(count: int, first: Sequence[Flags] | None) -> NDArray[np.int64]:
    """Return the documents' order: (N,) of places in the corpus, held-out ones first."""
    if not first:
        return np.arange(count)
    is_first = np.concatenate(first)
    return np.concatenate([np.flatnonzero(is_first), np.flatnonzero(~is_first)])


def _band_key(signatures: Signatures, band: int, rows: int) -> U64:
    values = signatures[:, band * rows : (band + 1) * rows]
    key = np.full(len(values), band, np.uint64)
    for column in range(rows):
        key = mixed((key << np.uint64(1)) + key + values[:, column])
    key[key == 0] = 1
    key[(values == _NOTHING).all(axis=1)] = 0
    return key


def _buckets(keys: U64) -> tuple[NDArray[np.int64], U64]:
    """Return which documents share their key with another, bucket by bucket and in order, and their keys: (M,) each."""
    by_key = np.argsort(keys, kind="stable")
    keys = keys[by_key]
    meets = np.zeros(len(keys), np.bool_)
    meets[1:] = keys[1:] == keys[:-1]
    meets[:-1] |= meets[1:]
    meets &= keys != 0
    return by_key[meets], keys[meets]


def _is_short(signatures: Signatures) -> Flags:
    """Say which documents have few runs: the smallest of n hashes is about a share 1 / (n + 1) of the largest."""
    sums: U64 = signatures.sum(axis=1, dtype=np.uint64)
    return sums > np.uint64(VALUES * (1 << 32) // (SHORT + 1))


def _signatures(parts: Sequence[Signatures], starts: NDArray[np.int64], rows: NDArray[np.int64]) -> Signatures:
    """Fetch the signatures of documents, which may lie in any part: (M, K)."""
    part_of = np.searchsorted(starts, rows, side="right") - 1
    found = np.empty((len(rows), VALUES), np.uint32)
    for part in np.unique(part_of):
        wanted = part_of == part
        found[wanted] = parts[part][rows[wanted] - starts[part]]
    return found
