"""Whether somebody is just coming to this run: then a lone holder takes no step, so that one download is enough.

A step without others leaves no offer by which a newcomer could follow: it would download the whole state once more.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable

log = logging.getLogger(__name__)

ARRIVE_S = 30.0  # from a newcomer's last question until it counts in the groups; on a busy core it starts that slowly
ARRIVE_TICKS = 4  # the same where ticks are long: its record is written at one and acts two later
MAX_EXPECTED = 64  # newcomers at the same time; of more, those who asked last


class Newcomers:
    """Those who have asked for the run and are not members yet.

    Members ask, too: they keep blocks for others, again and again, and nobody waits for that.
    """

    def __init__(self, now: Callable[[], float], tick_s: float, is_member: Callable[[str], bool]) -> None:
        self._now, self._is_member = now, is_member
        self._arrive_s = max(ARRIVE_S, ARRIVE_TICKS * tick_s)
        self._told: list[str] = []  # why peers could not join: each is said once
        self._until: OrderedDict[str, float] = OrderedDict()  # newcomer → when it is waited for no more

    def asked(self, peer_id: str, apart: str = "") -> None:
        """Note that a peer has asked for the run, or, if it is `apart` and cannot join, say why."""
        if apart:
            if apart not in self._told:
                log.warning("%s", apart)
                self._told = [*self._told, apart][-MAX_EXPECTED:]
            return
        self._until[peer_id] = self._now() + self._arrive_s
        self._until.move_to_end(peer_id)
        if len(self._until) > MAX_EXPECTED:
            self._until.popitem(last=False)

    def fetched(self, peer_id: str) -> None:
        """Note that a peer has asked for a piece of a state, or of the text."""
        if self._is_expected(peer_id):
            self.asked(peer_id)

    def are_expected(self) -> bool:
        """Say whether somebody may be on the way."""
        for peer_id in list(self._until):
            if not self._is_expected(peer_id):
                del self._until[peer_id]
        return bool(self._until)

    def _is_expected(self, peer_id: str) -> bool:
        return self._now() < self._until.get(peer_id, 0.0) and not self._is_member(peer_id)
