"""How the training goes, as curves: held-out loss of each sub-model and of the run, the rate, the gradient's norm.

What others have measured on held-out text comes with their records; it is shown, and nothing is decided by it.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from configs.files import read_model, write_json
from peer.http.history import Curves, Point

FILE = "curves.json"
MAX_POINTS = 300  # of one curve; of more, every second goes
MAX_CURVES = 256  # sub-models and domains of which the losses are remembered
REMEDY = "delete it: it only holds the curves that the page shows"

Losses = Mapping[str, float]  # domain → nats per token of held-out text


class Learning:
    """The curves of one peer's view of its run. Moments are wall-clock seconds."""

    def __init__(self, state_dir: Path) -> None:
        """Take up the curves from before. Raises StateError if their file is damaged."""
        self._path = state_dir / FILE
        self.curves = read_model(self._path, Curves, REMEDY) or Curves()

    def trained(self, tokens: int, at: float, loss: float, rate: float, norm: float) -> None:
        """Add this peer's own step, unless it is the one that was added last."""
        if self.curves.training and self.curves.training[-1].tokens >= tokens:
            return
        told = (self.curves.training, loss), (self.curves.learning_rate, rate), (self.curves.gradient_norm, norm)
        for curve, value in told:
            _add(curve, Point(tokens=tokens, at=at, value=value))

    def examined(self, sub_model: str, age: int, at: float, losses: Losses) -> None:
        """Add what a sub-model loses on held-out text at an age, unless that look was added already."""
        for domain, loss in losses.items():
            curves = self.curves.held_out.setdefault(sub_model, {})
            if domain not in curves and sum(map(len, self.curves.held_out.values())) >= MAX_CURVES:
                continue
            curve = curves.setdefault(domain, [])
            if not curve or (age > curve[-1].tokens and loss != curve[-1].value):
                _add(curve, Point(tokens=age, at=at, value=loss))

    def summed_up(self, age: int, at: float) -> None:
        """Add a point of the run for each domain: the loss of the sub-model that knows it best, by its last look."""
        best: dict[str, float] = {}
        for curves in self.curves.held_out.values():
            for domain, curve in curves.items():
                best[domain] = min(best.get(domain, math.inf), curve[-1].value)
        for domain, loss in best.items():
            curve = self.curves.run.setdefault(domain, [])
            if not curve or (age > curve[-1].tokens and loss != curve[-1].value):
                _add(curve, Point(tokens=age, at=at, value=loss))

    def latest(self, sub_model: str) -> dict[str, float]:
        """Return what a sub-model loses on held-out text, by its last look."""
        return {domain: curve[-1].value for domain, curve in self.curves.held_out.get(sub_model, {}).items()}

    def save(self) -> None:
        """Write the curves. Raises StateError."""
        write_json(self._path, self.curves.model_dump())


def _add(curve: list[Point], point: Point) -> None:
    """Add a point; of a curve that becomes long every second one goes, but neither its ends nor the lowest."""
    if not math.isfinite(point.value):
        return
    curve.append(point)
    if len(curve) > MAX_POINTS:
        lowest = min(curve, key=lambda each: each.value)
        curve[1:-1] = list(_every_second(curve[1:-1], lowest))


def _every_second(points: Iterable[Point], kept: Point) -> Iterable[Point]:
    return (point for at, point in enumerate(points) if at % 2 or point is kept)
