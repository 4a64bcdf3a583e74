"""Feeds trackers behind a peer's training: each in a thread of its own, so that none makes anything else wait."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from configs.outlets import Outlet, redacted
from peer.http.status import Status
from peer.track.scalars import Scalar, scalars
from peer.track.trackers import OPEN, Subject, Tracker

log = logging.getLogger(__name__)

WAITING = 1000  # statuses that wait for a slow tracker; then the oldest are dropped
RETRY_S = 60.0  # after a failure, until the next try
CLOSE_S = 10.0  # in the end, for what waits

Open = Callable[[Subject], Tracker]
Point = tuple[Subject, int, float, list[Scalar]]  # of whom, at how many tokens, when, the values


class Feed:
    """One tracker, its queue and its thread. A tracker that fails is opened anew when it is time to try again."""

    def __init__(self, name: str, open_: Open, retry_s: float = RETRY_S, waiting: int = WAITING) -> None:
        """The thread begins at once; it is a daemon's, for a library that hangs must not keep the process."""
        self.name, self._open, self._retry_s = name, open_, retry_s
        self.dropped = 0  # statuses that this tracker will never have
        self._failure = ""
        self._points: deque[Point] = deque()
        self._most = waiting
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._feed, name=f"tracking by {name}", daemon=True)
        self._thread.start()

    def give(self, point: Point) -> None:
        """Let a point wait for the tracker; never waits itself."""
        with self._changed:
            if len(self._points) >= self._most:
                self._points.popleft()
                self.dropped += 1
            self._points.append(point)
            self._changed.notify()

    @property
    def trouble(self) -> str:
        """What is wrong with this tracker, now; nothing if it takes what it is given."""
        lost = f"; {self.dropped} points were dropped" if self.dropped else ""
        if self._failure:
            return f"{self.name} takes no curves: {self._failure}; tried again every {self._retry_s:.0f} s{lost}"
        return ""

    def begin_to_close(self) -> None:
        """Say that nothing more comes."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()

    def close(self, deadline: float) -> None:
        """Wait until all is taken, but not beyond a moment of the monotonic clock."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            log.warning("%s is slow: what it has not taken is lost", self.name)

    def _feed(self) -> None:
        tracker: Tracker | None = None
        while (point := self._next()) is not None:
            subject, tokens, wall_s, values = point
            try:
                if tracker is None:
                    tracker = self._open(subject)
                tracker.write(tokens, wall_s, values)
            except BaseException as error:  # a library's own: some raise SystemExit where others raise an error
                self._failed(error, point)
                if tracker is not None:
                    with suppress(BaseException):
                        tracker.close()
                tracker = None
            else:
                self._went_well()
        if tracker is not None:
            try:
                tracker.close()
            except BaseException as error:
                log.warning("%s does not close: %s", self.name, _in_a_line(error))

    def _next(self) -> Point | None:
        """Wait for a point; None when all are taken and nothing more comes, or when the tracker fails in the end."""
        with self._changed:
            if self._failure and not self._is_closing:
                self._changed.wait_for(lambda: self._is_closing, self._retry_s)
            self._changed.wait_for(lambda: self._points or self._is_closing)
            return self._points.popleft() if self._points and not (self._failure and self._is_closing) else None

    def _failed(self, error: BaseException, point: Point) -> None:
        with self._changed:
            if len(self._points) < self._most:
                self._points.appendleft(point)
            else:
                self.dropped += 1
        is_new, self._failure = not self._failure, _in_a_line(error)
        if is_new:
            log.warning("%s", self.trouble)

    def _went_well(self) -> None:
        if self._failure:
            self._failure = ""
            log.info("%s takes curves again; %d points were dropped", self.name, self.dropped)


class Trackers:
    """All trackers of a peer. Within `with`, `record` gives them a status."""

    def __init__(self, outlets: Sequence[Outlet], folder: Path) -> None:
        """Nothing is opened yet. In `folder` they may keep things on disk."""
        self._outlets, self._folder = outlets, folder
        self._feeds: list[Feed] = []
        self._last: tuple[int, list[Scalar]] | None = None

    def __enter__(self) -> Self:
        for outlet in self._outlets:
            self._feeds.append(Feed(str(outlet), _opener(outlet)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        deadline = time.monotonic() + CLOSE_S
        for feed in self._feeds:
            feed.begin_to_close()
        for feed in self._feeds:
            feed.close(deadline)

    def record(self, status: Status) -> None:
        """Give every tracker what is new in a status; takes well under a millisecond, whatever they do."""
        if not self._feeds or not (values := scalars(status)):
            return
        tokens = status.peers[0].tokens
        if self._last == (tokens, values):
            return
        self._last = tokens, values
        point = Subject.of(status, self._folder), tokens, time.time(), values
        for feed in self._feeds:
            feed.give(point)

    def warnings(self) -> list[str]:
        """Say which trackers take nothing, and why."""
        return [feed.trouble for feed in self._feeds if feed.trouble]


def _opener(outlet: Outlet) -> Open:
    return lambda subject: OPEN[outlet.kind](outlet.place, subject)


def _in_a_line(error: BaseException) -> str:
    return redacted(" ".join(str(error).split()))[:300] or type(error).__name__
