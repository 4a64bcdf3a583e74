"""The worker: one process for each device, which trains and does nothing else.

One thread trains, another listens to what the daemon asks over a socket (`messages.py`). The state travels through two
flat float32 buffers shared with the daemon: the *anchor*, which the daemon writes, and the *snapshot*, which the worker
writes. The daemon's side is `peer/workers/supervisor.py`.

Every rank answers every request. `AT_ONCE` says which are answered whatever a step is at; the others come between two
inner steps.

θ goes back to the anchor by itself when training diverges. An *epoch* counts these returns, so that an `Apply` that
was meant for what θ was before is noticed: then θ ← anchor.
"""

import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

from configs.errors import ShoalError
from peer.corpus.data import Sampler
from peer.corpus.source import Source
from peer.train.channel import Channel
from peer.train.device import open_device
from peer.train.frozen import take_base
from peer.train.inner import RAMP_STEPS, Inner, Schedule, Watch
from peer.train.launch import Setup
from peer.train.ledger import TokenLedger
from peer.train.memory import fit, free_bytes, limited_bytes
from peer.train.messages import (
    Answer,
    Answered,
    Apply,
    Asked,
    Diverged,
    Done,
    Load,
    Measure,
    Measured,
    Pause,
    Ready,
    Refused,
    Request,
    Resume,
    Score,
    Scored,
    SetSources,
    Snapshot,
    Stalled,
    Stepped,
    TakeSnapshot,
    Told,
)
from peer.train.neighbours import fair_threads
from peer.train.partition import COMMON, Strategy
from peer.train.process import become_worker, reporting
from peer.train.sharded import Ranks, Rows, build_sharded, fill_base
from peer.train.theta import Theta

PROGRESS_S = 0.5  # seconds between two messages of progress
THREADS_S = 10.0  # seconds between two looks at how many workers share this machine
MEASURE_S = 2.0  # seconds of steps that are taken to be measured
MIN_MEASURED_STEPS = 3  # steps that are measured, however long they take
MAX_FAILURES = 3  # returns to the anchor without RAMP_STEPS good steps between them

AT_ONCE = (TakeSnapshot, Apply)  # requests that are answered whatever a step is at
FIRST = (Load, Measure)  # requests that are done before the next is read, which is meant for what θ will be


