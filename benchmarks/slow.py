"""Does a swarm work where machines are slow? Real daemons with long steps, on one core, on a third of two, unequal.

    python -m benchmarks.slow [--row NAME …] [--quick] [--json FILE]

late_cut      paced workers (`pacing.py`) whose steps take 0.6, 1 and 3 times a round: the rounds that all seal, and how
              long after its tick a snapshot is there
slow_machine  daemons of `tiny`, founded and joined by the README's lines, on one core, and with a third of two cores
              (a control group's quota): the share of the founder's rounds in minutes 1 to 4 that all sealed
unequal_tiny  four peers, one of them ten times slower
demo_slow     `shoal demo`, on one core, on two, and with a third of two

A round counts as sealed by a peer when its log says so; the first round with everybody, whose connections are new, does
not count. Nothing of this has a counterpart in Hivemind's trainer, which waits for whoever is slowest.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.boxes import PROGRAM, Box, open_boxes
from benchmarks.pacing import FACTOR, step_seconds
from benchmarks.patience import until
from benchmarks.report import Bar, at_least, at_most, finish, parser
from configs.clock import Clock
from configs.load import load
from peer.member.entry import saved_spec

ROUND = re.compile(r"(model|trunk) round (\d+): (.*?); version .* (-?[\d.]+) s late")
SHOAL = [sys.executable, "-m", "peer"]
TICK_S = 1.0  # of the swarms with paced steps
STEPS, QUICK_STEPS = (0.6, 1.0, 3.0), (1.0, 3.0)  # length of a step in rounds
ROUNDS, QUICK_ROUNDS = 20, 4
MINUTES = (1, 4)  # after the last peer was ready; what `slow_machine` looks at
SLOWER = 10  # times, at one of `unequal_tiny`
UNEQUAL_S = 240.0
THIRD = 1 / 3

PLAN = f"""
[run]
name = "late"
total_tokens = 1_000_000_000
[run.model]
vocab_size = 512
hidden_size = 32
num_layers = 2
num_heads = 2
num_kv_heads = 2
mlp_size = 64
context_length = 64
[run.strategy]
kind = "replicas"
[run.inner]
learning_rate = 3e-3
batch_tokens = 512
[run.rounds]
tick_seconds = {TICK_S}
last_ticks = 1
cut_share = 0.4
double_tokens = 1_000_000_000
"""


@dataclass(frozen=True)
class Sealed:
    """What became of the founder's rounds with others."""

    rounds: int
    by_all: int
    late_s: float  # the longest time from a tick to its snapshot; of a round that begins early, a negative one

    @property
    def share(self) -> float:
        return self.by_all / self.rounds if self.rounds else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return the exit code."""
    rows = {"late_cut": _late_cut, "slow_machine": _slow_machine, "unequal_tiny": _unequal, "demo_slow": _demo}
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--row", action="append", choices=list(rows), help="only this; may be repeated")
    args = own.parse_args(argv)
    chosen = args.row or (["late_cut"] if args.quick else list(rows))
    bars: list[Bar] = []
    figures: dict[str, Any] = {"seeds": [0]}
    table = Table("row", "what", "figures")
    with tempfile.TemporaryDirectory(prefix="shoal-slow-") as name:
        for row in chosen:
            for index, (what, found, own_bars) in enumerate(rows[row](Path(name) / row, args.quick)):
                bars += own_bars
                figures[f"{row}.{index}"] = {"what": what, **found}
                table.add_row(row, what, ", ".join(f"{key} {value}" for key, value in found.items()))
                print(f"{row}: {what}: {found}", file=sys.stderr, flush=True)
    missing = [f"{row}: left out" for row in rows if row not in chosen]
    return finish(args, bars, figures, missing, table)


Measured = Iterator[tuple[str, dict[str, Any], list[Bar]]]


def _late_cut(folder: Path, is_quick: bool) -> Measured:
    config = _written(folder / "late.toml", PLAN)
    wanted = QUICK_ROUNDS if is_quick else ROUNDS
    for peers in (2,) if is_quick else (2, 3):
        for steps in QUICK_STEPS if is_quick else STEPS:
            with open_boxes() as boxes:
                what = f"{peers} peers, steps of {steps:g} rounds"
                place = _folder(folder / f"{peers}-{steps}")
                boxes += [Box(place, f"peer{n}", None, steps * TICK_S) for n in range(peers)]
                _start(boxes, [*PROGRAM, "start", "--config", str(config)], PROGRAM)
                sealed = until(
                    lambda boxes=boxes: _sealed(boxes), lambda found: found.rounds >= wanted, f"{wanted} rounds"
                )
                for box in boxes:
                    box.stop()
            found = {"rounds": sealed.rounds, "by_all": sealed.by_all, "late_s": sealed.late_s}
            yield (
                what,
                found,
                [
                    at_least("late_cut", f"share of the rounds that all seal, {what}", sealed.share, 19 / 20),
                    at_most("late_cut", f"seconds from a tick to its snapshot at most, {what}", sealed.late_s, 0.2),
                ],
            )


def _slow_machine(folder: Path, is_quick: bool) -> Measured:
    minutes = (0, 1) if is_quick else MINUTES
    with _third_of_two_cores() as third:
        one_core = ["taskset", "-c", "0"]
        for peers, behind, where in ((3, one_core, "one core"), (2, one_core, "one core"), (3, third, "2 × 1/3 core")):
            what = f"{peers} daemons of tiny, {where}"
            place = _folder(folder / f"{peers}-{len(behind)}")
            with open_boxes() as boxes:
                boxes += [Box(place, f"peer{n}", behind=behind) for n in range(peers)]
                _start(boxes, [*SHOAL, "start", "--config", "tiny"], SHOAL)
                spec = saved_spec(boxes[0].state_dir)
                assert spec is not None
                clock = Clock(spec.genesis, spec.rounds.tick_seconds)
                first, last = (clock.tick() + round(60 * m / spec.rounds.tick_seconds) for m in minutes)
                time.sleep(clock.seconds_until(last) + 4 * spec.rounds.tick_seconds)
                sealed = _sealed(boxes, first, last)
                skipped = {box.name: box.status().skipped for box in boxes}
                speed = sum(peer.tokens_per_s for peer in boxes[0].status().peers)
                for box in boxes:
                    box.stop()
            found = {"rounds": sealed.rounds, "by_all": sealed.by_all, "tick_s": spec.rounds.tick_seconds}
            found |= {"tokens_per_s": round(speed), "skipped": skipped, "late_s": sealed.late_s}
            yield (
                what,
                found,
                [
                    at_least("slow_machine", f"share of the founder's rounds sealed by all: {what}", sealed.share, 0.9),
                    at_least("slow_machine", f"rounds: {what}", sealed.rounds, 20),
                ],
            )


def _unequal(folder: Path, is_quick: bool) -> Measured:
    plan = load("tiny").run
    assert plan is not None
    period_s = FACTOR * step_seconds(plan, 4)
    periods = [period_s] * 3 + [SLOWER * period_s]
    settings = ["SHOAL_RUN__STRATEGY__COMMON_TOKENS=4000000", "SHOAL_RUN__ROUNDS__TICK_SECONDS=1"]  # one block for all
    with open_boxes() as boxes:
        boxes += [Box(_folder(folder), f"peer{n}", None, period) for n, period in enumerate(periods)]
        _start(boxes, ["env", *settings, *PROGRAM, "start", "--config", "tiny"], PROGRAM)
        time.sleep(60.0 if is_quick else UNEQUAL_S)
        quick = _sealed(boxes[:3])
        own = list(_rounds(boxes[3]).values())[1:]
        for box in boxes:
            box.stop()
    slow = [outcome for outcome, _ in own]
    share = sum("sealed" in outcome for outcome in slow) / max(1, len(slow))
    whole = sum("sealed 4 of 4" in outcome for outcome in slow)
    found = {"period_s": round(period_s, 2), "rounds": quick.rounds, "by_the_quick": quick.by_all}
    found |= {"slow_rounds": len(slow), "sealed_by_it": round(share, 3), "with_its_offer": whole}
    yield (
        f"four peers, one {SLOWER} times slower",
        found,
        [
            at_least("unequal_tiny", "share of the rounds that the three quick ones seal", quick.share, 0.95),
            at_least("unequal_tiny", "share of its own rounds that the slow one seals", share, 0.9),
        ],
    )


def _demo(folder: Path, is_quick: bool) -> Measured:
    with _third_of_two_cores() as third:
        places = {"one core": (["taskset", "-c", "0"], 15), "two cores": ([], 6), "2 × 1/3 core": (third, 10)}
        for where, (behind, most_minutes) in places.items():
            began = time.monotonic()
            done = subprocess.run([*behind, *SHOAL, "demo", "--json"], stdout=subprocess.PIPE, check=False, text=True)
            minutes = (time.monotonic() - began) / 60
            told = json.loads(done.stdout) if done.stdout else {"fused": {"mean": 1.0}, "alone": {"mean": 1.0}}
            ratio = told["fused"]["mean"] / told["alone"]["mean"]
            found = {"exit": done.returncode, "minutes": round(minutes, 1), "fused_over_alone": round(ratio, 3)}
            found |= {key: told.get(key) for key in ("rounds", "rounds_after_founder_left", "tokens")}
            found["rounds_of_killed"] = told.get("rounds_after_kill_of_killed_peer")
            bars = [
                at_most("demo_slow", f"exit code, {where}", done.returncode, 0),
                at_most("demo_slow", f"minutes, {where}", minutes, most_minutes),
                at_most("demo_slow", f"fused over the lone peer, {where}", ratio, 0.95),
            ]
            yield f"demo, {where}", found, bars


def _start(boxes: Sequence[Box], found: list[str], program: list[str]) -> None:
    """Start the founder, and the others by the line that it prints; return when all are ready."""
    own = ["--host", "127.0.0.1", "--state-dir"]
    boxes[0].start([*found, *own, str(boxes[0].state_dir)])
    line = boxes[0].wait_for("^join with: shoal (.+)")
    for box in boxes[1:]:
        box.start([*program, *line.split(), *own, str(box.state_dir)])
    for box in boxes:
        box.wait_for("^(ready)")


def _sealed(boxes: Sequence[Box], first: int = 0, last: int = 2**60) -> Sealed:
    """Return what became of the founder's rounds from tick `first` to `last`, after the first with everybody."""
    told = [_rounds(box) for box in boxes]
    begun = [at[1] for at, (outcome, _) in told[0].items() if f"of {len(boxes)}" in outcome]
    since = max(first, min(begun, default=last) + 1)
    # The last rounds may not have ended everywhere.
    until_tick = min(last, min(max((at[1] for at in rounds), default=0) for rounds in told) + 1)
    mine = [at for at in told[0] if since <= at[1] < until_tick and told[0][at][0] != "alone"]
    by_all = sum(all("sealed" in rounds.get(at, ("",))[0] for rounds in told) for at in mine)
    late_s = max((rounds[at][1] for at in mine for rounds in told if at in rounds), default=0.0)
    return Sealed(len(mine), by_all, late_s)


def _rounds(box: Box) -> dict[tuple[str, int], tuple[str, float]]:
    """Return (block, tick) → how the round ended, and when after its tick the snapshot was there."""
    return {(block, int(tick)): (outcome, float(late)) for block, tick, outcome, late in ROUND.findall(box.log)}


@contextmanager
def _third_of_two_cores() -> Iterator[list[str]]:
    """Yield a command that runs another with two thirds of a core, in a control group of its own (root)."""
    name = f"shoal-slow-{os.getpid()}"
    old, new = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    group = (old if old.is_dir() else new) / name
    group.mkdir()
    try:
        if old.is_dir():
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text(str(int(2 * THIRD * 100_000)))
        else:
            (group / "cpu.max").write_text(f"{int(2 * THIRD * 100_000)} 100000")
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        until(lambda: (group / "cgroup.procs").read_text(), lambda pids: not pids, "the end of what ran in the group")
        group.rmdir()


def _written(path: Path, text: str) -> Path:
    _folder(path.parent)
    path.write_text(text)
    return path


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())
