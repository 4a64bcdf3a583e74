"""The worker: one process for each device, which trains and does nothing else.

One thread trains, another listens to what the daemon asks over a socket. The state
travels through two flat float32 buffers shared with the daemon: the *anchor*, which the daemon writes, and the
*snapshot*, which the worker writes. The daemon's side is `peer/workers/supervisor.py`.

Asked (each answered by every rank with `done`), and answered at once, whatever a step is at:
    snapshot   snapshot ← θ; the answer says what it contains
    apply      θ ← θ + anchor − snapshot, for these blocks; the daemon may have written another base into snapshot
Asked, and answered between two inner steps:
    load       θ ← anchor, as this sub-model, from these sources
    sources    sample from these token files from now on
    pause, resume
    measure    how long a step takes; the next request must be `load`
    save, restore   Adam's moments, to and from files of a directory
Told, by rank 0: ready, progress, diverged, stalled. Told by any rank before it ends: error.

θ goes back to the anchor by itself when training diverges. An *epoch* counts these returns, so that an `apply` that
was meant for what θ was before is noticed: then θ ← anchor.
"""

import math
import os
import queue
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from configs.errors import ShoalError, StateError
from peer.corpus.data import Sampler, Source
from peer.train.channel import Channel, Message
from peer.train.device import kind_of, open_device
from peer.train.inner import RAMP_STEPS, Inner, Schedule, Watch
from peer.train.launch import Setup
from peer.train.memory import fit, free_bytes
from peer.train.neighbours import NAME, fair_threads
from peer.train.partition import COMMON, Strategy
from peer.train.sharded import Ranks, Rows, build_sharded, fill_base
from peer.train.theta import Theta

PROGRESS_S = 0.5  # between two messages of progress
THREADS_S = 10.0  # between two looks at how many workers share this machine
MEASURE_S = 2.0  # for steps that are taken to be measured
MIN_MEASURED_STEPS = 3  # however long they take
MAX_FAILURES = 3  # returns to the anchor without RAMP_STEPS good steps between them
OOM_SCORE = 500  # the kernel, short of memory, kills a worker before it kills a daemon


def work(sock: socket.socket, setup: Setup, snapshot: Tensor, anchor: Tensor) -> None:
    """Be one rank until the daemon closes the socket. Ends with exit code 1 after reporting an error."""
    # A Ctrl-C or a service's stop reaches the whole process group; only the daemon decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(OSError):  # elsewhere than on Linux there are no such files
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
        Path("/proc/self/comm").write_text(NAME)
    channel = Channel(sock)
    with _reporting(channel):
        Worker(channel, setup, snapshot, anchor).run()


@contextmanager
def _reporting(channel: Channel) -> Iterator[None]:
    """End this process when the daemon is gone, and with exit code 1, once it is told, when anything else fails."""
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)
    except Exception as error:
        kind = kind_of(error)
        named = str(error) if isinstance(error, ShoalError) else f"{type(error).__name__}: {error}"[:2000]
        message = "out of memory" if kind == "memory" else named  # how many bytes of which pool is in the detail
        with suppress(OSError):
            channel.send({"type": "error", "kind": kind, "message": message, "detail": traceback.format_exc()[-8000:]})
        os._exit(1)  # a broken process group can hang an orderly exit


