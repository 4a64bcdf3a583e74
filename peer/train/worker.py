"""The worker: one process for each device, which trains and does nothing else.

Between two inner steps it answers what the daemon asks over a socket. The state
travels through two flat float32 buffers shared with the daemon: the *anchor*, which the daemon writes, and the
*snapshot*, which the worker writes. The daemon's side is `peer/supervisor.py`.

Asked (each answered by every rank with `done`, in order):
    load       θ ← anchor, as this sub-model, from these sources
    snapshot   snapshot ← θ; the answer says what it contains
    apply      θ ← θ + anchor − snapshot, for these blocks; the daemon may have written another base into snapshot
    sources    sample from these token files from now on
    pause, resume
    save, restore   Adam's moments, to and from files of a directory
Told, by rank 0: ready, progress, diverged, stalled. Told by any rank before it ends: error.

θ goes back to the anchor by itself when training diverges. An *epoch* counts these returns, so that an `apply` that
was meant for what θ was before is noticed: then θ ← anchor.
"""

import contextlib
import math
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
from torch import Tensor

from configs.errors import DeviceError, ShoalError, StateError
from peer.train.channel import Channel, Message
from peer.train.data import Sampler, Source
from peer.train.inner import RAMP_STEPS, Inner, Schedule, Watch
from peer.train.launch import Setup, missing_device
from peer.train.memory import fit, free_bytes
from peer.train.partition import COMMON, Strategy
from peer.train.sharded import Ranks, Rows, build_sharded, fill_base

PROGRESS_SECONDS = 0.5
MAX_FAILURES = 3  # returns to the anchor without RAMP_STEPS good steps between them
OOM_SCORE = 500  # the kernel, short of memory, kills a worker before it kills a daemon


def work(sock: socket.socket, setup: Setup, snapshot: Tensor, anchor: Tensor) -> None:
    """Be one rank until the daemon closes the socket. Ends with exit code 1 after reporting an error."""
    # A Ctrl-C or a service's stop reaches the whole process group; only the daemon decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    channel = Channel(sock)
    try:
        Worker(channel, setup, snapshot, anchor).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the daemon is gone
    except Exception as error:
        kind = _kind(error)
        named = str(error) if isinstance(error, ShoalError) else f"{type(error).__name__}: {error}"[:2000]
        message = "out of memory" if kind == "memory" else named  # how many bytes of which pool is in the detail
        with contextlib.suppress(OSError):
            channel.send({"type": "error", "kind": kind, "message": message, "detail": traceback.format_exc()[-8000:]})
        os._exit(1)  # a broken process group can hang an orderly exit