def work(sock: socket.socket, setup: Setup, snapshot: Tensor, anchor: Tensor) -> None:
    """Be one rank until the daemon closes the socket. Ends with exit code 1 after reporting an error."""
    become_worker()
    channel = Channel(sock)
    with reporting(channel):
        Worker(channel, setup, snapshot, anchor).run()


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
        free = free_bytes(self._ranks.device) // sharing
        self._fit = fit(
            plan.model,
            ranks=self._ranks.count,
            rows=math.ceil(self._batch / self._ranks.count),
            free=int(self._ranks.least(limited_bytes(self._ranks.device, setup.memory_gb, free))),
            micro_batch=setup.micro_batch,
            base_precision=setup.base_precision,
        )
        mesh = self._ranks.mesh(self._fit.is_sharded)
        self._module = build_sharded(plan.model, self._ranks.device, mesh)
        if setup.base is not None:
            if mesh:
                fill_base(self._module, plan.model, setup.base)
            else:
                take_base(self._module, plan.model, setup.base, setup.base_precision)
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
        self._ledger = TokenLedger()
        self._epoch = 0
        self._position = 0  # inner steps of the data, dropped ones included
        self._losses: list[float] = []  # since the last snapshot
        self._is_paused = self._is_stalled = self._is_waiting = False  # the last: for text that is being fetched
        self._good_steps, self._failures = 0, 0
        self._step_s: float | None = None  # of the last step
        self._shown_at, self._shown_tokens = 0.0, 0
        self._threads, self._counted_at = setup.threads, time.monotonic()

    def run(self) -> None:
        """Train, and between two steps do what was asked. Ends with the process, when the daemon is gone."""
        self._tell(Ready(micro_batch=self._fit.micro_batch))
        threading.Thread(target=self._listen, name="listener", daemon=True).start()
        while True:
            self._do_what_was_asked()
            try:
                if self._has_text():
                    self._step()
            except ShoalError as error:  # the data; the same on every rank
                with self._lock:
                    self._stall(str(error))

    # What the daemon asks

    def _listen(self) -> None:
        """Take in one request after the other, in a thread of its own."""
        with reporting(self._channel):
            while True:
                asked = self._channel.receive()
                assert isinstance(asked, Asked)
                if isinstance(asked.request, AT_ONCE):
                    with self._lock:
                        self._answer(asked)
                    if isinstance(asked.request, Apply):
                        self._ask_trainer(self._take_up)
                else:
                    is_done = threading.Event()
                    self._ask_trainer(partial(self._do, asked, is_done))
                    if isinstance(asked.request, FIRST):
                        is_done.wait()

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

    def _do(self, asked: Asked, is_done: threading.Event) -> None:
        # While θ is only read, here where it would be changed, snapshots of it need not wait.
        with nullcontext() if isinstance(asked.request, Score) else self._lock:
            self._answer(asked)
        self._shown_at = 0.0  # what was not training must not count in the speed
        is_done.set()

    def _answer(self, asked: Asked) -> None:
        try:
            answer = HANDLERS[type(asked.request)](self, asked.request)
        except ShoalError as error:
            answer = Refused.of(error)
        self._channel.send(Answered(id=asked.id, answer=answer))

    @property
    def _is_training(self) -> bool:
        return self._sampler is not None and not (self._is_paused or self._is_stalled or self._is_waiting)

    def _on_snapshot(self, _: TakeSnapshot) -> Snapshot:
        self._theta.read(self._snapshot)
        self._ledger.snapshot()
        losses, self._losses = self._losses, []
        mean = sum(losses) / len(losses) if losses else None
        return Snapshot(tokens=self._ledger.tokens, steps=len(losses), loss=mean, position=self._position)

    def _on_apply(self, new: Apply) -> Done:
        """Count the new anchor from now on; θ follows when the step is over, see `_take_up`."""
        if new.epoch == self._epoch:
            self._theta.shift_later(self._anchor, self._snapshot, new.ages)
        else:
            self._theta.replace_later(self._anchor, new.ages)
        self._ledger.rebased()
        self._ages.update(new.ages)
        return Done()

    def _take_up(self) -> None:
        with self._lock:
            self._theta.take_up()
            self._is_stalled = False

    def _on_load(self, new: Load) -> Done:
        self._sample_from(new.sources)
        self._schedule = Schedule(self._plan, Strategy.of(self._plan.strategy, new.num_domains))
        self._layout = self._schedule.strategy.layout(new.sub_model, self._plan.model)
        self._rows = Rows(self._module, self._layout)
        self._theta = Theta(self._rows)
        # Adam's moments stay true when a sub-model grows out of the common model, not between two experts.
        self._inner.use(self._layout, is_fresh=self._sub_model not in (COMMON, new.sub_model))
        self._sub_model = new.sub_model
        self._theta.replace(self._anchor, self._layout.blocks)
        place = new.place
        self._ages, self._epoch, self._position = dict(place.ages), place.epoch, place.position
        self._ledger = TokenLedger(place.tokens, place.snapshot_tokens)
        self._losses = []
        return Done()

    def _on_sources(self, new: SetSources) -> Done:
        if self._sampler is None or not self._sampler.streams_from(new.sources):  # else more of their text has come
            self._sample_from(new.sources)
        self._is_stalled = self._is_waiting = False
        return Done()

    def _sample_from(self, sources: Sequence[Source]) -> None:
        self._is_stalled = self._is_waiting = False
        self._sampler = None
        self._sampler = Sampler(sources, self._plan.model.context_length, self._seed)
        self._watch = Watch()

    def _on_pause(self, _: Pause) -> Done:
        self._is_paused = True
        if self._ranks.device.type == "cuda":
            torch.cuda.empty_cache()  # whoever the pause is for needs what a step has left behind
        return Done()

    def _on_resume(self, _: Resume) -> Done:
        self._is_paused = False
        return Done()

    def _on_measure(self, _: Measure) -> Measured:
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
        return Measured(step_s=median(taken_s[1:]))  # the first one finds its memory

    def _on_score(self, new: Score) -> Scored:
        losses = []
        for source in new.sources:
            windows = Sampler([source], self._plan.model.context_length, seed=0).batch(0, new.windows)
            losses.append(self._inner.score(windows, self._fit.micro_batch))
        return Scored(losses=tuple(losses))

    # Training

    def _has_text(self) -> bool:
        """Return whether the text of the next step is here, as rank 0 sees it; if not, wait until sources are told."""
        sampler = self._sampler
        if sampler is not None and sampler.is_streamed:
            self._is_waiting = bool(self._ranks.agree(len(sampler.lacking(self._position, self._batch))))
            if self._is_waiting and (losses := self._losses):
                self._show(losses[-1], at_once=True)  # the daemon fetches by the position
        return not self._is_waiting

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
            since = self._ledger.since_anchor + self._batch_tokens  # the ages are the anchor's
            rates = {block: self._schedule.rate(block, self._ages[block] + since) for block in self._layout.blocks}
            self._inner.update(rates)
            self._theta.updated()
            self._ledger.trained(self._batch_tokens)
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
        self._ledger.reset()
        self._losses = []
        self._shown_at = 0.0  # what was dropped is no speed, least of all one below zero
        self._epoch += 1
        self._good_steps, self._failures = 0, self._failures + 1
        self._tell(Diverged(loss=loss, position=self._position, epoch=self._epoch))
        if self._failures >= MAX_FAILURES:
            self._failures = 0
            self._stall("the loss is not a number or jumps, again and again, even from the anchor")

    def _stall(self, reason: str) -> None:
        """Stop training until the next anchor, sources or sub-model."""
        self._is_stalled = True
        self._tell(Stalled(reason=reason))

    def _show(self, loss: float, *, at_once: bool = False) -> None:
        now = time.monotonic()
        seconds = now - self._shown_at
        if seconds < PROGRESS_S and not at_once:
            return
        if not self._threads and now - self._counted_at > THREADS_S:
            self._counted_at = now
            torch.set_num_threads(fair_threads())
        # After an answer the speed is not known: it is measured from here.
        speed = (self._ledger.tokens - self._shown_tokens) / seconds if self._shown_at and not at_once else None
        self._shown_at, self._shown_tokens = now, self._ledger.tokens
        told = Stepped(
            position=self._position,
            loss=loss,
            tokens=self._ledger.tokens,
            tokens_per_s=speed,
            step_s=self._step_s,
            learning_rate=self._inner.rate,
            gradient_norm=self._inner.gradient_norm,
        )
        self._tell(told)

    def _tell(self, told: Told) -> None:
        if self._ranks.index == 0:
            self._channel.send(told)


HANDLERS: Mapping[type[Request], Callable[[Worker, Any], Answer]] = {
    TakeSnapshot: Worker._on_snapshot,
    Apply: Worker._on_apply,
    Load: Worker._on_load,
    SetSources: Worker._on_sources,
    Pause: Worker._on_pause,
    Resume: Worker._on_resume,
    Measure: Worker._on_measure,
    Score: Worker._on_score,
}
