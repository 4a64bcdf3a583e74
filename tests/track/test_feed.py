"""A tracker never makes training wait, and never ends it."""

import logging
import threading
import time
from pathlib import Path

import pytest
from status_example import example

from configs.outlets import Outlet
from peer.http.status import Status
from peer.track.feed import Feed, Point, Trackers
from peer.track.scalars import Scalar
from peer.track.trackers import OPEN, Subject

DEADLINE_S = 60.0


class Recorder:
    """A tracker that can be held up, and told to fail."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_asked = threading.Event()
        self.fails = False
        self.has_failed = threading.Semaphore(0)
        self.closed = 0

    def write(self, tokens: int, wall_s: float, values: list[Scalar]) -> None:
        self.is_asked.set()
        assert self.may_go.wait(DEADLINE_S)
        if self.fails:
            self.has_failed.release()
            raise OSError("https://me:secret@host/ is away")
        self.taken.append(tokens)

    def close(self) -> None:
        self.closed += 1


def point(tokens: int) -> Point:
    return Subject.of(example(), Path()), tokens, 0.0, [Scalar("loss/train", 1.0)]


def close(feed: Feed) -> None:
    feed.begin_to_close()
    feed.close(time.monotonic() + DEADLINE_S)


def test_all_arrive_in_order_and_before_the_end() -> None:
    tracker = Recorder()
    feed = Feed("wandb", lambda subject: tracker)
    for tokens in range(100):
        feed.give(point(tokens))
    close(feed)
    assert tracker.taken == list(range(100)) and tracker.closed == 1 and feed.dropped == 0


def test_a_slow_tracker_loses_the_oldest_and_they_are_counted() -> None:
    tracker = Recorder()
    tracker.may_go.clear()
    feed = Feed("wandb", lambda subject: tracker, waiting=10)
    feed.give(point(0))
    assert tracker.is_asked.wait(DEADLINE_S)
    for tokens in range(1, 101):
        feed.give(point(tokens))
    assert feed.dropped == 90
    tracker.may_go.set()
    close(feed)
    assert tracker.taken == [0, *range(91, 101)]


def test_a_failing_tracker_says_so_once_and_gets_what_waits_later(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Recorder()
    tracker.fails = True
    feed = Feed("mlflow", lambda subject: tracker, retry_s=0.01)
    with caplog.at_level(logging.INFO):
        feed.give(point(1))
        feed.give(point(2))
        for _ in range(3):
            assert tracker.has_failed.acquire(timeout=DEADLINE_S)
        assert feed.trouble.startswith("mlflow takes no curves: https://…@host/ is away; tried again every")
        tracker.fails = False
        deadline = time.monotonic() + DEADLINE_S
        while tracker.taken != [1, 2] and time.monotonic() < deadline:
            time.sleep(0.01)
        close(feed)
    assert tracker.taken == [1, 2] and feed.trouble == ""
    told = [record.message for record in caplog.records]
    assert len([line for line in told if "takes no curves" in line]) == 1
    assert "mlflow takes curves again; 0 points were dropped" in told


def test_a_tracker_that_cannot_be_opened_keeps_nobody_waiting() -> None:
    opened = threading.Event()

    def fail(subject: Subject) -> Recorder:
        opened.set()
        raise SystemExit(1)  # as a library does that thinks that it is a program

    feed = Feed("wandb", fail)
    feed.give(point(1))
    assert opened.wait(DEADLINE_S)
    close(feed)
    assert "wandb takes no curves: 1" in feed.trouble


def test_a_tracker_that_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    tracker = Recorder()
    tracker.may_go.clear()
    feed = Feed("otel", lambda subject: tracker)
    feed.give(point(1))
    assert tracker.is_asked.wait(DEADLINE_S)
    feed.begin_to_close()
    feed.close(time.monotonic())
    assert "otel is slow: what it has not taken is lost" in caplog.text
    tracker.may_go.set()
    close(feed)


def test_a_peers_statuses_reach_its_trackers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    places = [tmp_path / "a", tmp_path / "b"]
    nobody = example().model_copy(update={"peers": []})
    with Trackers([Outlet("tensorboard", str(place)) for place in places], tmp_path) as trackers:
        for status in (nobody, example(), example()):  # nothing new is no point
            trackers.record(status)
        assert trackers.warnings() == []
    for place in places:
        events = accumulator.EventAccumulator(str(place))
        events.Reload()
        assert [(e.step, round(e.value, 6)) for e in events.Scalars("loss/train")] == [(800_000, 3.2)]


def test_a_peer_without_trackers_does_nothing(tmp_path: Path) -> None:
    with Trackers([], tmp_path) as trackers:
        trackers.record(example())
    assert threading.active_count() == len(threading.enumerate())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tracking")]


def test_recording_takes_no_time_while_a_tracker_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()
    monkeypatch.setitem(OPEN, "wandb", lambda place, subject: hung.wait(DEADLINE_S))
    monkeypatch.setattr("peer.track.feed.CLOSE_S", 0.0)
    with Trackers([Outlet("wandb", "")], tmp_path) as trackers:
        began = time.perf_counter()
        for tokens in range(2000):
            trackers.record(_at(tokens))
        assert time.perf_counter() - began < 5.0
    hung.set()


def _at(tokens: int) -> Status:
    status = example()
    status.peers[0].tokens = tokens
    return status
