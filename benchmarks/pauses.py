"""How long a peer's event loop answers nobody while rounds of a large block go on.

    loop_pause       the longest time, in seconds, that the loop of either of two holders was late, in rounds of a block
                     of 100 million parameters: from the snapshot to the checkpoint on disk

The holders are real peers but for the trainer (see `holder.py`), each in a network namespace of its own. They share
this machine's cores: what one computes in threads makes the other's loop late, too.
"""

import argparse
import tempfile
from pathlib import Path

from rich.table import Table

from benchmarks.group import Load, run_holders
from benchmarks.report import at_most, finish, run
from peer.chaos.links import Link, open_links

PEERS, STEPS = 2, 3
MBIT, DELAY_MS = 200.0, 5.0
EVERY_S = 0.005
MAX_S = 0.05
SIZE, QUICK_SIZE = 100_000_000, 10_000_000
TICK_S, QUICK_TICK_S = 60.0, 15.0


def main(args: argparse.Namespace) -> int:
    size, tick_s = (QUICK_SIZE, QUICK_TICK_S) if args.quick else (SIZE, TICK_S)
    load = Load(size, STEPS, tick_s, "int4", up_mbit=MBIT, pause_every_s=EVERY_S)
    with tempfile.TemporaryDirectory() as name, open_links([Link(MBIT, MBIT, DELAY_MS)] * PEERS) as links:
        accounts = run_holders(links, load, Path(name))
    table = Table("round", "holder", "anchor after", "saved after", "longest pause")
    for number in range(STEPS):
        for index, account in enumerate(accounts):
            step = account.steps[number]
            seconds = (f"{step[key]:.3f} s" for key in ("anchor_s", "saved_s", "pause_s"))
            table.add_row(str(number + 1), str(index), *seconds)
    longest_s = max(step["pause_s"] for account in accounts for step in account.steps)
    what = f"longest pause of an event loop, s, {size:,} parameters, int4"
    figures = {"seeds": [0], "parameters": size, "rounds": [account.steps for account in accounts]}
    return finish(args, [at_most("loop_pause", what, longest_s, MAX_S)], figures, [], table)


if __name__ == "__main__":
    run(main, "The longest pause of the event loop in rounds of a large block.")
