"""Muon (Jordan et al., 2024) whose iteration runs in the precision in which this device is quick.

torch's own always iterates in bfloat16. Few processors multiply matrices in it: on one that does not, that took 84 % of
an inner step of the preset `tiny`. Everything else is torch's.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Muon as TorchMuon

MOMENTUM_KEY = "momentum_buffer"  # of a parameter's state, as torch names it


def orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Return the matrix with its singular values near one: quintic Newton-Schulz, in bfloat16 on a GPU, else float32.

    `coefficients` are a, b, c of the step X ← aX + b(XXᵀ)X + c(XXᵀ)²X.
    """
    a, b, c = coefficients
    is_tall = matrix.size(0) > matrix.size(1)
    x = matrix.T if is_tall else matrix
    x = x.to(torch.bfloat16 if x.device.type == "cuda" else torch.float32)
    x = x / x.norm().clamp(min=eps)  # at most 1 in the spectral norm
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


class Muon(TorchMuon):
    """torch's Muon with steps whose size is AdamW's (2502.16982, 2.2), so that one learning rate serves both."""

    def __init__(self, groups: list[dict[str, Any]], lr: float, weight_decay: float = 0.1) -> None:
        super().__init__(groups, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

        self._directions: list[tuple[dict[str, Any], Tensor, Tensor]] = []  # group, parameter, direction

    @torch.no_grad()
    def prepare(self) -> None:
        """Turn the gradients into the directions of the next step: most of the work, and it needs no parameter."""
        self._directions = [
            (group, parameter, self._direction(group, parameter))
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step: what was prepared, or, if nothing was, what the gradients say."""
        assert closure is None
        if not self._directions:
            self.prepare()
        for group, parameter, direction in self._directions:
            rate = group["lr"]
            parameter.mul_(1 - rate * group["weight_decay"])
            parameter.add_(direction, alpha=-rate * 0.2 * max(parameter.shape) ** 0.5)
        self._directions = []

    def _direction(self, group: dict[str, Any], parameter: Tensor) -> Tensor:
        gradient = parameter.grad
        assert gradient is not None
        buffer = self.state[parameter].setdefault(MOMENTUM_KEY, torch.zeros_like(gradient))
        buffer.lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(buffer, group["momentum"])  # Nesterov
        parameter.grad = None
        return orthogonalised(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"]).to(parameter.dtype)
