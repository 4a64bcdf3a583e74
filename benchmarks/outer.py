"""What exchanging costs a torch loop of one's own: its tokens/s with `shoal.Outer` over without.

    api        tokens/s with the rounds of a swarm of two over those of the same loop by itself
    api_cpu    the same by the CPU time of the whole process, in which the peer's threads are: on a busy machine the
               first says little, this one still something

Windows of one and the other alternate in one process, in the order 1 2 2 1, so that what else the machine does meets
both alike; the ratio is the median over the pairs. Opening, the state's download and closing lie between the windows.
The other peer is a process of its own on the same machine, in place of another machine: it trains a step a second, and
has what the loop leaves (nice 19). It founds the run, and stays when the loop comes and goes.

The loop has one thread. With two on two busy cores, libgomp's threads wait for each other in another way once there are
more of them than cores, as there are with the peer's: the loop was seven times
*faster* with it, which is not its merit.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from rich.table import Table
from torch import Tensor
from torch.nn import Embedding, Linear, Module, TransformerEncoder, TransformerEncoderLayer
from torch.nn.functional import cross_entropy

import shoal
from benchmarks.report import at_least, exit_with, finish, parser

VOCABULARY, WIDTH, LAYERS, HEADS, LENGTH, BATCH = 2048, 128, 4, 4, 128, 8
ROUND_S = 10.0
WINDOW_S, PAIRS = 30.0, 8
QUICK_WINDOW_S, QUICK_PAIRS = 15.0, 2
LEAST_BAR = 0.98
MOST_WAITS = 60  # for a round, each a quarter of one
CLOSE_S = 60.0
BUSY_PERCENT = 50.0  # of the time; the two peers alone come to less
PAUSE_S = 1.0  # between two steps of the other peer


class Small(Module):
    """A causal transformer of 1.3 million parameters, as anybody may write one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = Embedding(VOCABULARY, WIDTH)
        layer = TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = Linear(WIDTH, VOCABULARY, bias=False)
        self.register_buffer("mask", torch.triu(torch.full((LENGTH, LENGTH), float("-inf")), diagonal=1))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(tokens_BT), mask=self.mask, is_causal=True))


@dataclass(frozen=True)
class Speed:
    """How fast a loop was in one window."""

    tokens_s: float
    tokens_cpu_s: float  # a second of a core, all threads of the process counted in


