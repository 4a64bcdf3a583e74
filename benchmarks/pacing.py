"""Steps that take a fixed time, so that a few cores can stand for boxes whose GPUs do the work.

A GPU step takes what it takes, whatever the box's processor does meanwhile. Here the steps run on the processor, beside
the daemons, the network relays and each other; unpaced, whatever any of them uses is taken from the steps, and four
boxes on two cores never have their own. So every step is real work, followed by sleep until a fixed *period* after the
step began; and where a step had to wait for a core, since the boxes share them, the sleeps that follow are shorter: on
a box of its own it had not waited. What is fair about it:

- The period is measured beforehand, once, for all systems and for the runs without network: `FACTOR` times the
  processor time of one step while as many processes take such steps as in what is measured. All have the same highest
  rate, a step a period.
- Only waiting for a core is made up for: what the kernel counts as the thread's run delay, when it is ready to run and
  does not. Waiting for the network, for an answer or for a lock is none, and is lost where it is longer than the slack.
- What a worker does between two steps (copies, answers) is outside of the period and is lost. The baseline's step is
  paced as a whole, with all that `hivemind.Optimizer.step` does and waits for: its slack hides up to that much of it.
"""

import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TypeVar

from configs.run import RunPlan

PERIOD = "BENCH_STEP_SECONDS"  # environment: the period; 0 paces nothing
LOG = "BENCH_STEP_LOG"  # environment: a file, which gets a line for each step
FACTOR = 3.0  # four workers then use a third of a core each, and leave half of that to what else a box does

STEPS = 20  # that each process measures

T = TypeVar("T")


class Pace:
    """Runs steps, each of which takes a period, and writes when they ended."""

    def __init__(self, period_s: float, log: Path) -> None:
        self.period_s = period_s
        self._log = log.open("a", buffering=1)
        self.reserved_s = 0.0  # of a period, for what follows of a step
        self._lost_s = 0.0  # beyond periods, by waiting for a core, and not made up for yet

    @classmethod
    def from_environment(cls) -> "Pace":
        return cls(float(os.environ[PERIOD]), Path(os.environ[LOG]))

    def step(self, work: Callable[[], T]) -> T:
        """Do `work`; return when it is done and the period has passed, or less of it to make up for earlier waiting."""
        began, cpu_s, delay_s = time.monotonic(), time.process_time(), _run_delay_s()
        result = work()
        cpu_s, took_s = time.process_time() - cpu_s, time.monotonic() - began
        # Within its slack a step loses nothing by waiting.
        self._lost_s += min(_run_delay_s() - delay_s, max(0.0, took_s - self.period_s))
        slack_s = max(0.0, began + self.period_s - self.reserved_s - time.monotonic())
        made_up_s = min(slack_s, self._lost_s)
        self._lost_s -= made_up_s
        time.sleep(slack_s - made_up_s)
        self._log.write(f"{time.time():.4f} {took_s:.4f} {cpu_s:.4f}\n")
        return result


def _run_delay_s() -> float:
    """Return how long this thread was ready to run and had no core, since it began."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def step_seconds(plan: RunPlan, processes: int) -> float:
    """Return the processor time of one inner step of `plan`, the median, while so many processes take such steps."""
    with get_context("spawn").Pool(processes) as pool:
        taken = pool.map(_take_steps, [plan] * processes, chunksize=1)
    return median(seconds for each in taken for seconds in each)


def _take_steps(plan: RunPlan) -> list[float]:
    """Take steps and return the processor time of each."""
    import torch

    from peer.train.inner import Inner
    from peer.train.model import initial_parameters
    from peer.train.partition import COMMON, Strategy
    from peer.train.sharded import Ranks, build_sharded

    torch.set_num_threads(1)
    ranks = Ranks(0, 1, torch.device("cpu"))
    module = build_sharded(plan.model, ranks.device, None)
    parameters = initial_parameters(plan.model, plan.seed)
    module.model.load_state_dict(parameters, strict=False)
    inner = Inner(plan.inner, module, ranks, False)
    inner.use(Strategy("replicas", 1).layout(COMMON, plan.model), is_fresh=True)
    count = plan.inner.batch_tokens // plan.model.context_length
    windows = torch.randint(plan.model.vocab_size, (count, plan.model.context_length + 1))
    taken = []
    for _ in range(STEPS + 2):  # the first two find their memory
        began = time.process_time()
        inner.step(windows, count, {COMMON: 1e-4})
        taken.append(time.process_time() - began)
    return taken[2:]
