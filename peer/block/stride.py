"""How many of its block's rounds make one of a peer's own: decided by the peer, from what its rounds came to.

A peer that is too slow for the rounds of a block takes part in every second of them, or every fourth, and so on; nobody
waits for it. Its member record says so, and the others leave it out of the rounds between. Where all are too slow all
do so, and then the rounds themselves are as much longer: the cut of a round follows the stride of its group
(`timing.group_stride`). All of this is arithmetic on what this peer has seen; what others make of it is membership.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_STRIDE = 16  # offers of older rounds are not kept, and without them a peer downloads the state instead
LATE_ROUNDS = 2  # one after the other, in which the own offer came after the cut
FAILED_ROUNDS = 5  # one after the other, that came to nothing although others hold the block
GOOD_ROUNDS = 8  # one after the other, that were sealed with time to spare: then shorter ones are tried
SPARE = 0.25  # of the time until the cut; a good round has its offer ready by then
RELAXED = 0.7  # of a round of half the length; a step must fit into that before rounds become shorter


@dataclass(frozen=True)
class Trial:
    """What one round showed: when this peer's offer was ready, when the cut came, and whether it was sealed."""

    offer_s: float | None  # after the tick; None: it was not ready when the round ended
    cut_s: float  # after the tick
    is_sealed: bool  # by this peer, together with others

    @property
    def is_late(self) -> bool:
        """Whether the others can not have had the offer in time."""
        return self.offer_s is None or self.offer_s > self.cut_s

    @property
    def is_good(self) -> bool:
        """Whether there was time to spare."""
        return self.is_sealed and self.offer_s is not None and self.offer_s <= SPARE * self.cut_s


def next_stride(stride: int, trials: Sequence[Trial], step_s: float | None, round_s: float) -> tuple[int, str]:
    """Return the stride to take next and, if it is another one, why.

    `trials` are the rounds since the last change, oldest first; `step_s` is the length of an inner step, `round_s`
    that of the block's rounds, without a stride.
    """
    if step_s is not None and step_s > stride * round_s and stride < MAX_STRIDE:
        return 2 * stride, f"a step takes {step_s:.2g} s, a round {stride * round_s:.2g} s"
    if len(trials) >= LATE_ROUNDS and all(trial.is_late for trial in trials[-LATE_ROUNDS:]) and stride < MAX_STRIDE:
        last = trials[-1]
        ready = "is not ready in time" if last.offer_s is None else f"is ready {last.offer_s:.2g} s after the tick"
        return 2 * stride, f"an offer {ready}, the cut comes after {last.cut_s:.2g} s"
    if len(trials) >= FAILED_ROUNDS and not any(trial.is_sealed for trial in trials) and stride < MAX_STRIDE:
        return 2 * stride, f"{len(trials)} rounds in a row came to nothing"
    fits = step_s is None or step_s < RELAXED * stride / 2 * round_s
    if stride > 1 and fits and len(trials) >= GOOD_ROUNDS and all(trial.is_good for trial in trials[-GOOD_ROUNDS:]):
        return stride // 2, f"{GOOD_ROUNDS} rounds in a row had time to spare"
    return stride, ""
