"""Imported by a daemon's fork server, before workers are forked from it: paces their inner steps."""

from collections.abc import Mapping

from torch import Tensor

from benchmarks.pacing import Pace
from peer.train.inner import Inner

_step = Inner.step
_paces: list[Pace] = []  # one, made by the first step: the fork server itself has none


def _paced_step(self: Inner, windows: Tensor, micro_batch: int, rates: Mapping[str, float]) -> float:
    if not _paces:
        _paces.append(Pace.from_environment())
    return _paces[0].step(lambda: _step(self, windows, micro_batch, rates))


Inner.step = _paced_step  # type: ignore[method-assign]
