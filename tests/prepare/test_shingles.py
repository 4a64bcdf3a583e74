import sys
import unicodedata

import numpy as np
import pytest

from peer.prepare.shingles import _ALONE, _SEPARATOR, _kinds, is_unspaced, runs, words


@pytest.mark.parametrize(
    ("text", "same", "count"),
    [
        ("Don't panic!", "don t panic", 3),
        ("  a_b\tc\r\n", "A b C", 3),
        ("STRASSE", "straße", 1),
        ("한국어 문장", "한국어, 문장!", 2),
        ("हिन्दी की भाषा", "हिन्दी।की—भाषा", 3),
        ("第2章", "第 2 章", 3),
        ("ｈａｌｆ", "ｈａｌｆ。", 1),
        ("Москва́ 2024", "москва́ – 2024", 2),
        ("🙂🙂", "…", 0),
        ("", " ", 0),
    ],
)
def test_words_are_what_stands_between_separators(text, same, count):
    assert len(words(text)) == count
    assert words(text).tolist() == words(same).tolist()


def test_characters_without_spaces_are_words_of_their_own_kind():
    assert is_unspaced(words("機械 x 学習 ไทย")).tolist() == [True, True, False, True, True, True, True, True]


def test_words_that_differ_have_different_numbers():
    texts = ["ab", "ba", "a", "aa", "aaa", "b", "1", "11", "ab1", "1ab", "學", "学", "학"]
    assert len({int(words(text)[0]) for text in texts}) == len(texts)


def test_half_a_character_pair_is_no_error():
    assert len(words("a \ud83d b")) == 2


def test_the_table_of_separators_agrees_with_unicode():
    kinds = _kinds()
    letters = [code for code in range(sys.maxunicode) if unicodedata.category(chr(code))[0] in "LM"]
    lost = [code for code in letters if kinds[code] == _SEPARATOR]
    assert len(lost) / len(letters) < 0.001, [hex(code) for code in lost]
    blank = [code for code in range(sys.maxunicode) if chr(code).isspace()]
    assert all(kinds[code] == _SEPARATOR for code in blank)
    usual = [*range(0x5C0), *range(0x2010, 0x3100), *range(0xFF00, 0xFFF0)]  # of the scripts that most text is in
    marks = [code for code in usual if unicodedata.category(chr(code)) in ("Po", "Ps", "Pe", "Pd", "Pi", "Pf")]
    assert [hex(code) for code in marks if kinds[code] != _SEPARATOR] == []
    assert all(kinds[ord(sign)] == _ALONE for sign in "中あアㄅก")


def test_runs_are_the_same_wherever_they_stand():
    found = dict(runs(words("one two three four five"), [2, 3, 9]))
    assert list(found) == [2, 3] and [len(each) for each in found.values()] == [4, 3]
    assert next(runs(words("four five"), [2]))[1][0] == found[2][3]
    assert next(runs(words("two one"), [2]))[1][0] != found[2][0]
    assert list(runs(words(""), [1])) == []


def test_a_very_long_word_does_no_harm():
    assert 1 <= len(words("a" * 1_000_000)) < 20
    assert np.unique(words("ab" * 500_000)).size < 20