class Worker:
    """One rank: its sub-model, its place in the data, and what of its work is safe in the anchor."""

    def __init__(self, channel: Channel, setup: Setup, snapshot: Tensor, anchor: Tensor) -> None:
        spec = setup.spec
        self._channel, self._snapshot, self._anchor = channel, snapshot, anchor
        self._spec, self._seed = spec, setup.seed
        self._ranks = Ranks(setup.rank, len(setup.devices), _open_device(setup))
        self._ranks.join(setup.rendezvous)
        self._batch = spec.inner.batch_tokens // spec.model.context_length  # sequences in one inner step
        self._batch_tokens = self._batch * spec.model.context_length
        sharing = sum(device == setup.devices[setup.rank] for device in setup.devices)  # ranks on this device
        self._fit = fit(
            spec.model,
            ranks=self._ranks.count,
            rows=math.ceil(self._batch / self._ranks.count),
            free=int(self._ranks.least(free_bytes(self._ranks.device) // sharing)),
            micro_batch=setup.micro_batch,
        )
        self._module = build_sharded(spec.model, self._ranks.device, self._ranks.mesh(self._fit.is_sharded))
        if setup.base is not None:
            fill_base(self._module, spec.model, setup.base)
        is_bfloat16 = setup.precision == "bfloat16" or (
            setup.precision == "auto" and self._ranks.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        self._inner = Inner(spec.inner, self._module, self._ranks, is_bfloat16)
        self._schedule = Schedule(spec, Strategy.of(spec.strategy, 1))
        self._sub_model = COMMON
        self._layout = self._schedule.strategy.layout(COMMON, spec.model)
        self._rows = Rows(self._module, self._layout)
        self._sampler: Sampler | None = None
        self._watch = Watch()
        self._ages: dict[str, int] = {}
        self._tokens = 0  # trained since `load`, without what was dropped
        self._anchor_tokens = 0  # of these, what is safe in the anchor
        self._snapshot_tokens = 0  # of these, what was in the snapshot when it was taken
        self._epoch = 0
        self._position = 0  # inner steps of the data, dropped ones included
        self._losses: list[float] = []  # since the last snapshot
        self._descends = False  # whether θ contains what the last snapshot contained
        self._is_paused = self._is_stalled = False
        self._good_steps, self._failures = 0, 0
        self._shown_at, self._shown_tokens = 0.0, 0

    def run(self) -> None:
        """Train, and answer between two steps. Raises EOFError when the daemon is gone."""
        self._tell({"type": "ready", "micro_batch": self._fit.micro_batch, "is_sharded": self._fit.is_sharded})
        while True:
            # All ranks answer at the same step: rank 0 looks at its socket for all of them. While nobody
            # trains nobody waits for rank 0 in a collective either, so a long pause cannot time one out.
            while not self._is_training or self._ranks.agree(self._channel.is_readable()):
                self._answer(self._channel.receive())
            try:
                self._step()
            except ShoalError as error:  # the data; the same on every rank
                self._stall(str(error))

    @property
    def _is_training(self) -> bool:
        return self._sampler is not None and not self._is_paused and not self._is_stalled

    def _answer(self, message: Message) -> None:
        answer: Message = {"type": "done", "id": message.pop("id")}
        try:
            answer.update(getattr(self, f"_on_{message.pop('type')}")(**message) or {})
        except ShoalError as error:
            answer["error"] = str(error)
            answer["error_type"] = type(error).__name__
        self._channel.send(answer)
        self._shown_at = 0.0  # what was not training must not count in the speed

    def _on_load(self, sub_model: str, num_domains: int, sources: list[Message], place: Message) -> None:
        self._on_sources(sources)
        self._schedule = Schedule(self._spec, Strategy.of(self._spec.strategy, num_domains))
        self._layout = self._schedule.strategy.layout(sub_model, self._spec.model)
        self._rows = Rows(self._module, self._layout)
        # Adam's moments stay true when a sub-model grows out of the common model, not between two experts.
        self._inner.use(self._layout, is_fresh=self._sub_model not in (COMMON, sub_model))
        self._sub_model = sub_model
        self._rows.copy_in(self._anchor, self._layout.blocks)
        self._ages, self._epoch, self._position = place["ages"], place["epoch"], place["position"]
        self._tokens = self._anchor_tokens = place["tokens"]
        self._snapshot_tokens = place["snapshot_tokens"]
        self._losses, self._descends = [], False

    def _on_snapshot(self) -> Message:
        self._rows.copy_out(self._snapshot)
        self._descends = True
        self._snapshot_tokens = self._tokens
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        steps, self._losses = len(self._losses), []
        return {"tokens": self._tokens, "steps": steps, "loss": loss, "position": self._position}

    def _on_apply(self, ages: dict[str, int], epoch: int) -> None:
        if epoch == self._epoch:
            self._rows.shift(self._anchor, self._snapshot, ages)
        else:
            self._rows.copy_in(self._anchor, ages)
        if not self._descends:  # what the snapshot contained was dropped here, and comes back with the anchor
            self._tokens += self._snapshot_tokens - self._anchor_tokens
            self._descends = True
        self._anchor_tokens = self._snapshot_tokens
        self._ages.update(ages)
        self._is_stalled = False

    def _on_sources(self, sources: list[Message]) -> None:
        self._sampler = None
        length = self._spec.model.context_length
        self._sampler = Sampler([Source(**source) for source in sources], length, self._seed)
        self._watch = Watch()
        self._is_stalled = False

    def _on_pause(self) -> None:
        self._is_paused = True

    def _on_resume(self) -> None:
        self._is_paused = False

    def _on_save(self, directory: str) -> None:
        self._inner.save(self._moments_file(directory), self._rows)

    def _on_restore(self, directory: str) -> Message:
        try:
            return {"is_restored": self._inner.restore(self._moments_file(directory))}
        except StateError:  # damaged: a new optimizer does as well
            return {"is_restored": False}

    def _moments_file(self, directory: str) -> Path:
        share = f"{self._ranks.index}-of-{self._ranks.count}" if self._fit.is_sharded else "whole"
        return Path(directory) / f"moments-{self._sub_model}-{share}.safetensors"

    def _step(self) -> None:
        assert self._sampler is not None
        windows = self._sampler.batch(self._position, self._batch)
        since = self._tokens - self._anchor_tokens + self._batch_tokens  # the ages are the anchor's
        rates = {block: self._schedule.rate(block, self._ages[block] + since) for block in self._layout.blocks}
        loss = self._inner.step(windows, self._fit.micro_batch, rates)
        self._position += 1
        if self._watch.is_bad(loss):
            self._go_back(loss)
            return
        self._tokens += self._batch_tokens
        self._losses.append(loss)
        self._good_steps += 1
        if self._good_steps >= RAMP_STEPS:
            self._failures = 0
        self._show(loss)

    def _go_back(self, loss: float) -> None:
        """θ ← anchor: what was learnt since is dropped, with Adam's moments."""
        self._rows.copy_in(self._anchor, self._layout.blocks)
        self._inner.use(self._layout, is_fresh=True)
        self._watch = Watch()
        self._tokens = self._anchor_tokens
        self._losses, self._descends = [], False
        self._epoch += 1
        self._good_steps, self._failures = 0, self._failures + 1
        self._tell({"type": "diverged", "loss": loss, "position": self._position, "epoch": self._epoch})
        if self._failures >= MAX_FAILURES:
            self._failures = 0
            self._stall("the loss is not a number or jumps, again and again, even from the anchor")

    def _stall(self, reason: str) -> None:
        """Stop training until the next anchor, sources or sub-model."""
        self._is_stalled = True
        self._tell({"type": "stalled", "message": reason})

    def _show(self, loss: float) -> None:
        now = time.monotonic()
        seconds = now - self._shown_at
        if seconds < PROGRESS_SECONDS:
            return
        # After an answer the speed is not known: it is measured from here.
        speed = (self._tokens - self._shown_tokens) / seconds if self._shown_at else None
        self._shown_at, self._shown_tokens = now, self._tokens
        self._tell(
            {
                "type": "progress",
                "position": self._position,
                "loss": loss,
                "tokens": self._tokens,
                "tokens_per_s": speed,
            }
        )

    def _tell(self, message: Message) -> None:
        if self._ranks.index == 0:
            self._channel.send(message)


def _open_device(setup: Setup) -> torch.device:
    """Set this process up for its device. Raises DeviceError when there is no such device."""
    torch.set_num_threads(setup.threads or max(1, (os.cpu_count() or 1) // len(setup.devices)))
    torch.manual_seed(setup.spec.seed)
    # Ranks talk over loopback only.
    loopback = "lo" if sys.platform == "linux" else "lo0"
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = loopback
    name = setup.devices[setup.rank]
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise missing_device(name) from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
    return device


def _kind(error: Exception) -> str:
    """Sort an error by what helps: `memory` (a smaller micro-batch), `device` (nothing here), `other` (a restart)."""
    if isinstance(error, DeviceError):
        return "device"
    text = str(error).lower()
    is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )
    return "memory" if is_memory else "other"
