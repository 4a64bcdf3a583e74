import random
import tracemalloc
from collections import defaultdict

import numpy as np
import pytest

from peer.prepare.duplicates import (
    LEADERS,
    NEAR,
    SHORT,
    VALUES,
    Signature,
    band_keys,
    band_rows,
    dropped_of,
    exact,
    near,
    signature,
)
from peer.prepare.shingles import words

RANDOM = random.Random(0)
VOCABULARY = [f"{RANDOM.choice('bdgkmnprst')}{RANDOM.choice('aeiou')}{number}" for number in range(5000)]


def text_of(length: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length))


def edited(text: str, share: float, seed: int) -> str:
    found, chance = text.split(" "), random.Random(seed)
    for place in chance.sample(range(len(found)), max(1, round(share * len(found)))):
        found[place] = chance.choice(VOCABULARY)
    return " ".join(found)


def signatures_of(texts: list[str]) -> np.ndarray:
    return np.stack([signature(text) for text in texts])


def cut(array: np.ndarray, *places: int) -> list[np.ndarray]:
    return np.split(array, places)


def by_group(signatures: np.ndarray, threshold: float, first: np.ndarray) -> np.ndarray:
    """Do what an engine does that groups by key, as the module's docstring says it, one document after the other."""
    needed = [VALUES if is_short(row) else int(np.ceil(threshold * VALUES)) for row in signatures]
    buckets = defaultdict(list)
    for row, keys in enumerate(band_keys(signatures, threshold)):
        for key in keys:
            if key:
                buckets[int(key)].append((not first[row], row))
    dropped = np.zeros(len(signatures), bool)
    for members in buckets.values():
        leaders: list[int] = []
        for _, row in sorted(members):
            alike = [(signatures[row] == signatures[leader]).sum() for leader in leaders]
            if any(a >= max(needed[row], needed[leader]) for a, leader in zip(alike, leaders, strict=True)):
                dropped[row] = True
            elif len(leaders) < LEADERS:
                leaders.append(row)
    return dropped


def is_short(row: np.ndarray) -> bool:
    return int(row.sum(dtype=np.uint64)) > VALUES * 2**32 // (SHORT + 1)


def test_a_signature_is_the_same_on_every_machine():
    # Corpora that were prepared with other values would not be found again.
    assert signature("The quick brown fox jumps over the lazy dog.")[:4].tolist() == [
        259050450,
        141224635,
        165267390,
        1165229357,
    ]


def test_a_signature_estimates_the_share_of_runs_in_common():
    text = text_of(400, 1)
    for share, least, most in ((0.02, 0.86, 0.98), (0.05, 0.74, 0.90), (0.3, 0.2, 0.45)):
        alike = np.mean(signature(text) == signature(edited(text, share, 2)))
        assert least < alike < most
    assert np.mean(signature(text) == signature(text_of(400, 3))) < 0.05


def test_a_long_document_has_the_signature_of_all_its_pieces():
    text = text_of(3000, 4)
    made = Signature()
    for start in range(0, len(text), 1000):
        made.update(text[start : start + 1000])
    assert np.mean(made.values == signature(text)) > 0.95
    whole = Signature()
    whole.update(text)
    assert (whole.values == signature(text)).all()


def test_case_punctuation_and_white_space_do_not_count():
    assert (signature("So, Hello\n\n  WORLD —\t(again)!") == signature("so hello world again")).all()


def test_text_without_spaces_is_compared_by_characters():
    text = "舜目盖重瞳子又闻项羽亦重瞳子羽岂其苗裔邪何兴之暴也夫秦失其政陈涉首难豪杰蜂起相与并争不可胜数"
    assert len(words(text)) == len(text)
    assert np.mean(signature(text) == signature(text[:20] + "卻" + text[21:])) > 0.8


def test_words_do_not_depend_on_where_a_long_text_is_cut():
    text = text_of(40_000, 5)
    assert len(text) > 1 << 17
    assert (words(text) == np.concatenate([words(word) for word in text.split(" ")])).all()


def test_of_equal_documents_the_first_stays():
    hashes = np.array([5, 7, 5, 9, 7, 5], np.uint64)
    assert [part.tolist() for part in exact(cut(hashes, 2, 3))] == [[False, False], [True], [False, True, True]]


def test_held_out_documents_come_before_all_others():
    hashes = np.array([5, 7, 5, 9], np.uint64)
    held_out = np.array([False, False, True, False])
    assert np.concatenate(exact(cut(hashes, 1), cut(held_out, 1))).tolist() == [True, False, False, False]


