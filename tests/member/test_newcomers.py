"""How long a lone holder waits for somebody who has asked for the run."""

import pytest

from peer.member.newcomers import ARRIVE_S, ARRIVE_TICKS, MAX_EXPECTED, Newcomers


class Times:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("tick_s", "arrive_s"), [(1.0, ARRIVE_S), (60.0, 60.0 * ARRIVE_TICKS)])
def test_who_has_asked_is_expected_for_a_while(tick_s: float, arrive_s: float) -> None:
    time = Times()
    newcomers = Newcomers(time, tick_s, lambda peer_id: False)
    assert not newcomers.are_expected()
    newcomers.asked("a")
    time.now += arrive_s - 0.1
    assert newcomers.are_expected()
    newcomers.fetched("a")  # the download goes on
    time.now += arrive_s - 0.1
    assert newcomers.are_expected()
    time.now += 0.2
    assert not newcomers.are_expected()


def test_who_cannot_join_is_named_once_and_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    newcomers = Newcomers(Times(), 1.0, lambda peer_id: False)
    for _ in range(3):
        newcomers.asked("a", "peer a speaks protocol 3")
    newcomers.asked("b", "peer b speaks protocol 3")
    assert not newcomers.are_expected()
    assert caplog.messages == ["peer a speaks protocol 3", "peer b speaks protocol 3"]


def test_nobody_waits_for_who_fetches_without_having_asked() -> None:
    time = Times()
    newcomers = Newcomers(time, 1.0, lambda peer_id: False)
    newcomers.fetched("a")
    assert not newcomers.are_expected()
    newcomers.asked("b")
    time.now += ARRIVE_S
    newcomers.fetched("a")
    newcomers.fetched("b")  # too late
    assert not newcomers.are_expected()


def test_nobody_waits_for_members_though_they_fetch_again_and_again() -> None:
    time, members = Times(), set[str]()
    newcomers = Newcomers(time, 1.0, members.__contains__)
    newcomers.asked("a")
    assert newcomers.are_expected()
    members.add("a")
    assert not newcomers.are_expected()
    for _ in range(10):  # it keeps this peer's block
        newcomers.fetched("a")
        time.now += ARRIVE_S / 2
        assert not newcomers.are_expected()


def test_only_so_many_are_remembered() -> None:
    newcomers = Newcomers(Times(), 1.0, lambda peer_id: False)
    for number in range(3 * MAX_EXPECTED):
        newcomers.asked(str(number))
    assert len(newcomers._until) == MAX_EXPECTED
