import itertools
import time
from pathlib import Path

import pytest

from benchmarks.boxes import Box
from benchmarks.pacing import Pace, _run_delay_s
from benchmarks.swarms import Watch

pytestmark = pytest.mark.bench


class Times:
    """A clock that goes on only by work and sleep, and what the thread has waited for a core."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.run_delay_s = 1000.0, 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "time", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.pass_by)
        monkeypatch.setattr("benchmarks.pacing._run_delay_s", lambda: self.run_delay_s)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def test_a_step_takes_its_period_and_what_it_waits_for_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Times(monkeypatch)
    pace = Pace(2.0, tmp_path / "steps")
    ends = [1000.0]
    for work_s in (0.5, 1.9, 5.0, 0.5):
        pace.step(lambda seconds=work_s: clock.pass_by(seconds))
        ends.append(clock.now)
    assert [b - a for a, b in itertools.pairwise(ends)] == [2.0, 2.0, 5.0, 2.0]
    lines = [line.split() for line in (tmp_path / "steps").read_text().splitlines()]
    assert [float(line[0]) for line in lines] == ends[1:]
    assert [float(line[1]) for line in lines] == [0.5, 1.9, 5.0, 0.5]


def test_waiting_for_a_core_shortens_the_sleeps_that_follow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Times(monkeypatch)
    pace = Pace(2.0, tmp_path / "steps")

    def work(seconds: float, of_these_waiting: float = 0.0) -> float:
        def step() -> None:
            clock.pass_by(seconds)
            clock.run_delay_s += of_these_waiting

        began = clock.now
        pace.step(step)
        return clock.now - began

    assert [work(1.8, 1.5), work(0.5)] == [2.0, 2.0]  # within its slack nothing is lost
    assert [work(4.5, 2.0), work(0.5), work(0.5), work(0.5)] == [4.5, 0.5, 1.5, 2.0]
    assert [work(4.0, 3.0), work(0.5), work(0.5), work(0.5)] == [4.0, 0.5, 1.5, 2.0]  # 2 s beyond its period


def test_the_kernel_counts_the_wait_for_a_core() -> None:
    before, began = _run_delay_s(), time.monotonic()
    time.sleep(0.2)
    waited_s = _run_delay_s() - before
    assert 0 <= waited_s < time.monotonic() - began - 0.19  # sleep is none of it


def test_a_step_across_the_windows_edge_counts_by_its_part(tmp_path: Path) -> None:
    box = Box(tmp_path, "box")
    ended = [10.0, 12.0, 14.0, 20.0, 22.0]  # a stall of 6 s
    (tmp_path / "box.steps").write_text("".join(f"{end} 0.5 0.5\n" for end in ended))
    assert box.steps_per_s(10.0, 14.0) == pytest.approx(0.5)
    assert box.steps_per_s(13.0, 17.0) == pytest.approx((0.5 + 0.5) / 4)
    assert box.steps_per_s(15.0, 18.0) == pytest.approx(1 / 6)


def test_versions_with_two_digests_are_no_agreement() -> None:
    watch = Watch([])
    watch.digests = {"a": {1: "x", 2: "y", 3: "z"}, "b": {1: "x", 2: "other"}}
    assert watch.agreement() == 0.5
