"""Workers of one machine share its cores."""

import pytest

from peer.train.neighbours import threads_for


@pytest.mark.parametrize(
    ("cores", "workers", "threads"),
    [(1, 1, 1), (2, 1, 2), (2, 2, 1), (2, 5, 1), (3, 1, 2), (8, 1, 7), (8, 3, 2), (8, 8, 1), (0.3, 1, 1), (2, 0, 2)],
)
def test_each_takes_an_even_part_and_leaves_room_for_the_daemon(cores: float, workers: int, threads: int) -> None:
    assert threads_for(cores, workers) == threads
