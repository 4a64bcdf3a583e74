"""How much memory a sub-model will need, said before it is built, and the micro-batch that fits."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from configs.errors import DeviceError
from configs.limits import GB
from configs.machine import BasePrecision
from configs.run import ModelSpec
from peer.train.adapters import base_bytes, base_dtype
from peer.train.model import LOSS_VALUES, MIN_CHUNK
from peer.train.partition import Shapes, adapted_modules, parameter_shapes, trained_shapes

ANSWER_VALUES = 5  # float32, for each parameter: the states read from disk, the model, what it is assembled from
USABLE = 0.85  # share of the free memory that is planned with; the rest is for fragments and for what was not counted
WORKER_BYTES = GB // 2  # private memory of a worker on the CPU before it has a model: 0.47 GB were measured
NF4_BYTES = 0.516  # of a value in four bits, with the scales of its block, themselves in eight bits
HOST_VALUES = 16  # float32, for each parameter: two states, two shared buffers, θ at a cut, residual, offers in a round


@dataclass(frozen=True)
class Fit:
    """How a sub-model is laid on the box's ranks."""

    is_sharded: bool  # over the ranks, because one of them cannot hold it; else each rank is a replica
    micro_batch: int  # sequences of one rank in one forward pass


def fit(
    spec: ModelSpec,
    *,
    ranks: int,
    rows: int,
    free: int,
    micro_batch: int = 0,
    base_precision: BasePrecision = "own",
) -> Fit:
    """Decide how to lay a sub-model on `ranks` ranks that have `free` bytes each.

    `rows` is a rank's share of an inner step, in sequences; `micro_batch` the most that is wanted, 0 for no limit.
    Raises DeviceError: says what is needed, what there is, and what would fit.
    """
    usable = int(free * USABLE)
    state = state_bytes(spec, ranks, base_precision)
    is_sharded = ranks > 1 and state + activation_bytes(spec, 1) > usable
    room = usable - (state // ranks if is_sharded else state)
    fitting = min(micro_batch or rows, rows)
    while fitting > 1 and activation_bytes(spec, fitting) > room:
        fitting = math.ceil(fitting / 2)
    need = usable - room + activation_bytes(spec, fitting)
    if need > usable:
        raise DeviceError(
            f"this run's model needs {_gb(need)} on each device even for one sequence of {spec.context_length} tokens, "
            f"and {_gb(usable)} of {_gb(free)} free memory can be used; free some, give more devices, "
            f"or join a run with a smaller model: {_fitting(spec, need, usable)}"
        )
    return Fit(is_sharded, fitting)


def check_host(
    spec: ModelSpec, *, is_training: bool, free: int | None = None, base_precision: BasePrecision = "own"
) -> None:
    """Raise DeviceError if the daemon, and the worker if it trains on the CPU, need more memory than is `free`.

    `free` None means what this machine has free now, in bytes.
    """
    free = free_bytes(torch.device("cpu")) if free is None else free
    need = 4 * HOST_VALUES * _values(trained_shapes(spec))
    if is_training:
        need += state_bytes(spec, base_precision=base_precision) + activation_bytes(spec, 1)
    usable = int(free * USABLE)
    if need > usable:
        raise DeviceError(
            f"this run's model of {_parameters(spec) / 1e6:,.1f} million parameters needs {_gb(need)} of memory here, "
            f"and {_gb(usable)} of {_gb(free)} free memory can be used; free some, or choose a run with a smaller "
            f"model: {_fitting(spec, need, usable)}"
        )


def check_limit(
    spec: ModelSpec, memory_gb: float | None, devices: Sequence[str], base_precision: BasePrecision = "own"
) -> None:
    """Raise DeviceError if a worker with so little memory could not train this run's model at all.

    On the CPU what a worker is without a model counts as well.
    """
    if memory_gb is None:
        return
    model = state_bytes(spec, len(devices), base_precision) // len(devices) + activation_bytes(spec, 1)
    need = math.ceil(model / USABLE) + (WORKER_BYTES if "cpu" in devices else 0)
    if need > memory_gb * GB:
        raise DeviceError(
            f"memory_gb {memory_gb:g} is too little: a worker of this run needs {_gb(need)} even for one sequence at a "
            "time; allow it that much, or choose a run with a smaller model"
        )


def limited_bytes(device: torch.device, memory_gb: float | None, free: int) -> int:
    """Return what of the `free` bytes of `device` this process may still take, by the limit of a worker."""
    if memory_gb is None:
        return free
    own = (
        0 if device.type == "cuda" else 1024 * _numbers(Path("/proc/self/status")).get("VmData:", WORKER_BYTES // 1024)
    )
    return max(0, min(free, int(memory_gb * GB) - own))


def can_answer(spec: ModelSpec, free: int | None = None) -> bool:
    """Return whether one sub-model can be built to answer a prompt with half of the memory that is `free`, in bytes.

    `free` None means what this machine has free now.
    """
    free = free_bytes(torch.device("cpu")) if free is None else free
    return 4 * ANSWER_VALUES * _parameters(spec) <= free // 2


def state_bytes(spec: ModelSpec, ranks: int = 1, base_precision: BasePrecision = "own") -> int:
    """Predict the memory of parameters, gradients and Adam's two moments, all float32.

    What is frozen has no others, and a single rank keeps it in its own dtype, or its matrices in four bits.
    """
    trained = 16 * _values(trained_shapes(spec))
    if spec.adapter is None:
        return trained
    if ranks > 1:
        return trained + 4 * _parameters(spec)
    base = base_bytes(spec)
    if base_precision == "nf4":
        matrices = sum(math.prod(shape) for _, shape in adapted_modules(spec))
        base -= int(matrices * (base_dtype(spec).itemsize - NF4_BYTES))
    return trained + base


def activation_bytes(spec: ModelSpec, micro_batch: int) -> int:
    """Predict the memory that a forward pass of `micro_batch` sequences leaves for the backward pass.

    Counted from what autograd keeps in Transformers' Llama in float32 (a test compares); with autocast it is less.
    """
    keys = spec.num_kv_heads * (spec.hidden_size // spec.num_heads)
    layer_values = 10 * spec.hidden_size + 3 * keys + 4 * spec.mlp_size  # for each token
    tokens = micro_batch * spec.context_length
    logits = 3 * spec.vocab_size * min(tokens, max(MIN_CHUNK, LOSS_VALUES // spec.vocab_size))
    return 4 * (tokens * (spec.num_layers * layer_values + 4 * spec.hidden_size) + logits)


def free_bytes(device: torch.device) -> int:
    """Return the memory that `device` has free; of the CPU, within this container's limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = _numbers(Path("/proc/meminfo"))
    if "MemAvailable:" not in meminfo:  # not Linux: assume that half of the machine is in use
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    free = meminfo["MemAvailable:"] * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no limit
        return free
    return min(free, limit + _numbers(group / "memory.stat").get("inactive_file", 0))


def trained_values(spec: ModelSpec) -> int:
    """Return how many parameters of a sub-model are trained."""
    return _values(trained_shapes(spec))


def out_of_memory_kills() -> int:
    """Return how many processes the kernel has killed for memory since it started; 0 where that is not told."""
    return _numbers(Path("/proc/vmstat")).get("oom_kill", 0)


def _numbers(path: Path) -> dict[str, int]:
    """Read a file of lines like `name 123`."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) >= 2 and line[1].isdigit()}


def _parameters(spec: ModelSpec) -> int:
    return _values(parameter_shapes(spec))


def _values(shapes: Shapes) -> int:
    return sum(math.prod(shape) for _, shape in shapes)


def _fitting(spec: ModelSpec, need: int, usable: int) -> str:
    """Say about how large a model would fit, one shaped like `spec`."""
    return f"one of about {_parameters(spec) * usable / need / 1e6:,.1f} million parameters would fit"


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
