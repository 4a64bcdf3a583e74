"""How long a lone holder waits for somebody who has asked for the run."""

import pytest

from peer.member.newcomers import ARRIVE_S, ARRIVE_TICKS, Newcomers


class Times:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("tick_s", "arrive_s"), [(1.0, ARRIVE_S), (60.0, 60.0 * ARRIVE_TICKS)])
def test_who_has_asked_is_expected_for_a_while(tick_s: float, arrive_s: float) -> None:
    time = Times()
    newcomers = Newcomers(time, tick_s)
    assert not newcomers.are_expected()
    newcomers.asked()
    time.now += arrive_s - 0.1
    assert newcomers.are_expected()
    newcomers.fetched()  # the download goes on
    time.now += arrive_s - 0.1
    assert newcomers.are_expected()
    time.now += 0.2
    assert not newcomers.are_expected()


def test_who_fetches_without_having_asked_is_a_member_that_keeps_the_block() -> None:
    time = Times()
    newcomers = Newcomers(time, 1.0)
    newcomers.fetched()
    assert not newcomers.are_expected()
    newcomers.asked()
    time.now += ARRIVE_S
    newcomers.fetched()
    assert not newcomers.are_expected()