class Training:
    """A loop's module and optimizer."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.module = Small()
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=1e-4)

    def step(self) -> Tensor:
        """Take an optimizer step and return its loss."""
        tokens = torch.randint(VOCABULARY, (BATCH, LENGTH + 1))
        loss = cross_entropy(self.module(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def window(self, seconds: float, outer: shoal.Outer | None = None) -> Speed:
        """Train for so long."""
        began, began_cpu, steps = time.monotonic(), time.process_time(), 0
        while (now := time.monotonic()) - began < seconds:
            loss = self.step()
            if outer is not None:
                outer.step(BATCH * LENGTH, loss)
            steps += 1
        tokens = steps * BATCH * LENGTH
        return Speed(tokens / (now - began), tokens / (time.process_time() - began_cpu))


@dataclass(frozen=True)
class Pair:
    """One window with the swarm and one without, side by side."""

    together: Speed
    alone: Speed
    rounds: int  # sealed in the window with the swarm
    peer_cpu: float  # of one core, in the same window, by the threads of the peer

    @property
    def ratio(self) -> float:
        return self.together.tokens_s / self.alone.tokens_s

    @property
    def cpu_ratio(self) -> float:
        return self.together.tokens_cpu_s / self.alone.tokens_cpu_s


def main() -> int:
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--be-the-other", action="store_true", help=argparse.SUPPRESS)
    args = own.parse_args()
    if args.be_the_other:
        be_the_other()
        return 0
    window_s, count = (QUICK_WINDOW_S, QUICK_PAIRS) if args.quick else (WINDOW_S, PAIRS)
    torch.set_num_threads(1)
    training = Training(0)
    with other() as address:
        training.window(window_s / 4)  # warm
        pairs = [measure(training, address, window_s, is_first=index % 2 == 0) for index in range(count)]
    size = sum(each.numel() for each in training.module.parameters())
    title = f"{size:,} parameters, rounds of {ROUND_S:g} s, windows of {window_s:g} s"
    columns = "pair", "with, tokens/s", "without", "ratio", "by CPU time", "rounds sealed", "peer, of a core"
    table = Table(*columns, title=title)
    for index, pair in enumerate(pairs):
        speeds = f"{pair.together.tokens_s:.0f}", f"{pair.alone.tokens_s:.0f}", f"{pair.ratio:.4f}"
        table.add_row(str(index + 1), *speeds, f"{pair.cpu_ratio:.4f}", str(pair.rounds), f"{pair.peer_cpu:.4f}")
    figures = {"seeds": [0], "parameters": size, "round_s": ROUND_S, "window_s": window_s}
    figures["pairs"] = [asdict(pair) for pair in pairs]
    missing = [] if sum(pair.rounds for pair in pairs) >= count else ["enough rounds: the machine is too busy for them"]
    ratio = median(pair.ratio for pair in pairs)
    cpu_ratio = median(pair.cpu_ratio for pair in pairs)
    bars = [
        at_least("api", "tokens/s of a torch loop with shoal.Outer over without", ratio, LEAST_BAR),
        at_least("api_cpu", "tokens by CPU time, likewise", cpu_ratio, LEAST_BAR),
    ]
    return finish(args, bars, figures, [*missing, *busy()], table)


def busy() -> list[str]:
    """Say it if others have kept processes waiting for this machine's cores."""
    some = Path("/proc/pressure/cpu").read_text().split()[2]  # "avg60=12.34"
    waiting = float(some.partition("=")[2])
    if waiting <= BUSY_PERCENT:
        return []
    return [f"tokens/s as on a quiet machine: here somebody waited for a core {waiting:.0f} % of the last minute"]


def measure(training: Training, address: str, window_s: float, *, is_first: bool) -> Pair:
    """Measure a pair of windows; the one with the swarm comes first, or second."""
    alone = None if is_first else training.window(window_s)
    with open_outer(training.module, [address]) as outer:
        until_sealed(training, outer)
        before, before_s = outer.status().peers[0].rounds, peer_cpu_s()
        together = training.window(window_s, outer)
        rounds, peer_cpu = outer.status().peers[0].rounds - before, (peer_cpu_s() - before_s) / window_s
    return Pair(together, alone or training.window(window_s), rounds, peer_cpu)


def peer_cpu_s() -> float:
    """Return the seconds that a core has spent on this process's Python threads, the main one left out."""
    others = [thread.native_id for thread in threading.enumerate() if thread is not threading.main_thread()]
    stats = (Path(f"/proc/self/task/{each}/stat").read_text().rpartition(")")[2].split() for each in others)
    return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")


def until_sealed(training: Training, outer: shoal.Outer) -> None:
    """Train until a round with the other peer was sealed: from then on it is as it will be."""
    for _ in range(MOST_WAITS):
        training.window(ROUND_S / 4, outer)
        if any("sealed 2 of 2" in block.outcome for block in outer.status().blocks):
            return
    raise shoal.NetworkError("no round was sealed with the other peer: this machine is too busy to be measured on")


def open_outer(module: Module, initial_peers: list[str]) -> shoal.Outer:
    return shoal.Outer(module, run="bench", initial_peers=initial_peers, round_seconds=ROUND_S, host="127.0.0.1")


@contextmanager
def other() -> Iterator[str]:
    """Hold the other peer, in a process of its own; yields its address."""
    command = [sys.executable, "-m", "benchmarks.outer", "--be-the-other"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise shoal.NetworkError("the other peer did not start")
        yield address
    finally:
        process.stdin.close()
        try:
            process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def be_the_other() -> None:
    """Found the run, and train a step now and then until standard input ends."""
    os.nice(19)
    torch.set_num_threads(1)
    told = threading.Event()
    training = Training(1)
    with open_outer(training.module, []) as outer:
        print(outer.address, flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
        while not told.wait(PAUSE_S):
            outer.step(BATCH * LENGTH, training.step())


if __name__ == "__main__":
    exit_with(main)