def test_exact_is_right_whatever_the_parts_and_needs_little_memory():
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 2**64, 3_000_000, np.uint64)
    hashes[1_500_000:1_600_000] = hashes[:100_000]
    held_out = chance.random(len(hashes)) < 0.05
    order = np.concatenate([np.flatnonzero(held_out), np.flatnonzero(~held_out)])
    expected = np.ones(len(hashes), bool)
    expected[order[np.unique(hashes[order], return_index=True)[1]]] = False

    tracemalloc.start()
    found = exact(cut(hashes, 10, 2_000_000), cut(held_out, 10, 2_000_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (np.concatenate(found) == expected).all()
    assert expected.sum() == 100_000
    assert peak < 60 * len(hashes) / 3 + len(hashes)


def test_near_duplicates_are_found_and_others_are_not():
    texts = [text_of(100, seed) for seed in range(400)]
    planted = [edited(text, 0.05, seed) for seed, text in enumerate(texts[:200])]
    found = near([signatures_of(texts), signatures_of(planted)])
    assert found[0].sum() == 0
    assert found[1].mean() >= 0.95


def test_what_is_near_a_held_out_document_is_dropped_though_it_comes_earlier():
    text = text_of(200, 7)
    found = near([signatures_of([text, edited(text, 0.02, 8)])], first=[np.array([False, True])])
    assert found[0].tolist() == [True, False]


def test_short_documents_are_near_only_if_they_are_the_same():
    texts = [
        "Section 12 of the act is repealed",
        "section 12 of the act is repealed.",
        "Section 13 of the act is repealed",
    ]
    assert near([signatures_of(texts)], 0.5)[0].tolist() == [False, True, False]


def test_documents_without_words_are_near_to_none():
    assert near([signatures_of(["---", "***", "", "…"])])[0].tolist() == [False] * 4
    assert not band_keys(signatures_of(["---"])).any()


@pytest.mark.parametrize("threshold", [0.5, NEAR, 0.9])
def test_the_parts_do_not_matter_and_grouping_by_key_finds_the_same(threshold):
    chance = random.Random(9)
    texts = [text_of(chance.choice((8, 60, 300)), seed) for seed in range(60)]
    texts += [edited(chance.choice(texts[:60]), chance.choice((0.01, 0.05, 0.1, 0.2)), seed) for seed in range(240)]
    chance.shuffle(texts)
    signatures = signatures_of(texts)
    held_out = np.array([chance.random() < 0.2 for _ in texts])
    expected = by_group(signatures, threshold, held_out)

    assert 30 < expected.sum() < 240
    for places in ((), (1,), (10, 10, 150), tuple(range(1, 300))):
        assert (np.concatenate(near(cut(signatures, *places), threshold, cut(held_out, *places))) == expected).all()


def test_a_bucket_of_many_documents_is_cut_into_batches(monkeypatch):
    monkeypatch.setattr("peer.prepare.duplicates._ROWS_AT_ONCE", 7)
    monkeypatch.setattr("peer.prepare.duplicates.LEADERS", 5)
    monkeypatch.setattr(f"{__name__}.LEADERS", 5)
    rows = band_rows(0.8)
    chance = np.random.default_rng(0)
    signatures = chance.integers(0, 2**24, (60, VALUES), np.uint32)
    signatures[30:] = signatures[chance.integers(0, 30, 30)]
    signatures[30:, rows::rows] += 1  # near, and in no other band the same
    signatures[:, :rows] = 1  # all meet in a bucket of the first band
    signatures[::7, :rows] = 2  # or in another
    expected = by_group(signatures, 0.8, np.zeros(60, bool))
    assert 5 < expected.sum() < 30  # of many copies the original is no leader
    assert (near([signatures], 0.8)[0] == expected).all()


def test_a_bucket_can_be_decided_by_itself():
    text = text_of(100, 11)
    signatures = signatures_of([text, text_of(100, 12), edited(text, 0.02, 13), text])
    assert dropped_of(signatures, np.zeros(4, np.uint64)).tolist() == [False, False, True, True]
    assert dropped_of(signatures, np.arange(4, dtype=np.uint64)).tolist() == [False] * 4


def test_nothing_comes_of_nothing():
    assert exact([]) == [] and near([]) == []
    assert [len(part) for part in near([np.empty((0, VALUES), np.uint32)])] == [0]
