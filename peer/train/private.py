"""Clipping and noise on what leaves a peer, and what that is worth: the Gaussian mechanism (Dwork and Roth, 2014, A).

Each time that something of θ is about to leave, its difference to the anchor is scaled down to a norm, and noise is
added, drawn anew. So whatever text this peer has, one offer differs by at most that norm from none, and an observer of
all offers learns little about whether the peer took part: that, for all its text together, is what ε and δ are about.
Nothing is promised beyond that, and nothing is hidden of a model that everybody has a part in.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from configs.errors import ConfigError
from configs.files import read_json, write_json

PRIVACY_FILE = "privacy.json"
DELTA = 1e-5  # the chance with which ε does not hold
MISSING = "noise is accounted by dp-accounting; say pip install 'shoal[privacy]'"


def released(anchor: Tensor, theta: Tensor, clip_norm: float, noise: float, generator: torch.Generator) -> Tensor:
    """Return the parameters that may leave in the place of `theta`, (N,): the anchor and a clipped, noised difference.

    The noise has the standard deviation `noise` times `clip_norm` in each value.
    """
    difference = theta - anchor
    norm = float(torch.linalg.vector_norm(difference))
    if norm > clip_norm:
        difference *= clip_norm / norm
    if noise:
        difference += torch.empty_like(difference).normal_(0.0, noise * clip_norm, generator=generator)
    return difference.add_(anchor)


def epsilon(releases: int, noise: float, delta: float = DELTA) -> float:
    """Return ε of so many releases, with and without this peer, by Rényi differential privacy; infinite without noise.

    Raises ConfigError when the library that accounts is not installed.
    """
    if not noise:
        return float("inf")
    if not releases:
        return 0.0
    try:
        from dp_accounting import dp_event, rdp  # scipy: a second
    except ImportError:
        raise ConfigError(MISSING) from None
    accountant = rdp.RdpAccountant()
    accountant.compose(dp_event.GaussianDpEvent(noise), releases)
    return float(accountant.get_epsilon(delta))


@dataclass
class Privacy:
    """What one peer lets out: clipped to `clip_norm`, with noise of so many times that norm; counted in `folder`."""

    clip_norm: float
    noise: float
    folder: Path
    releases: int = 0
    epsilon: float = 0.0
    _generator: torch.Generator = field(default_factory=lambda: _unpredictable(), repr=False)

    @classmethod
    def of(cls, clip_norm: float | None, noise: float, folder: Path) -> "Privacy | None":
        """Return that of a peer, which goes on counting where it left off; None if it clips nothing.

        Raises StateError (the count is damaged), ConfigError (the library that accounts is not installed).
        """
        if clip_norm is None:
            return None
        kept = read_json(folder / PRIVACY_FILE, "delete it, and count what has left until now as well") or {}
        releases = int(kept.get("releases", 0))
        return cls(clip_norm, noise, folder, releases, epsilon(releases, noise))

    def release(self, anchor: Tensor, theta: Tensor) -> Tensor:
        """Return what may leave in the place of `theta`, which is counted before anybody has it. Raises StateError."""
        self.releases += 1
        self.epsilon = epsilon(self.releases, self.noise)
        kept = {"releases": self.releases, "clip_norm": self.clip_norm, "noise": self.noise}
        write_json(self.folder / PRIVACY_FILE, kept)
        return released(anchor, theta, self.clip_norm, self.noise, self._generator)

    def told(self) -> str:
        """Say what has left so far, and what that is worth."""
        worth = f"ε {self.epsilon:.3g} at δ {DELTA:g}" if self.noise else "no noise, so nothing is promised"
        return f"{self.releases} releases, each clipped to a norm of {self.clip_norm:g}, noise {self.noise:g}: {worth}"


def _unpredictable() -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(os.urandom(8), "big", signed=True))
