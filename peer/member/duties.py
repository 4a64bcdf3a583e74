"""What a member does beside its rounds, again and again: each duty by itself, so that none waits for another."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from peer.member.chronicle import Chronicle
from peer.member.rounds import is_of_this_machine
from peer.member.watch import Watch

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, Any]]


class Duties:
    """Begins duties in a group of tasks. One that fails is said and counted, and done again when it is due."""

    def __init__(self, chronicle: Chronicle, watch: Watch) -> None:
        self._chronicle, self._watch = chronicle, watch
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str, work: Work, tasks: asyncio.TaskGroup) -> bool:
        """Begin a duty; return False if the last time of it is still under way."""
        task = self._under_way.get(name)
        if task is not None and not task.done():
            return False
        self._under_way[name] = tasks.create_task(self._do(name, work))
        self._watch.follow(name, self._under_way[name])
        return True

    async def _do(self, name: str, work: Work) -> None:
        try:
            await work()
        except Exception as error:  # what other peers say must not end the daemon
            if is_of_this_machine(error):
                raise
            self._chronicle.failed(f"{name}: {type(error).__name__}: {error}", error)
