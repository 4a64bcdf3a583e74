"""Which token is drawn: by hand-made probabilities."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from peer.fused.sampling import Sampling, chances, draw, repeating

PROBABILITIES = (0.5, 0.25, 0.15, 0.1)
LOGS = np.log(PROBABILITIES)


def drawn(answer: tuple[int, ...] = (), **options: Any) -> dict[int, float]:
    """Return the share of each token in many draws."""
    sampling, random = Sampling(**{"temperature": 1.0, "top_k": 0, **options}), np.random.default_rng(0)
    counts = Counter(draw(LOGS, answer, sampling, random) for _ in range(4000))
    return {token: count / 4000 for token, count in sorted(counts.items())}


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({}, (0, 1, 2, 3)),
        ({"top_k": 2}, (0, 1)),
        ({"top_k": 4}, (0, 1, 2, 3)),
        ({"top_p": 0.0}, (0,)),
        ({"top_p": 0.49}, (0,)),
        ({"top_p": 0.51}, (0, 1)),
        ({"top_p": 0.76}, (0, 1, 2)),
        ({"top_p": 1.0}, (0, 1, 2, 3)),
        ({"temperature": 0}, (0,)),
    ],
)
def test_the_tokens_that_may_be_drawn_keep_their_odds(options: dict[str, Any], tokens: tuple[int, ...]) -> None:
    total = sum(PROBABILITIES[token] for token in tokens)
    assert drawn(**options) == {token: pytest.approx(PROBABILITIES[token] / total, abs=0.03) for token in tokens}


def test_penalties_and_biases_move_logarithms() -> None:
    greedy = {"temperature": 0}
    assert drawn((0,), presence_penalty=0.68, **greedy).keys() == {0}
    assert drawn((0,), presence_penalty=0.70, **greedy).keys() == {1}, "the two are log 2 = 0.69 apart"
    assert drawn((0,), frequency_penalty=0.4, **greedy).keys() == {0}
    assert drawn((0, 0), frequency_penalty=0.4, **greedy).keys() == {1}
    assert drawn(logit_bias={3: 1.60}, **greedy).keys() == {0}
    assert drawn(logit_bias={3: 1.62}, **greedy).keys() == {3}, "log 5 = 1.61 apart"
    assert drawn(logit_bias={0: -100.0}).keys() == {1, 2, 3}
    assert LOGS[0] == np.log(0.5), "what the model thought is not changed"


def test_no_sequence_comes_twice() -> None:
    assert repeating([1, 2, 3, 1, 2], 3) == [3] and repeating([1, 2], 3) == []
    assert drawn((1, 0, 1), temperature=0, no_repeat_ngram=2).keys() == {1}


def test_what_was_thought_of_each_token() -> None:
    first, second = chances(np.stack([LOGS, LOGS[::-1]]), [2, 0], 2)
    assert first.log_probability == pytest.approx(np.log(0.15)) and [token for token, _ in first.likeliest] == [0, 1]
    assert second.log_probability == pytest.approx(np.log(0.1)) and [token for token, _ in second.likeliest] == [3, 2]
    assert chances(LOGS[None], [1], 0)[0].likeliest == () and len(chances(LOGS[None], [1], 9)[0].likeliest) == 4
