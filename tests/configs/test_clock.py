"""Ticks follow the wall clock, and never run backwards."""

import random

import pytest

from configs.clock import Clock


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
