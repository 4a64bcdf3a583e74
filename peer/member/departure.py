"""How a member leaves its run: by one deadline for the whole, of which each step has its part.

What is not done when the time is over is left: as after a crash, it loses at most the unfinished round.
"""

import asyncio
import contextlib
import logging

from peer.ending import LEAVE_S
from peer.member.announcer import Announcer
from peer.member.changes import Changes
from peer.member.keeper import Keeper
from peer.member.report import Parts
from peer.member.rounds import Rounds

log = logging.getLogger(__name__)

# When each step ends at the latest, as shares of the time that leaving has. What is left is for closing: the page, the
# connections, the workers.
ROUNDS, SNAPSHOT, HAND_OVER, RECORD = 0.25, 0.4, 0.65, 0.75


async def depart(parts: Parts, rounds: Rounds, changes: Changes, keeper: Keeper, announcer: Announcer) -> None:
    """Finish the round, save, hand over what only this peer has, and write the leaving record."""
    begun_at = asyncio.get_running_loop().time()

    def until(share: float) -> asyncio.Timeout:
        return asyncio.timeout_at(begun_at + share * LEAVE_S)

    with contextlib.suppress(TimeoutError):
        async with until(ROUNDS):
            await changes.settle()
            await rounds.settle()
    with contextlib.suppress(TimeoutError):
        async with until(SNAPSHOT):
            await rounds.drop()
    parts.activity.leave()
    await changes.put_away(begun_at + SNAPSHOT * LEAVE_S)
    parts.save()
    tick = parts.facts.clock.tick()
    try:
        async with until(HAND_OVER):
            await keeper.hand_over(tick)
    except TimeoutError:
        log.warning("not all that only this peer has could be handed over in time; it is saved here")
    with contextlib.suppress(TimeoutError):
        async with until(RECORD):
            await announcer.publish(tick, is_leaving=True)
