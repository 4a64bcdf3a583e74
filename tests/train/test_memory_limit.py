"""A worker's limit of memory: checked before, planned with, and kept."""

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest
import torch

from configs.errors import DeviceError
from configs.limits import GB
from configs.run import RunSpec
from peer.train.device import _limit, kind_of
from peer.train.memory import WORKER_BYTES, check_limit, limited_bytes

CPU = torch.device("cpu")


def test_too_little_is_refused_and_says_how_much_it_takes(smallest_run: Callable[..., RunSpec]) -> None:
    model = smallest_run().model
    check_limit(model, None, ("cpu",))
    check_limit(model, 1.0, ("cpu",))
    with pytest.raises(DeviceError, match=r"memory_gb 0\.3 is too little: a worker of this run needs 0\.50 GB"):
        check_limit(model, 0.3, ("cpu",))
    check_limit(model, 0.3, ("cuda:0",))  # whose memory holds no interpreter


def test_a_limit_only_ever_lessens_what_is_free() -> None:
    assert limited_bytes(CPU, None, 7 * GB) == 7 * GB
    assert limited_bytes(CPU, 1000.0, 7 * GB) == 7 * GB
    assert limited_bytes(CPU, 0.001, 7 * GB) == 0, "what this process is without a model counts"
    assert limited_bytes(torch.device("cuda"), 2.0, 7 * GB) == 2 * GB


def _take(pipe: Connection, limit: int, size: int) -> None:
    _limit(CPU, limit)
    try:
        torch.ones(size // 4).sum()
    except RuntimeError as error:
        pipe.send(kind_of(error))
    else:
        pipe.send("taken")
    os._exit(0)


@pytest.mark.parametrize(("size", "outcome"), [(GB // 10, "taken"), (3 * GB, "memory")])
def test_more_than_the_limit_is_not_given_and_known_as_too_little_memory(size: int, outcome: str) -> None:
    """So that the worker starts again with a smaller micro-batch."""
    ours, theirs = multiprocessing.Pipe()
    limit = WORKER_BYTES + GB
    process = multiprocessing.get_context("spawn").Process(target=_take, args=(theirs, limit, size))
    process.start()
    try:
        assert ours.poll(300) and ours.recv() == outcome
    finally:
        process.kill()
        process.join()
