"""How far training is, as the daemon shows it."""

from dataclasses import dataclass, replace

from peer.train.messages import Stepped


@dataclass(frozen=True)
class Progress:
    """How far training is."""

    position: int = 0  # inner steps taken through the data, dropped ones included
    loss: float | None = None  # nats per token, of the last step
    tokens: int = 0  # since `load`, dropped ones excluded
    tokens_per_s: float = 0.0
    step_s: float | None = None  # the last inner step

    def stepped(self, told: Stepped) -> "Progress":
        """Return the progress that a worker tells; the speed stays what it was where the worker does not know it."""
        new = Progress(told.position, told.loss, told.tokens, self.tokens_per_s, told.step_s)
        return new if told.tokens_per_s is None else replace(new, tokens_per_s=told.tokens_per_s)
