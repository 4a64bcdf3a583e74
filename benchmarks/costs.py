"""What a model costs: parameters, FLOPs of a token, and memory in training. Counted and measured, not estimated."""

import os
from multiprocessing import get_context

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.usage import peak_mib
from configs.run import InnerSpec, ModelSpec
from peer.train.inner import Inner
from peer.train.model import initial_parameters
from peer.train.partition import COMMON, Strategy
from peer.train.sharded import Ranks, Rows, build_sharded

CPU = torch.device("cpu")
STEPS = 3  # after which an optimizer has all that it keeps


def parameters(model: ModelSpec) -> int:
    """Return the number of parameters."""
    return Strategy("replicas", 1).layout(COMMON, model).size


def flops_per_token(model: ModelSpec) -> float:
    """Return the FLOPs of training on one token, forward and backward: matrix products, as counted, and attention.

    Each token attends to half a context on average: 2·T·H for its scores and its values, thrice with the gradients.
    """
    module = build_sharded(model, CPU, None)
    layout = Strategy("replicas", 1).layout(COMMON, model)
    Rows(module, layout).copy_in(torch.zeros(layout.size), [COMMON])
    windows = torch.zeros((1, model.context_length + 1), dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        module(windows).backward()
    attention = 6 * model.num_layers * model.context_length * model.hidden_size
    return counter.get_total_flops() / model.context_length + attention


def peak_bytes(model: ModelSpec, inner: InnerSpec, micro_batch: int) -> int:
    """Return the memory that training takes at its peak, in a process of its own, over what its imports take."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_train, (model, inner, micro_batch))


def _train(model: ModelSpec, inner: InnerSpec, micro_batch: int) -> int:
    torch.set_num_threads(1)
    before = peak_mib(os.getpid())
    ranks = Ranks(0, 1, CPU)
    module = build_sharded(model, CPU, None)
    module.model.load_state_dict(initial_parameters(model, 0), strict=False)
    stepper = Inner(inner, module, ranks, is_bfloat16=False)
    stepper.use(Strategy("replicas", 1).layout(COMMON, model), is_fresh=True)
    windows = torch.randint(model.vocab_size, (micro_batch, model.context_length + 1))
    for _ in range(STEPS):
        stepper.step(windows, micro_batch, {COMMON: 1e-4})
    return int((peak_mib(os.getpid()) - before) * 2**20)
