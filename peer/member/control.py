"""What this machine asks of its peer's training: to pause, to go on, to leave; by its owner's word, or by his rules."""

import asyncio
import logging
import time
from collections.abc import Mapping

from peer.member.activity import BY_OWNER, Activity
from peer.member.bounds import Bounds
from peer.member.chronicle import Chronicle
from peer.member.owner import Owner
from peer.member.session import Session
from peer.member.wishes import Held, held, wishes

log = logging.getLogger(__name__)

LOOK_S = 5.0  # between two looks at the machine, while a rule asks for them: nothing there tells of itself


class Control:
    """Carries out what the owner of this machine asks, or what a rule does in his place."""

    def __init__(
        self, activity: Activity, session: Session, chronicle: Chronicle, bounds: Bounds, owner: Owner
    ) -> None:
        self.bounds = bounds
        self._activity, self._session, self._chronicle, self._owner = activity, session, chronicle, owner
        self._held: Mapping[str, Held] = {}  # rule → why training rests by it
        self._overruled: set[str] = set()  # rules of which the owner wants nothing until they change
        self._following = asyncio.Lock()

    async def leave(self) -> None:
        """Hand over, save and go, soon."""
        self._activity.leaving.set()

    async def pause(self, why: str = BY_OWNER) -> None:
        """Stop training until `resume`, but go on serving. Raises UsageError if this peer leaves."""
        self._activity.pause(why)
        await self._follow()

    async def resume(self) -> str:
        """Train again; return which rules that overrules, until they change. Raises UsageError if this peer leaves."""
        self._activity.resume()
        self._overruled.update(self._held)
        await self._follow()
        return "; ".join(
            f"although {each.reason}: that rule counts again once it has changed" for each in self._held.values()
        )

    async def heed(self) -> None:
        """Let training rest by the owner's rules, as long as they want it. Ends with its task."""
        while True:
            limits = self.bounds.now
            self.bounds.changed.clear()
            if limits.has_rules or self._held:
                machine = await asyncio.to_thread(self._owner.look, limits)
                found = wishes(time.time(), machine, limits, self._held)
                self.bounds.seen = {**machine.unseen, **found}
                await self._rest(held(time.monotonic(), found, self._held, limits))
            try:
                async with asyncio.timeout(LOOK_S if limits.has_rules else None):
                    await self.bounds.changed.wait()
            except TimeoutError:
                continue
            self._overruled = {
                rule for rule in self._overruled if getattr(limits, rule) == getattr(self.bounds.now, rule)
            }

    async def _rest(self, rules: Mapping[str, Held]) -> None:
        """Rest by these rules, but those that are overruled; say when that begins and when it ends."""
        self._held = rules
        self._overruled.intersection_update(rules)
        before = self._activity.rule
        reason = next((each.reason for rule, each in rules.items() if rule not in self._overruled), "")
        self._activity.rest(reason)
        if bool(reason) is bool(before):
            return
        news = f"paused by itself: {reason}" if reason else "no rule of this machine's owner wants a pause any more"
        self._chronicle.happened(news)
        log.info("%s", news)
        await self._follow()

    async def _follow(self) -> None:
        """Bring the training to what is wanted by now."""
        async with self._following:
            if self._activity.is_paused:
                await self._session.pause()
            else:
                await self._session.resume()
