"""Ticks follow the wall clock, and never run backwards."""

import random

import pytest

from configs.clock import FOLLOWED_S, SLEW, Clock, SteadyTime


def test_ticks_count_from_genesis() -> None:
    clock = Clock(genesis=1000.0, tick_seconds=2.0, now=iter([999.0, 1000.0, 1001.9, 1002.0, 1007.0]).__next__)
    assert [clock.tick() for _ in range(5)] == [0, 0, 0, 1, 3]


def test_a_clock_that_is_set_back_changes_no_tick() -> None:
    chance, times = random.Random(0), [0.0]
    clock = Clock(genesis=0.0, tick_seconds=0.5, now=lambda: times[-1])
    ticks = []
    for _ in range(200):
        times.append(times[-1] + chance.uniform(-3.0, 4.0))
        ticks.append(clock.tick())
    assert ticks == sorted(ticks)
    assert ticks[-1] == max(0, *(int(at // 0.5) for at in times))


def test_times_and_ticks_agree() -> None:
    clock = Clock(genesis=1000.0, tick_seconds=2.0, now=lambda: 1003.0)
    assert clock.time_of(2) == 1004.0
    assert clock.time_of(2.5) == 1005.0
    assert clock.seconds_until(2) == pytest.approx(1.0)
    assert clock.seconds_until(1) == 0.0


class Machine:
    """A machine whose clock can be set; it also counts seconds that nobody can set."""

    def __init__(self) -> None:
        self.passed_s, self.set_s = 0.0, 0.0
        self.now = SteadyTime(wall=lambda: 5000.0 + self.passed_s + self.set_s, steady=lambda: 70.0 + self.passed_s)

    def after(self, seconds: float) -> float:
        self.passed_s += seconds
        return self.now() - 5000.0


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0, FOLLOWED_S + 0.1])
def test_a_clock_that_is_set_moves_no_tick_and_is_said(jump_s: float) -> None:
    machine = Machine()
    clock = Clock(genesis=5000.0, tick_seconds=2.0, now=machine.now)
    assert machine.after(10.0) == pytest.approx(10.0) and clock.warning() == ""
    machine.set_s = jump_s
    ticks = []
    for _ in range(100):
        assert machine.after(2.0) == pytest.approx(machine.passed_s)
        ticks.append(clock.tick())
    assert ticks == list(range(6, 106))
    assert f"{'forward' if jump_s > 0 else 'back'} by {abs(jump_s):,.0f} s" in clock.warning()
    machine.set_s = 0.0
    machine.after(2.0)
    assert clock.warning() == "", "it was set right again"


@pytest.mark.parametrize("jump_s", [-3.0, 3.0, FOLLOWED_S - 0.1])
def test_a_small_correction_is_followed_slowly(jump_s: float) -> None:
    machine = Machine()
    machine.after(10.0)
    machine.set_s = jump_s
    before = machine.after(0.0)
    for _ in range(400):
        now = machine.after(1.0)
        assert (1 - SLEW) - 1e-9 <= now - before <= (1 + SLEW) + 1e-9, "time neither stands still nor leaps"
        before = now
    assert now == pytest.approx(machine.passed_s + jump_s)
