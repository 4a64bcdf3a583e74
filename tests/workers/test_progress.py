"""What a worker tells of its steps, and what that says of the next."""

import pytest

from peer.train.messages import Stepped
from peer.workers.progress import RECENT, Progress


def told(step_s: float | None, tokens_per_s: float | None = None) -> Stepped:
    return Stepped(position=1, loss=2.0, tokens=8, tokens_per_s=tokens_per_s, step_s=step_s)


@pytest.mark.parametrize(
    ("steps", "usual"),
    [
        ([], None),
        ([1.0], 1.0),
        ([1.0, 1.1, 9.0], 1.1),
        ([1.0, 1.1, 1.2, 9.0, 9.0], 1.2),
        ([1.0, 1.1, 9.0, 9.1, 9.2], 9.0),
        ([1.0] * RECENT + [9.0] * 2, 1.0),
        ([1.0] * RECENT + [9.0] * 3, 9.0),
    ],
)
def test_a_step_that_is_slow_by_chance_says_little(steps: list[float], usual: float | None) -> None:
    """Rounds become longer where steps do, not where one did."""
    progress = Progress()
    for step_s in steps:
        progress = progress.stepped(told(step_s))
    assert progress.usual_step_s == usual
    assert progress.step_s == (steps[-1] if steps else None)


def test_a_speed_that_is_not_known_stays_what_it_was() -> None:
    progress = Progress().stepped(told(1.0, 100.0)).stepped(told(None))
    assert (progress.tokens_per_s, progress.step_s, progress.usual_step_s) == (100.0, None, 1.0)
