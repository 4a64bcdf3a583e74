"""Whether somebody is just coming to this run: then a lone holder takes no step, so that one download is enough.

A step without others leaves no offer by which a newcomer could follow: it would download the whole state once more.
"""

from collections.abc import Callable

ARRIVE_S = 30.0  # from a newcomer's last question until it counts in the groups; on a busy core it starts that slowly
ARRIVE_TICKS = 4  # the same where ticks are long: its record is written at one and acts two later


class Newcomers:
    """Those who have asked for the run and are not members yet, as far as can be told by their questions.

    Who asks for a state without having asked for the run is a member that keeps it, and nobody waits for that.
    """

    def __init__(self, now: Callable[[], float], tick_s: float) -> None:
        self._now = now
        self._arrive_s = max(ARRIVE_S, ARRIVE_TICKS * tick_s)
        self._until = float("-inf")

    def asked(self) -> None:
        """Note that somebody has asked for the run."""
        self._until = self._now() + self._arrive_s

    def fetched(self) -> None:
        """Note that somebody has asked for a piece of a state."""
        if self.are_expected():
            self.asked()

    def are_expected(self) -> bool:
        """Say whether somebody may be on the way."""
        return self._now() < self._until
