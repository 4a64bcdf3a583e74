"""Scores against values computed by hand or by the packages themselves."""

import math

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from peer.corpus.examples import Example
from peer.fused.scores import (
    COPY,
    LEAD,
    Score,
    bootstrap,
    majority,
    normalized,
    score_answers,
    token_f1,
    trivial_answers,
)

ANSWERS = ["the cat sat on the mat", "a dog barks.", "nothing at all", "Two small boats lie there"]
REFERENCES = [["the cat sat on a mat"], ["The dog barks!", "A dog barks"], ["something"], ["two small boats lay there"]]


def test_rouge_by_hand() -> None:
    scores, _ = score_answers(["the cat sat"], [["the cat was fed"]])
    assert scores["ROUGE-1"].value == pytest.approx(100 * 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert scores["ROUGE-2"].value == pytest.approx(100 * 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert scores["ROUGE-L"].value == scores["ROUGE-1"].value


def test_scores_are_those_of_the_packages() -> None:
    scores, words = score_answers(ANSWERS, REFERENCES)
    assert words == "13a"
    streams = [[own[0] for own in REFERENCES], [own[1] if len(own) > 1 else None for own in REFERENCES]]
    assert scores["BLEU"].value == pytest.approx(BLEU().corpus_score(ANSWERS, streams).score)
    assert scores["chrF"].value == pytest.approx(CHRF().corpus_score(ANSWERS, streams).score)
    scorer = RougeScorer(["rougeL"])
    rouge = [scorer.score_multi(own, text)["rougeL"].fmeasure for text, own in zip(ANSWERS, REFERENCES, strict=True)]
    assert scores["ROUGE-L"].value == pytest.approx(100 * np.mean(rouge))


def test_bleu_by_hand() -> None:
    scores, _ = score_answers(["a b c d e"], [["a b c d f"]])
    assert scores["BLEU"].value == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert score_answers(["a b c d"], [["a b c d e"]])[0]["BLEU"].value == pytest.approx(100 * math.exp(1 - 5 / 4))


def test_exact_match_and_f1_by_squad() -> None:
    assert normalized("The  Cat, sat!") == "cat sat"
    assert token_f1("The cat sat", "a cat sat down") == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    assert token_f1("", "a the") == 1 and token_f1("", "cat") == 0
    scores, _ = score_answers(ANSWERS, REFERENCES)
    assert scores["exact match"].value == 50
    assert scores["F1"].value == pytest.approx(100 * (1 + 1 + 0 + 0.8) / 4)


def test_chinese_goes_by_characters() -> None:
    scores, words = score_answers(["北京是首都。"], [["北京是中国首都。"]])
    assert words == "zh"
    for name in ("F1", "ROUGE-1"):
        assert scores[name].value == pytest.approx(100 * 2 * 5 / (5 + 7))
    assert scores["BLEU"].value > 20
    assert token_f1("Männer 北京", "männer 北") == pytest.approx(2 * 2 / 5)


def test_intervals_are_seeded_and_hold_the_score() -> None:
    values = np.random.default_rng(1).random(200)
    table = np.stack([values, np.ones(200)], axis=1)

    def mean(sums: np.ndarray) -> float:
        return float(sums[0] / sums[1])

    found = bootstrap(table, mean)
    assert found == bootstrap(table, mean) != bootstrap(table, mean, seed=1)
    assert found.value == pytest.approx(values.mean())
    deviation = values.std() / 200**0.5
    assert found.low == pytest.approx(found.value - 1.96 * deviation, abs=0.3 * deviation)
    assert found.high == pytest.approx(found.value + 1.96 * deviation, abs=0.3 * deviation)
    assert bootstrap(np.ones((3, 2)), mean) == Score(1, 1, 1)


def test_what_needs_no_model() -> None:
    """The first sentence, the whole input, and the option that is right most often."""
    texts = ["A cat sat. It slept.", "One line\nanother", "Version 2.5 is out! Get it.", "北京是首都。很大。"]
    told = trivial_answers([Example(text, "x", ("x",)) for text in texts])
    assert told[LEAD] == ["A cat sat.", "One line", "Version 2.5 is out!", "北京是首都。"]
    assert told[COPY] == texts
    alike = [Example("q", right, (right,), options) for right, options in (
        ("yes", ("yes", "no")), ("no", ("no", "yes")), ("yes", ("no", "yes")))]  # fmt: skip
    assert majority(alike) == [1, 0, 1], "by their text"
    other = [
        Example("q", "b", ("b",), ("a", "b")),
        Example("q", "d", ("d",), ("c", "d")),
        Example("q", "e", ("e",), ("e",)),
    ]
    assert majority(other) == [1, 1, 0], "by their place"
