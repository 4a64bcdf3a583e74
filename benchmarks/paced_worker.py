"""Imported by a daemon's fork server, before workers are forked from it: paces their inner steps.

The sleep comes before the parameters change, as a GPU's work would: whoever looks at a step in mid-sleep sees it under
way. What the change itself takes is left out of the next sleep.
"""

import time
from collections.abc import Mapping

from torch import Tensor

from benchmarks.pacing import Pace
from peer.train.inner import Inner

_gradient, _update = Inner.gradient, Inner.update
_paces: list[Pace] = []  # one, made by the first step: the fork server itself has none


def _paced_gradient(self: Inner, windows: Tensor, micro_batch: int) -> float:
    if not _paces:
        _paces.append(Pace.from_environment())
    return _paces[0].step(lambda: _gradient(self, windows, micro_batch))


def _timed_update(self: Inner, rates: Mapping[str, float]) -> None:
    began = time.monotonic()
    _update(self, rates)
    _paces[0].reserved_s = time.monotonic() - began


Inner.gradient = _paced_gradient  # type: ignore[method-assign]
Inner.update = _timed_update  # type: ignore[method-assign]
