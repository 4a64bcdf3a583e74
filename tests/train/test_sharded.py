"""Two ranks, replicated or sharded, train like one, and copy their rows in and out of the same flat tensors."""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.patience import HANG_S
from configs.run import InnerSpec, ModelSpec
from peer.train.inner import Inner
from peer.train.launch import shared
from peer.train.model import initial_parameters
from peer.train.partition import COMMON, Strategy
from peer.train.sharded import Ranks, Rows, build_sharded
from peer.train.theta import Theta
from peer.workers.ranks import preload

STEPS = 6
TOLERANCE = 1e-4  # of a loss


def spec_of(tied: bool) -> ModelSpec:
    return ModelSpec(
        vocab_size=301,  # does not divide by two
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        mlp_size=48,
        context_length=16,
        tie_embeddings=tied,
    )


def start_of(spec: ModelSpec) -> Tensor:
    named = initial_parameters(spec, 0)
    return torch.cat([named[slot.name].reshape(-1) for slot in Strategy("experts", 1).layout(COMMON, spec).slots])


def train(ranks: Ranks, spec: ModelSpec, optimizer: str, is_sharded: bool, flat: Tensor) -> list[float]:
    """Train from `flat` for a few steps on fixed batches, adding 0.01 to θ halfway; leave θ in `flat`."""
    torch.set_num_threads(1)
    layout = Strategy("experts", 1).layout("expert.0", spec)
    module = build_sharded(spec, ranks.device, ranks.mesh(is_sharded))
    settings = InnerSpec.model_validate({"learning_rate": 0.003, "batch_tokens": 64, "optimizer": optimizer})
    rows, inner = Rows(module, layout), Inner(settings, module, ranks, is_bfloat16=False)
    inner.use(layout, is_fresh=True)
    common = Strategy("experts", 1).layout(COMMON, spec)
    blocks = [Strategy("experts", 1).derive(block, flat[: common.size], spec) for block in layout.blocks]
    rows.copy_in(torch.cat(blocks), layout.blocks)
    losses = []
    for step in range(STEPS):
        if step == STEPS // 2:
            theta = Theta(rows)
            theta.shift_later(torch.full_like(flat, 0.01), torch.zeros_like(flat), ["trunk"])
            theta.take_up()
        windows = torch.randint(0, spec.vocab_size, (5, 17), generator=torch.Generator().manual_seed(step))
        losses.append(inner.step(windows, 2, {"trunk": 0.003, "expert.0": 0.002}))
    ranks.sum(0)  # everybody has read the start
    rows.copy_out(flat)
    ranks.sum(0)
    return losses


def be_rank(
    ours: Connection, index: int, spec: ModelSpec, optimizer: str, is_sharded: bool, flat: Tensor, folder: Path
) -> None:
    ranks = Ranks(index, 2, torch.device("cpu"))
    ranks.join(str(folder / "rendezvous"))
    ours.send(train(ranks, spec, optimizer, is_sharded, flat))


@pytest.mark.parametrize(
    ("optimizer", "is_sharded", "tied"),
    [
        ("adamw", False, True),
        ("adamw", True, True),
        ("adamw", True, False),
        ("muon", False, True),
        ("muon", True, True),
    ],
)
def test_two_ranks_train_like_one(tmp_path: Path, optimizer: str, is_sharded: bool, tied: bool) -> None:
    preload()
    spec = spec_of(tied)
    alone, together = start_of(spec), shared(start_of(spec).numel())
    together.copy_(alone)
    expected = train(Ranks(0, 1, torch.device("cpu")), spec, optimizer, False, alone)
    context = multiprocessing.get_context("forkserver")
    pairs = [context.Pipe() for _ in range(2)]
    processes = [
        context.Process(target=be_rank, args=(pairs[index][1], index, spec, optimizer, is_sharded, together, tmp_path))
        for index in range(2)
    ]
    for process, pair in zip(processes, pairs, strict=True):
        process.start()
        pair[1].close()
    for pair in pairs:
        assert pair[0].poll(HANG_S)
        assert pair[0].recv() == pytest.approx(expected, abs=TOLERANCE)
        pair[0].close()
    for process in processes:
        process.join()
    assert (together - alone).abs().mean() < TOLERANCE
