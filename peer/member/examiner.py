"""How well the sub-model in training predicts text that nobody trains on, looked at every few minutes.

The state that was best is kept, and a peer whose sub-model has become worse for long in every domain pauses by itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from peer.member.activity import Activity
from peer.member.best import keep_best
from peer.member.chronicle import Chronicle
from peer.member.session import Session

log = logging.getLogger(__name__)

EXAMINE_S = 180.0  # between two looks
SHARE = 0.02  # of the time that may go into looking; rarer where one takes long
RISING = 5  # looks in a row, all worse than the best by RISE_NATS, after which it is said
RISE_NATS = 0.02
OVER = 10  # such looks in a row, in every domain, after which this peer pauses

Points = Sequence[tuple[int, float]]  # (tokens, loss)


class Examiner:
    """Asks for the losses on held-out text, and remembers them."""

    def __init__(
        self,
        activity: Activity,
        session: Session,
        chronicle: Chronicle,
        now: Callable[[], float],
        folder: Path | None,
        pause: Callable[[str], Awaitable[None]],
    ) -> None:
        """`now` tells seconds; the best states are kept in `folder`, if any; `pause` is told why when it is over."""
        self._activity, self._session, self._chronicle, self._now = activity, session, chronicle, now
        self.folder, self._pause = folder, pause
        self.last: tuple[str, Mapping[str, float]] = "", {}  # sub-model and losses of the last look
        self._next_s = now() + EXAMINE_S

    def is_due(self) -> bool:
        """Whether to look again: only while there is training."""
        is_training = self._activity.takes_part() and self._session.progress.step_s is not None
        return is_training and self._now() >= self._next_s

    async def examine(self) -> None:
        """Look once. Raises DataError, DeviceError."""
        began = self._now()
        sub_model = self._session.sub_model
        try:
            losses = await self._session.held_out_losses()
        finally:
            self._next_s = began + max(EXAMINE_S, (self._now() - began) / SHARE)
        if not losses or self._session.sub_model != sub_model:
            return
        self._chronicle.examined(losses)
        self.last = sub_model, losses
        if self.folder is not None:
            await asyncio.to_thread(keep_best, self.folder, sub_model, losses, self._session.states())
        if is_over(self._chronicle.held_out) and not self._activity.is_paused:
            why = f"paused by itself: {warning(self._chronicle.held_out, self.folder)}"
            self._chronicle.happened(f"{why}; go on all the same with `shoal resume`")
            log.warning("%s; go on all the same with `shoal resume`", why)
            await self._pause(why)
            self._chronicle.held_out.clear()  # who resumes has as many looks again


def is_over(held_out: Mapping[str, Points]) -> bool:
    """Say whether every domain that was ever looked at has become worse for so long that training had better stop."""
    return bool(held_out) and all(_rise(points, OVER) for points in held_out.values())


def warning(held_out: Mapping[str, Points], folder: Path | None) -> str:
    """Say that more training makes a model worse, of which domains, and since when; nothing while it does not.

    `folder` is where the best states are kept, if they are.
    """
    rising = [f"{domain} from {rise}" for domain, points in sorted(held_out.items()) if (rise := _rise(points, RISING))]
    if not rising:
        return ""
    best = f"; `shoal fuse {folder.parent} --best --out model` takes the best state" if folder is not None else ""
    rises = "; ".join(rising)
    return f"the held-out loss rises: {rises}. More training makes the model worse, more or other text helps{best}"


def _rise(points: Points, looks: int) -> str:
    """Say from what to what a loss has risen, if so many last looks in a row are worse than the best."""
    tokens, best = min(points, key=lambda point: point[1], default=(0, 0.0))
    since = [loss for at, loss in points if at > tokens]
    if len(since) < looks or not all(loss > best + RISE_NATS for loss in since[-looks:]):
        return ""
    return f"{best:.3f} at {tokens:,} tokens to {since[-1]:.3f}"
