"""How far training is, as the daemon shows it."""

from dataclasses import dataclass, replace
from statistics import median

from peer.train.messages import Stepped

RECENT = 5  # steps by which one goes that is neither the quickest nor the slowest


@dataclass(frozen=True)
class Progress:
    """How far training is."""

    position: int = 0  # inner steps taken through the data, dropped ones included
    loss: float | None = None  # nats per token, of the last step
    tokens: int = 0  # since `load`, dropped ones excluded
    tokens_per_s: float = 0.0
    step_s: float | None = None  # the last inner step
    recent_s: tuple[float, ...] = ()  # the last inner steps that were told
    learning_rate: float = 0.0  # of the last step
    gradient_norm: float = 0.0  # before clipping
    load: int = 0  # of how many `load`s this is the progress: with each, tokens are counted from zero

    @property
    def usual_step_s(self) -> float | None:
        """How long a step takes: a single slow one on a busy machine says little of the next."""
        return median(self.recent_s) if self.recent_s else self.step_s

    def stepped(self, told: Stepped) -> "Progress":
        """Return the progress that a worker tells; the speed stays what it was where the worker does not know it."""
        recent = self.recent_s if told.step_s is None else (*self.recent_s, told.step_s)[-RECENT:]
        speed = self.tokens_per_s if told.tokens_per_s is None else told.tokens_per_s
        return replace(
            self,
            position=told.position,
            loss=told.loss,
            tokens=told.tokens,
            tokens_per_s=speed,
            step_s=told.step_s,
            recent_s=recent,
            learning_rate=told.learning_rate,
            gradient_norm=told.gradient_norm,
        )
