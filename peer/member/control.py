"""What this machine asks of its peer's training: to pause, to go on, to leave."""

from peer.member.activity import Activity
from peer.member.session import Session


class Control:
    """Carries out what the owner of this machine asks, or what a rule of the member does in his place."""

    def __init__(self, activity: Activity, session: Session) -> None:
        self._activity, self._session = activity, session

    async def leave(self) -> None:
        """Hand over, save and go, soon."""
        self._activity.leaving.set()

    async def pause(self) -> None:
        """Stop training, but go on serving. Raises UsageError if this peer leaves."""
        self._activity.pause()
        await self._session.pause()

    async def resume(self) -> None:
        """Train again. Raises UsageError if this peer leaves."""
        self._activity.resume()
        await self._session.resume()
