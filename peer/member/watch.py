"""Sees what has been under way for too long, says what it waits for, and at last ends it, so that the next can begin.

Every wait of a round has a deadline of its own; this is for the one that somebody forgot.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

ALARM_S, ALARM_ROUNDS = 120.0, 4  # under way, both, after which it is said
# Under way, after which it is ended: longer than a state's download that still moves and a worker's first answer.
FREE_S = 1500.0
# What a function waits for, in a user's words; the innermost one counts.
WAITS = {
    "_exchange": "its worker's snapshot",
    "take_snapshots": "its worker's snapshot",
    "rebase": "its worker",
    "examine": "its worker",
    "save": "the disk",
    "unbroken": "a computation, or the disk",
    "gather": "the others' offers and lists",
    "close": "offers that the others have sealed",
    "_replay": "offers that the others have sealed",
    "_fetch_state": "the others' state",
    "keep": "states of blocks that it keeps",
    "refresh": "the DHT",
    "publish": "the DHT",
}


@dataclass
class _Work:
    tasks: tuple[asyncio.Task[Any], ...]
    since: float
    patience_s: float
    is_told: bool = False
    is_ended: bool = False


class Watch:
    """What is under way, by name. `now` in monotonic seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._under_way: dict[str, _Work] = {}
        self.present: list[str] = []  # alarms, as long as they hold

    def follow(self, name: str, *tasks: asyncio.Task[Any], round_s: float = 0.0) -> None:
        """Follow a work from its beginning: the task that does it, then those that it waits for. One of each name."""
        self._under_way[name] = _Work(tasks, self._now(), max(ALARM_S, ALARM_ROUNDS * round_s))

    def look(self) -> list[str]:
        """End what is stuck; return what a person should know and was not told yet."""
        now, news = self._now(), []
        self.present.clear()
        for name, work in list(self._under_way.items()):
            if work.tasks[0].done():
                del self._under_way[name]
                continue
            seconds = now - work.since
            if seconds < work.patience_s:
                continue
            text = f"{name}: under way for {seconds:.0f} s, waits for {waits_for(work.tasks[0])}"
            self.present.append(text)
            if seconds >= max(FREE_S, work.patience_s) and not work.is_ended:
                work.is_told = work.is_ended = True
                news.append(f"{text}; ended, and begun anew when it is due")
                for task in work.tasks:
                    task.cancel()
            elif not work.is_told:
                work.is_told = True
                news.append(text)
        return news


def waits_for(task: asyncio.Task[Any]) -> str:
    """Return what a task waits for, in words, or the name of the function in which it does."""
    names = []
    awaited: Any = task.get_coro()
    while isinstance(awaited, Coroutine) and (code := getattr(awaited, "cr_code", None)) is not None:
        names.append(code.co_name)
        awaited = getattr(awaited, "cr_await", None)
    return next((WAITS[name] for name in reversed(names) if name in WAITS), f"'{names[-1]}'" if names else "nothing")