class Worker:
    """One rank: its sub-model, its place in the data, and what of its work is safe in the anchor."""

    def __init__(self, channel: Channel, setup: Setup, snapshot: Tensor, anchor: Tensor) -> None:
        plan = setup.plan
        self._channel, self._snapshot, self._anchor = channel, snapshot, anchor
        self._plan, self._seed = plan, setup.seed
        self._ranks = Ranks(setup.rank, len(setup.devices), open_device(setup))
        self._ranks.join(setup.rendezvous)
        self._batch = plan.inner.batch_tokens // plan.model.context_length  # sequences in one inner step
        self._batch_tokens = self._batch * plan.model.context_length
        sharing = sum(device == setup.devices[setup.rank] for device in setup.devices)  # ranks on this device
        self._fit = fit(
            plan.model,
            ranks=self._ranks.count,
            rows=math.ceil(self._batch / self._ranks.count),
            free=int(self._ranks.least(free_bytes(self._ranks.device) // sharing)),
            micro_batch=setup.micro_batch,
        )
        self._module = build_sharded(plan.model, self._ranks.device, self._ranks.mesh(self._fit.is_sharded))
        if setup.base is not None:
            fill_base(self._module, plan.model, setup.base)
        is_bfloat16 = setup.precision == "bfloat16" or (
            setup.precision == "auto" and self._ranks.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        self._inner = Inner(plan.inner, self._module, self._ranks, is_bfloat16)
        self._schedule = Schedule(plan, Strategy.of(plan.strategy, 1))
        self._sub_model = COMMON
        self._layout = self._schedule.strategy.layout(COMMON, plan.model)
        self._rows = Rows(self._module, self._layout)
        self._theta = Theta(self._rows)
        self._lock = threading.Lock()  # of θ and of all that counts what is in it
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # for the thread that trains
        self._asked = self._done = 0  # of these tasks
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
        self._step_s: float | None = None  # of the last step
        self._shown_at, self._shown_tokens = 0.0, 0
        self._threads, self._counted_at = setup.threads, time.monotonic()

    def run(self) -> None:
        """Train, and between two steps do what was asked. Ends with the process, when the daemon is gone."""
        self._tell({"type": "ready", "micro_batch": self._fit.micro_batch, "is_sharded": self._fit.is_sharded})
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        while True:
            self._do_what_was_asked()
            try:
                self._step()
            except ShoalError as error:  # the data; the same on every rank
                with self._lock:
                    self._stall(str(error))

    # What the daemon asks

    def _listen(self) -> None:
        """Take in one request after the other, in a thread of its own."""
        with _reporting(self._channel):
            while True:
                request = self._channel.receive()
                match request["type"]:
                    case "snapshot":
                        with self._lock:
                            self._answer(request, self._on_snapshot)
                    case "apply":
                        with self._lock:
                            self._answer(request, self._on_apply)
                        self._ask_trainer(self._take_up)
                    case kind:
                        is_done = threading.Event()
                        self._ask_trainer(partial(self._do, request, getattr(self, f"_on_{kind}"), is_done))
                        if kind in ("load", "measure"):
                            is_done.wait()  # what is asked next is meant for what θ will be

    def _ask_trainer(self, task: Callable[[], None]) -> None:
        """Let the thread that trains do something between two steps."""
        self._asked += 1
        self._tasks.put(task)

    def _do_what_was_asked(self) -> None:
        """Do what was asked of the training thread, and wait for more while there is nothing to train.

        All ranks do the same between the same two steps: rank 0 says how much. While nobody trains nobody waits for
        rank 0 in a collective either, so a long pause cannot time one out.
        """
        upto = 0
        while True:
            if self._is_training:
                upto = self._ranks.agree(self._asked)
                if self._done == upto:
                    return
            self._tasks.get()()
            self._done += 1

    def _do(self, request: Message, action: Callable[..., Message | None], is_done: threading.Event) -> None:
        with self._lock:
            self._answer(request, action)
            self._shown_at = 0.0  # what was not training must not count in the speed
        is_done.set()

    def _answer(self, request: Message, action: Callable[..., Message | None]) -> None:
        answer: Message = {"type": "done", "id": request.pop("id")}
        del request["type"]
        try:
            answer.update(action(**request) or {})
        except ShoalError as error:
            answer["error"] = str(error)
            answer["error_type"] = type(error).__name__
        self._channel.send(answer)

    @property
    def _is_training(self) -> bool:
        return self._sampler is not None and not self._is_paused and not self._is_stalled

    def _on_snapshot(self) -> Message:
        self._theta.read(self._snapshot)
        self._descends = True
        self._snapshot_tokens = self._tokens
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        steps, self._losses = len(self._losses), []
        return {
            "tokens": self._tokens,
            "steps": steps,
            "loss": loss,
            "position": self._position,
        }

    def _on_apply(self, ages: dict[str, int], epoch: int) -> None:
        """Count the new anchor from now on; θ follows when the step is over, see `_take_up`."""
        if epoch == self._epoch:
            self._theta.shift_later(self._anchor, self._snapshot, ages)
        else:
            self._theta.replace_later(self._anchor, ages)
        if not self._descends:  # what the snapshot contained was dropped here, and comes back with the anchor
            self._tokens += self._snapshot_tokens - self._anchor_tokens
            self._descends = True
        self._anchor_tokens = self._snapshot_tokens
        self._ages.update(ages)

    def _take_up(self) -> None:
        with self._lock:
            self._theta.take_up()
            self._is_stalled = False

    def _on_load(self, sub_model: str, num_domains: int, sources: list[Message], place: Message) -> None:
        self._on_sources(sources)
        self._schedule = Schedule(self._plan, Strategy.of(self._plan.strategy, num_domains))
        self._layout = self._schedule.strategy.layout(sub_model, self._plan.model)
        self._rows = Rows(self._module, self._layout)
        self._theta = Theta(self._rows)
        # Adam's moments stay true when a sub-model grows out of the common model, not between two experts.
        self._inner.use(self._layout, is_fresh=self._sub_model not in (COMMON, sub_model))
        self._sub_model = sub_model
        self._theta.replace(self._anchor, self._layout.blocks)
        self._ages, self._epoch, self._position = place["ages"], place["epoch"], place["position"]
        self._tokens = self._anchor_tokens = place["tokens"]
        self._snapshot_tokens = place["snapshot_tokens"]
        self._losses, self._descends = [], False

    def _on_sources(self, sources: list[Message]) -> None:
        self._sampler = None
        length = self._plan.model.context_length
        self._sampler = Sampler([Source(**source) for source in sources], length, self._seed)
        self._watch = Watch()
        self._is_stalled = False

    def _on_pause(self) -> None:
        self._is_paused = True

    def _on_resume(self) -> None:
        self._is_paused = False

    def _on_measure(self) -> Message:
        """Take steps on tokens drawn at random, at a rate of almost nothing; the median time is what one takes."""
        model, taken_s = self._plan.model, list[float]()
        windows = torch.randint(model.vocab_size, (self._batch, model.context_length + 1))
        self._theta.replace(self._anchor, self._layout.blocks)
        self._inner.use(self._layout, is_fresh=True)
        began = time.monotonic()
        while self._ranks.agree(len(taken_s) < MIN_MEASURED_STEPS or time.monotonic() - began < MEASURE_S):
            step_began = time.monotonic()
            self._inner.step(windows, self._fit.micro_batch, dict.fromkeys(self._layout.blocks, 1e-9))
            taken_s.append(time.monotonic() - step_began)
        self._inner.use(self._layout, is_fresh=True)
        return {"step_s": median(taken_s[1:])}  # the first one finds its memory

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

    # Training

    def _step(self) -> None:
        """Take one inner step. θ, and what is counted of it, change only at its end, under the lock."""
        assert self._sampler is not None
        began = time.monotonic()
        windows = self._sampler.batch(self._position, self._batch)
        loss = self._inner.gradient(windows, self._fit.micro_batch)
        with self._lock:
            self._position += 1
            if self._watch.is_bad(loss):
                self._go_back(loss)
                return
            since = self._tokens - self._anchor_tokens + self._batch_tokens  # the ages are the anchor's
            rates = {block: self._schedule.rate(block, self._ages[block] + since) for block in self._layout.blocks}
            self._inner.update(rates)
            self._theta.updated()
            self._tokens += self._batch_tokens
            self._losses.append(loss)
            self._step_s = time.monotonic() - began
        self._good_steps += 1
        if self._good_steps >= RAMP_STEPS:
            self._failures = 0
        self._show(loss)

    def _go_back(self, loss: float) -> None:
        """θ ← anchor: what was learnt since is dropped, with Adam's moments."""
        self._theta.replace(self._anchor, self._layout.blocks)
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
        if seconds < PROGRESS_S:
            return
        if not self._threads and now - self._counted_at > THREADS_S:
            self._counted_at = now
            torch.set_num_threads(fair_threads())
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
                "step_s": self._step_s,
            }
        )

    def _tell(self, message: Message) -> None:
        if self._ranks.index == 0:
            self._channel.send(message)
