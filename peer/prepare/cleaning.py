"""Filters that look at one document alone: its length, its language, and whether it holds what a list names.

Also what is asked for altogether, with the duplicates that `duplicates.py` finds among all documents.

*Language*: of the first SAMPLE characters, by py3langid: its model is in its wheel, it is as right as lingua in a
fifteenth of the time, and it takes no classical Chinese for Japanese as fastText does. Where it is not sure (code,
tables, a name and two words) a document stays, uncounted: what was dropped is gone, a little of another language does
no harm.

*Decontamination*: a document goes if it has a run of words in common with a text of the list: RUN words, as for GPT-3
(Brown et al. 2020, appendix C), or twice as many characters where a script has no spaces. A text of the list that is
shorter, such as a question, is looked for as a whole if it has at least SHORTEST words, or twice as many characters.
Neither case nor punctuation counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from configs.errors import DataError
from peer.prepare.shingles import U64, is_unspaced, runs, words
from peer.sources.skips import Reason

SAMPLE = 1000  # characters: of 300, one text in fifty more is taken for another language
SURE = 0.7  # the probability of a language from which it counts
RUN = 13  # words
SHORTEST = 8  # words of a text of the list

_NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content
_ALIASES = {"nb": "no"}
_TABLE_BITS = 22


@dataclass(frozen=True)
class Cleaning:
    """What is to be left out of a corpus."""

    languages: tuple[str, ...] = ()  # ISO 639-1 codes of those that stay; empty: all do
    min_characters: int | None = None
    max_characters: int | None = None
    decontaminate: tuple[str, ...] = ()  # files and folders of texts that no document may hold a part of
    is_deduplicated: bool = False  # of documents that are the same, one stays
    near: float | None = None  # the similarity from which documents count as almost the same; see duplicates.py

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left out."""
        return self == Cleaning()

    @property
    def is_filtering(self) -> bool:
        """Whether a document can be left out for itself."""
        lengths = (self.min_characters, self.max_characters)
        return bool(self.languages or self.decontaminate) or any(length is not None for length in lengths)

    def check(self) -> None:
        """Raise DataError when an option makes no sense, or what it needs is not installed."""
        shortest, longest = self.min_characters or 0, self.max_characters
        if shortest < 0 or (longest is not None and longest < max(1, shortest)):
            raise DataError(
                f"documents of at least {shortest} and at most {longest} characters are not possible; "
                "let the first be smaller than the second"
            )
        if self.near is not None and not 0.3 <= self.near <= 1:
            raise DataError(f"a similarity of {self.near} is not possible; choose one between 0.3 and 1, such as 0.7")
        for code in self.languages:
            if _ALIASES.get(code, code) not in known_languages():
                raise DataError(
                    f"no language {code!r} can be told; give codes of ISO 639-1, one of {', '.join(known_languages())}"
                )


class Filter:
    """Says of each document whether it stays. It can be pickled, and says the same everywhere.

    `listed` are the texts of the decontamination list, each with the name of the file that it is in. Raises DataError
    when an option makes no sense, or a list is asked for and `listed` has nothing to look for.
    """

    def __init__(self, cleaning: Cleaning, listed: Iterable[tuple[str, str]] = ()) -> None:
        cleaning.check()
        self._cleaning = cleaning
        self._languages = {_ALIASES.get(code, code) for code in cleaning.languages}
        self._list = _List(listed if cleaning.decontaminate else ())
        if cleaning.decontaminate and not len(self._list.numbers):
            raise DataError(
                f"{', '.join(cleaning.decontaminate)} holds no text of {SHORTEST} words or more, so no document can be "
                "compared with it; name files of longer texts, or leave the decontamination list out"
            )

    @property
    def passed_over(self) -> int:
        """How many texts of the decontamination list are too short to be looked for."""
        return self._list.passed_over

    def verdict(self, text: str, is_whole: bool = True) -> Reason | None:
        """Say why a document is left out, or None.

        Of a long one `text` is the first piece, and `is_whole` False: then its length is not judged. `of_length` does
        that when all has been read, and `of_list` looks at each further piece.
        """
        return (self.of_length(len(text.strip())) if is_whole else None) or self.of_language(text) or self.of_list(text)

    def of_length(self, characters: int) -> Reason | None:
        """Say whether a document is left out for its length, without white space at its edges."""
        shortest, longest = self._cleaning.min_characters or 0, self._cleaning.max_characters
        is_right = characters >= shortest and (longest is None or characters <= longest)
        return None if is_right else Reason.LENGTH

    def of_language(self, text: str) -> Reason | None:
        """Say whether a document is left out for the language that it begins in."""
        if not self._languages:
            return None
        language = language_of(text)
        return None if language is None or language in self._languages else Reason.LANGUAGE

    def of_list(self, text: str) -> Reason | None:
        """Say whether a document, or a piece of it, is left out for what it has in common with the list."""
        return None if self.listed_in(text) is None else Reason.LISTED

    def listed_in(self, text: str) -> str | None:
        """Return which file of the list a text has something in common with, or None."""
        return self._list.find(text)


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of the language that a text begins in, or None where that is not sure."""
    language, probability = _identifier().classify(text.lstrip()[:SAMPLE])
    return language if probability >= SURE and language != _NO_LANGUAGE else None


def known_languages() -> Sequence[str]:
    """Return the codes of all languages that can be told."""
    return sorted(set(_identifier().labels) - {_NO_LANGUAGE})


class _List:
    """The runs of words that no document may hold, as sorted numbers, with the file that each is in first."""

    def __init__(self, listed: Iterable[tuple[str, str]]) -> None:
        self.passed_over = 0
        places: dict[str, int] = {}  # of files
        lengths = set()
        found, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for file, text in listed:
            length, numbers = _looked_for(words(text))
            if not length:
                self.passed_over += 1
                continue
            lengths.add(length)
            found.append(numbers)
            owners.append(np.full(len(numbers), places.setdefault(file, len(places))))
        self._files, self._lengths = list(places), sorted(lengths)
        self.numbers, first = np.unique(np.concatenate(found), return_index=True)  # (G,)
        self._owners = np.concatenate(owners)[first]
        # Nearly every run of a document is in no list, and a table that fits in a core's cache says so at once.
        self._may_be = np.zeros(1 << _TABLE_BITS if lengths else 0, np.bool_)
        self._may_be[self.numbers >> np.uint64(64 - _TABLE_BITS)] = True

    def find(self, text: str) -> str | None:
        """Return the file of the first run of a text that is in the list; the shortest runs are looked at first."""
        if not self._lengths:
            return None
        for _, numbers in runs(words(text), self._lengths):
            likely = numbers[self._may_be[numbers >> np.uint64(64 - _TABLE_BITS)]]
            places = np.minimum(np.searchsorted(self.numbers, likely), len(self.numbers) - 1)
            hits = places[self.numbers[places] == likely]
            if len(hits):
                return self._files[int(self._owners[hits[0]])]
        return None


def _looked_for(found: U64) -> tuple[int, U64]:
    """Return how long the runs of a text of the list are, and their numbers; 0 for one that is too short."""
    scale = 2 if np.count_nonzero(is_unspaced(found)) * 2 > len(found) else 1
    if len(found) < SHORTEST * scale:
        return 0, found
    return next(runs(found, [min(RUN * scale, len(found))]))


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise DataError("telling languages needs py3langid; install it with: pip install 'shoal[clean]'") from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    # Those that ISO 639-1 has a code for: among more, much Chinese is taken for Wu or Yue.
    identifier.set_languages([label for label in identifier.labels if len(label) == 2 or label == _NO_LANGUAGE])
    return identifier
