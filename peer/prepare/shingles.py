"""Turns text into numbers that can be compared: its words, and the runs of n words that it holds (shingles, n-grams).

A word is a run of letters, digits and marks without regard to case; punctuation is dropped. Where a script has no
spaces (Chinese, Japanese, Thai, Khmer …) each character is a word, so text that mixes scripts needs no rule of its own.
What separates words is a table in this file and not the Unicode data of a Python version, case is folded as Unicode
promises to keep it, and all else is arithmetic of integers: the numbers are the same on every machine.

Legend: C characters, W words.
"""

from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]

_AT_ONCE = 1 << 16  # characters whose words are found at once: what that needs stays in a core's cache

# Code points that are in no word, first and last: spaces, punctuation, symbols.
_SEPARATORS = (
    (0x00, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0xA9), (0xAB, 0xB1), (0xB4, 0xB4), (0xB6, 0xB8), (0xBB, 0xBB),
    (0xBF, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7), (0x37E, 0x37E), (0x387, 0x387), (0x55A, 0x55F), (0x589, 0x58A),
    (0x5BE, 0x5BE), (0x5F3, 0x5F4), (0x60C, 0x60D), (0x61B, 0x61F), (0x66A, 0x66D), (0x6D4, 0x6D4), (0x964, 0x965),
    (0xE4F, 0xE4F), (0xE5A, 0xE5B), (0xF08, 0xF12), (0x104A, 0x104B), (0x1361, 0x1368), (0x1680, 0x1680),
    (0x17D4, 0x17DA), (0x2000, 0x200B), (0x2010, 0x2063), (0x207A, 0x207E), (0x208A, 0x208E), (0x20A0, 0x20CF),
    (0x2190, 0x245F), (0x2500, 0x2BFF), (0x2CF9, 0x2CFC), (0x2CFE, 0x2CFF), (0x2D70, 0x2D70), (0x2E00, 0x2E7F),
    (0x3000, 0x3004), (0x3008, 0x3020), (0x3030, 0x3030), (0x303D, 0x303F), (0x30A0, 0x30A0), (0x30FB, 0x30FB),
    (0xD800, 0xF8FF), (0xFE10, 0xFE1F), (0xFE30, 0xFE6F), (0xFEFF, 0xFEFF), (0xFF01, 0xFF0F), (0xFF1A, 0xFF20),
    (0xFF3B, 0xFF40), (0xFF5B, 0xFF65), (0xFFE0, 0xFFFD), (0x1F000, 0x1FAFF), (0xF0000, 0x10FFFF),
)  # fmt: skip

# Code points that are words by themselves: Thai, Lao, Tibetan, Burmese, Khmer; kana, bopomofo, Han and what extends it.
_UNSPACED = (
    (0xE01, 0xE4E), (0xE81, 0xECF), (0xF40, 0xFBC), (0x1000, 0x1049), (0x1780, 0x17D3), (0x2E80, 0x2FDF),
    (0x3005, 0x3007), (0x3041, 0x309F), (0x30A1, 0x30FA), (0x30FC, 0x312F), (0x31A0, 0x31BF), (0x31F0, 0x31FF),
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0xFF66, 0xFF9D), (0x1AFF0, 0x1B16F), (0x20000, 0x3FFFF),
)  # fmt: skip

_SEPARATOR, _SPACED, _ALONE = 0, 1, 2
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64


def words(text: str) -> U64:
    """Return a number for each word of a text: (W,); even if it stands for a character of a script without spaces."""
    folded = text.casefold()
    if len(folded) <= _AT_ONCE:
        return _words(folded)
    found, start = [], 0
    while start < len(folded):
        stop = start + _AT_ONCE
        if stop < len(folded):  # a word that is cut here is two; a space near the end is nearly always there
            stop = folded.rfind(" ", start + _AT_ONCE // 2, stop) + 1 or stop
        found.append(_words(folded[start:stop]))
        start = stop
    return np.concatenate(found)


def runs(words: U64, lengths: Iterable[int]) -> Iterator[tuple[int, U64]]:
    """Yield each of the `lengths`, the shortest first, with a number for each run of so many words: (W - length + 1,).

    Lengths of more than W are left out.
    """
    wanted = set(lengths)
    total = words.copy()
    for length in range(1, min(max(wanted, default=0), len(words)) + 1):
        if length > 1:
            total = total[:-1] * np.uint64(_BASE)
            total += words[length - 1 :]
        if length in wanted:
            yield length, mixed(total.copy())


def is_unspaced(words: U64) -> NDArray[np.bool_]:
    """Say which words are characters of a script without spaces: (W,)."""
    odd: NDArray[np.bool_] = (words & np.uint64(1)).astype(np.bool_)
    return ~odd


def mixed(numbers: U64) -> U64:
    """Spread numbers over 64 bits, one to one and in place: the end of MurmurHash3."""
    numbers ^= numbers >> np.uint64(33)
    numbers *= np.uint64(0xFF51AFD7ED558CCD)
    numbers ^= numbers >> np.uint64(33)
    numbers *= np.uint64(0xC4CEB9FE1A85EC53)
    numbers ^= numbers >> np.uint64(33)
    return numbers


def _words(folded: str) -> U64:
    codes = np.frombuffer(folded.encode("utf-32-le", "surrogatepass"), "<u4")  # (C,)
    kinds = _kinds()[codes]
    begins = kinds != _SEPARATOR
    ends = begins.copy()
    is_joined = (kinds[1:] == _SPACED) & (kinds[:-1] == _SPACED)  # with the character before
    begins[1:] &= ~is_joined
    ends[:-1] &= ~is_joined
    first, last = np.flatnonzero(begins), np.flatnonzero(ends)  # (W,)
    powers, inverses = _powers()
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    # A word's number is the polynomial of its characters, wherever it stands.
    numbers = mixed((sums[last + 1] - sums[first]) * inverses[first])
    numbers |= np.uint64(1)
    numbers -= kinds[first] == _ALONE  # the lowest bit says which kind of word it is
    return numbers


@cache
def _kinds() -> NDArray[np.uint8]:
    kinds = np.full(0x110000, _SPACED, np.uint8)
    for ranges, kind in ((_SEPARATORS, _SEPARATOR), (_UNSPACED, _ALONE)):
        for first, last in ranges:
            kinds[first : last + 1] = kind
    return kinds


@cache
def _powers() -> tuple[U64, U64]:
    """Return the powers of the base and of its inverse, modulo 2^64, for every place of a text."""

    def powers(base: int) -> U64:
        factors = np.full(_AT_ONCE, base, np.uint64)
        factors[0] = 1
        return np.multiply.accumulate(factors)

    return powers(_BASE), powers(pow(_BASE, -1, 1 << 64))
