"""Muon against torch's own, and against what an orthogonalised matrix is."""

import pytest
import torch
from torch.optim import Muon as TorchMuon

from peer.train.muon import Muon, orthogonalised

COEFFICIENTS = (3.4445, -4.7750, 2.0315)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("shape", [(8, 8), (16, 48), (48, 16)])
def test_singular_values_come_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape), COEFFICIENTS, 5, 1e-7))
    assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize("shape", [(16, 48), (48, 16)])
def test_steps_are_those_of_torch_but_for_its_rounding_to_bfloat16(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimizers = [
        Muon([{"params": [ours]}], lr=0.1, weight_decay=0.1),
        TorchMuon([{"params": [theirs]}], lr=0.1, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        gradient = torch.randn(shape)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (ours - 1).norm()
    assert 0 < (ours - theirs).norm() < 0.02 * moved


def test_the_iteration_is_in_float32_where_bfloat16_would_be_emulated() -> None:
    assert orthogonalised(torch.eye(4), COEFFICIENTS, 5, 1e-7).dtype == torch.float32
