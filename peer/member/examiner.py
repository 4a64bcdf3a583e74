"""How well the sub-model in training predicts text that nobody trains on, looked at every few minutes."""

from collections.abc import Callable, Mapping, Sequence

from peer.member.activity import Activity
from peer.member.chronicle import Chronicle
from peer.member.session import Session

EXAMINE_S = 180.0  # between two looks
SHARE = 0.02  # of the time that may go into looking; rarer where one takes long
RISING = 5  # looks in a row, all worse than the best by RISE_NATS, after which it is said
RISE_NATS = 0.02

Points = Sequence[tuple[int, float]]  # (tokens, loss)


class Examiner:
    """Asks for the losses on held-out text, and remembers them."""

    def __init__(self, activity: Activity, session: Session, chronicle: Chronicle, now: Callable[[], float]) -> None:
        """`now` tells seconds."""
        self._activity, self._session, self._chronicle, self._now = activity, session, chronicle, now
        self._next_s = now() + EXAMINE_S

    def is_due(self) -> bool:
        """Whether to look again: only while there is training."""
        is_training = self._activity.takes_part() and self._session.progress.step_s is not None
        return is_training and self._now() >= self._next_s

    async def examine(self) -> None:
        """Look once. Raises DataError, DeviceError."""
        began = self._now()
        try:
            losses = await self._session.held_out_losses()
        finally:
            self._next_s = began + max(EXAMINE_S, (self._now() - began) / SHARE)
        self._chronicle.examined(losses)


def warning(held_out: Mapping[str, Points]) -> str:
    """Say that more training makes a model worse, of which domains, and since when; nothing while it does not."""
    rising = []
    for domain, points in sorted(held_out.items()):
        tokens, best = min(points, key=lambda point: point[1], default=(0, 0.0))
        since = [loss for at, loss in points if at > tokens]
        if len(since) >= RISING and all(loss > best + RISE_NATS for loss in since[-RISING:]):
            rising.append(f"{domain} from {best:.3f} at {tokens:,} tokens to {since[-1]:.3f}")
    if not rising:
        return ""
    return (
        f"the held-out loss rises: {'; '.join(rising)}. More training makes the model worse: `shoal fuse` takes it as "
        "it is, and more or other text helps"
    )
