"""What daemons survive: every kind of fault alone, mixed schedules, a kill in mid-round, a partition.

    python -m benchmarks.chaos [--row kinds|random|kill|partition …] [--cache DIR] [--seeds N] [--quick] [--json FILE]

- `chaos_kinds`, `chaos_random`: shares of schedules whose invariants all hold (`peer/chaos/invariants.py`): each kind
  of fault alone, and schedules drawn from the printed seeds. Schedules for as many peers follow each other on one
  swarm; after one that broke something comes a new swarm.
- `kill_delay`: `benchmarks/kill_delay.py`, beside Hivemind's averager.
- `partition`: `benchmarks/partition.py`.

The daemons are the command `shoal`, but that their steps are paced (`pacing.py`): two cores stand in for six machines.
With a cache a schedule that was played is not played again.
"""

import argparse
import asyncio
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks import kill_delay, partition
from benchmarks.pacing import LOG, PERIOD
from benchmarks.report import Bar, at_least, exit_with, finish, parser
from peer.chaos.play import Swarm, play_all
from peer.chaos.schedule import EACH_KIND, Schedule, drawn
from peer.commands.chaos import facts_of

ROWS = ("kinds", "random", "kill", "partition")
SEEDS = 50
QUICK_KINDS, QUICK_SEEDS = ("asleep", "worker killed", "another run"), 1
ON_ONE_SWARM = 8  # schedules, after which a swarm has lived long enough
PACED = Swarm(
    program=(sys.executable, "-m", "benchmarks.chaos_daemon"),
    environment={PERIOD: "0.25", LOG: "/dev/null"},
)

Facts = dict[str, Any]


def main() -> int:
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--row", action="append", choices=ROWS, help="only these (default: all)")
    own.add_argument("--cache", type=Path, metavar="DIR", help="keep what was played there, and go on from it")
    own.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"mixed schedules (default: {SEEDS})")
    args = own.parse_args()
    rows = args.row or ROWS
    kinds = [EACH_KIND[name] for name in QUICK_KINDS] if args.quick else list(EACH_KIND.values())
    mixed = [drawn(seed) for seed in range(QUICK_SEEDS if args.quick else args.seeds)]
    bars: list[Bar] = []
    facts: Facts = {"seeds": [schedule.seed for schedule in mixed] if "random" in rows else [0]}
    not_measured: list[str] = []
    table = Table("schedule", "held", "rounds until all agreed", "seconds", "broken")
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as scratch:
        cache = args.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        for row, schedules in (("kinds", kinds), ("random", mixed)):
            if row in rows:
                _play(schedules, cache)
                facts[row] = [known(cache, schedule) for schedule in schedules]
                held = sum(each["holds"] for each in facts[row]) / len(facts[row])
                what = "every kind of fault alone" if row == "kinds" else "mixed schedules"
                bars.append(at_least(f"chaos_{row}", f"{what} ({len(facts[row])}): share that held", held, 1.0))
                for each in facts[row]:
                    _add(table, each)
        if "kill" in rows:
            bars.append(kill_delay.measure(PACED, facts, not_measured, is_quick=args.quick))
        if "partition" in rows:
            bars += partition.measure(PACED, facts, is_quick=args.quick)
    return finish(args, bars, facts, not_measured, table if table.row_count else None)


def _play(schedules: Sequence[Schedule], cache: Path) -> None:
    """Play those that are not in the cache, and put them there."""
    while left := [each for each in schedules if known(cache, each) is None]:
        for played in asyncio.run(play_all(_together(left), PACED, _say)):
            facts = facts_of(played)
            _path(cache, played.schedule).write_text(json.dumps(facts, indent=1))
            _say(f"== {played.schedule.name}: {'held' if played.holds else played.broken}")


def _together(left: Sequence[Schedule]) -> list[Schedule]:
    """Return the next ones that can be played on one swarm: for as many peers; what is for good comes last."""
    first = left[0]
    together: list[Schedule] = []
    for schedule in left:
        if (schedule.peers, schedule.strategy) == (first.peers, first.strategy) and len(together) < ON_ONE_SWARM:
            together.append(schedule)
            if any(fault.is_final or fault.kind == "twin" for fault in schedule.faults):
                break
    return together


def known(cache: Path, schedule: Schedule) -> Facts | None:
    """Return what came of a schedule, if it was played as it is."""
    path = _path(cache, schedule)
    if not path.exists():
        return None
    facts: Facts = json.loads(path.read_text())
    return facts if facts["schedule"] == schedule.model_dump(mode="json", exclude_defaults=True) else None


def _path(cache: Path, schedule: Schedule) -> Path:
    return cache / f"{schedule.name.replace(' ', '-')}.json"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _add(table: Table, facts: Facts) -> None:
    rounds, seconds = (facts[key] if facts[key] is not None else math.inf for key in ("recovery_rounds", "recovery_s"))
    broken = "; ".join([*facts["broken"], *facts["skipped"]])[:200]
    table.add_row(facts["name"], "yes" if facts["holds"] else "no", f"{rounds:.0f}", f"{seconds:.1f}", broken)


if __name__ == "__main__":
    exit_with(main)
