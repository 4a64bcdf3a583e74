"""What peers learn in a round: a drift that all share and noise of their own, half of the energy each.

Nothing draws replicas together but what the code under test does: in training the loss does, too.
"""

import math

import torch
from torch import Tensor

SIZE = 0.01  # RMS of a pseudo-gradient; that of the weights is 1
NOISE = 0.5  # share of a pseudo-gradient's energy that is the peer's own


class Work:
    """A source of pseudo-gradients, the same for the same seed."""

    def __init__(self, values: int, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._values = values
        self.learnt = torch.zeros(values, dtype=torch.float64)  # the mean of all pseudo-gradients so far, summed up

    def weights(self) -> Tensor:
        """Return the weights to begin with, (values,)."""
        return self._normal(self._values)

    def pseudo_gradients(self, peers: int) -> Tensor:
        """Return what the peers learn in one round, (peers, values)."""
        drift, noise = self._normal(1, self._values), self._normal(peers, self._values)
        learnt = SIZE * (math.sqrt(1 - NOISE) * drift + math.sqrt(NOISE) * noise)
        self.learnt += learnt.double().mean(0)
        return learnt

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self._generator)
