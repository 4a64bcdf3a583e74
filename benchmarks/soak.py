"""Does anything grow? Hours of a swarm's life, compressed: a thousand short rounds while peers come and go.

    python -m benchmarks.soak [--rounds N] [--plot FILE.svg] [--cache DIR] [--quick] [--json FILE]

Four daemons; one is watched from its first round on and lives through all; the others are killed, leave, sleep and
lose their workers, in turn, and come back. Measured every few seconds: memory, descriptors and threads of the watched
daemon, of its libp2p process and of its worker, its disk, the records that it keeps for the DHT. The first third is
left out.

A quantity grows if its slope is above zero by more than three standard errors of the medians of ten spans of time, and
by more than 1 % of its level in 1,000 rounds. With a cache, a soak that is done is not run again.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.chaos import PACED
from benchmarks.plot import plot
from benchmarks.report import at_least, at_most, exit_with, finish, parser
from peer.chaos.faults import Stage, do, undo
from peer.chaos.play import leave, open_swarm
from peer.chaos.schedule import Fault, Kind, Schedule

ROUNDS, QUICK_ROUNDS = 1000, 60
TICK_S = 0.6
PEERS = 4
LOOK_S = 5.0
SETTLING = 1 / 3  # of the samples, in which caches fill
SPANS = 10  # of time, whose medians the slope is drawn through
LEAST_GROWTH = 0.01  # of its level in 1,000 rounds: below that nothing would be noticed in a year
CHURN: tuple[Kind, ...] = ("kill", "leave", "kill_worker", "sleep", "kill_daemon")

Sample = dict[str, float]


def main() -> int:
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--rounds", type=int, metavar="N", help=f"at least (default: {ROUNDS})")
    own.add_argument("--plot", type=Path, metavar="FILE", help="write a plot, as SVG")
    own.add_argument("--cache", type=Path, metavar="DIR", help="keep the samples there, once and for all")
    args = own.parse_args()
    rounds = args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS)
    with tempfile.TemporaryDirectory(prefix="shoal-soak-") as name:
        cached = (args.cache or Path(name)) / f"soak-{rounds}.json"
        cached.parent.mkdir(parents=True, exist_ok=True)
        if not cached.exists():
            cached.write_text(json.dumps(asyncio.run(_soak(Path(name), rounds))))
        found: dict[str, Any] = json.loads(cached.read_text())
    samples: list[Sample] = found["samples"]
    table, growing = Table("quantity", "first", "last", "slope in 1,000 rounds", "three standard errors", "grows"), []
    slopes = {}
    for quantity in [key for key in samples[0] if key not in ("at", "round")]:
        level, slope, error = slope_of(samples, quantity)
        slopes[quantity] = {"level": level, "per_1000_rounds": slope, "three_errors": 3 * error}
        grows = is_growing(level, slope, error)
        growing += [quantity] if grows else []
        cells = (samples[0][quantity], samples[-1][quantity], slope, 3 * error)
        table.add_row(quantity, *(f"{cell:,.2f}" for cell in cells), "yes" if grows else "no")
    if args.plot is not None:
        args.plot.write_text(plot(samples, "round", [key for key in samples[0] if key not in ("at", "round")]))
    sealed = samples[-1]["round"] - samples[0]["round"]
    grown = f"quantities of {len(slopes)} that grow: {', '.join(growing) or 'none'}"
    bars = [
        at_least("soak_rounds", f"rounds of the watched peer, {found['faults']} faults beside it", sealed, rounds),
        at_most("soak_slopes", grown, len(growing), 0),
    ]
    return finish(args, bars, {"seeds": [0], "slopes": slopes, **found}, found["broken"], table)


async def _soak(folder: Path, rounds: int) -> dict[str, Any]:
    """Let the swarm live for so many rounds of the first peer; return what was seen of it."""
    samples: list[Sample] = []
    done: list[str] = []
    schedule = Schedule(peers=PEERS, tick_seconds=TICK_S, faults=())
    async with open_swarm([schedule], PACED, folder) as stage, asyncio.TaskGroup() as tasks:
        churning = tasks.create_task(_churn(stage, done))
        while not samples or samples[-1]["round"] - samples[0]["round"] < rounds:
            await asyncio.sleep(LOOK_S)
            if (sample := await _look(stage)) is not None:
                samples.append(sample)
                if len(samples) % 12 == 0:
                    print({key: round(value, 1) for key, value in sample.items()}, len(done), flush=True)
        churning.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await churning
        await leave(stage)
        broken = list(stage.broken)
    return {"samples": samples, "faults": len(done), "tick_s": TICK_S, "broken": broken}


async def _churn(stage: Stage, done: list[str]) -> None:
    """Do one thing after the other to all but the first peer, each to the next of them."""
    random_ = random.Random(0)
    for kind, peer in zip(itertools.cycle(CHURN), itertools.cycle(range(1, PEERS)), strict=False):
        fault = Fault(kind=kind, peers=(peer,), ticks=float(random_.randint(2, 12)))
        await do(stage, fault)
        await asyncio.sleep(fault.ticks * TICK_S)
        await undo(stage, fault)
        done.append(kind)
        await asyncio.sleep(random_.randint(2, 10) * TICK_S)


async def _look(stage: Stage) -> Sample | None:
    daemon = stage.daemons[0]
    status = await daemon.status()
    if status is None:
        return None
    pids = {"daemon": daemon.pid, "p2pd": daemon.p2pd()[0], "worker": daemon.workers()[0]}
    sample = {"at": time.time(), "round": float(status.peers[0].rounds), "DHT records": float(status.dht_records)}
    for name, pid in pids.items():
        said = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        sample[f"memory of {name}, MiB"] = int(said["VmRSS"].split()[0]) / 1024
        sample[f"descriptors of {name}"] = float(sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
        sample[f"threads of {name}"] = float(said["Threads"])
    sample["disk, KiB"] = _bytes(daemon.files) / 1024
    sample["temporary files"] = float(sum(1 for _ in daemon.temporary.rglob("*")))
    return sample


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def slope_of(samples: list[Sample], quantity: str) -> tuple[float, float, float]:
    """Return a quantity's level, its slope in 1,000 rounds, and the slope's standard error, after it has settled."""
    settled = samples[int(SETTLING * len(samples)) :]
    spans = [settled[n * len(settled) // SPANS : (n + 1) * len(settled) // SPANS] for n in range(SPANS)]
    points = [
        (statistics.median(each["round"] for each in span) / 1000, statistics.median(each[quantity] for each in span))
        for span in spans
        if span
    ]
    level = statistics.median(value for _, value in points)
    if len({x for x, _ in points}) < 3:
        return level, 0.0, math.inf
    slope, start = statistics.linear_regression(*zip(*points, strict=True))
    middle = statistics.fmean(x for x, _ in points)
    rest = sum((value - start - slope * x) ** 2 for x, value in points) / (len(points) - 2)
    return level, slope, math.sqrt(rest / sum((x - middle) ** 2 for x, _ in points))


def is_growing(level: float, slope: float, error: float) -> bool:
    """Say whether a slope is more than noise, and more than nothing."""
    return slope - 3 * error > 0 and slope > LEAST_GROWTH * level


if __name__ == "__main__":
    exit_with(main)
