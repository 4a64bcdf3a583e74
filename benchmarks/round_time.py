"""How long a round takes behind home uplinks, and how much CPU time it takes, against Hivemind's averager.

    round_time       seconds from the cut's opening (the snapshot handed over) to the new anchor on the last of four
                     peers, over the seconds that the payload bytes of one of them need at its link's rate
    cpu_per_round    CPU seconds of a holder and its p2pd for one round, from the snapshot to the checkpoint on disk

The baseline's seconds are those of its all-reduce alone (its group is formed before), over the seconds that its own
bytes need; its CPU seconds are those of all its processes, matchmaking included. The first round, in which memory and
connections are new, counts for the time and not for the CPU.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from benchmarks.group import Account, Load, run_averagers, run_holders
from benchmarks.links import Link, open_links
from benchmarks.report import at_most, finish, run
from configs.run import OuterSpec
from protocols.codecs import CODECS

PEERS = 4
MBIT, DELAY_MS = 20.0, 50.0
SEED = 1
MAX_RATIO = 1.5
CPU_S, CPU_SIZE = 1.2, 20_000_000  # the bar, for a block of this size
PHASES = ("encode", "save offer", "step", "checkpoint")  # of a holder's CPU time; the rest is network and decoding


def main(args: argparse.Namespace) -> int:
    default = OuterSpec.model_fields["codec"].default
    codec = "int4" if "int4" in CODECS else default
    size, tick_s = (4_000_000, 20.0) if args.quick else (20_000_000, 60.0)
    cpu_size, cpu_tick_s = (4_000_000, 8.0) if args.quick else (CPU_SIZE, 16.0)
    slow = Link(MBIT, MBIT, DELAY_MS)
    with tempfile.TemporaryDirectory() as name, open_links([slow] * PEERS) as links:
        rounds = run_holders(links, Load(size, 2, tick_s, codec, SEED), Path(name))
        steps = run_averagers(links, Load(size, 1, 2 * tick_s), Path(name))
    with tempfile.TemporaryDirectory() as name, open_links([Link()] * PEERS) as links:
        cpu_rounds = run_holders(links, Load(cpu_size, 3, cpu_tick_s, default, SEED), Path(name))
        cpu_steps = run_averagers(links, Load(cpu_size, 2, cpu_tick_s), Path(name))
    times = _times(rounds, "anchor_s", [[_payload(step) for step in account.steps] for account in rounds])
    baseline = _times(steps, "seconds", [[max(account.wire_in, account.wire_out)] for account in steps])
    cpu, cpu_baseline = _cpu(cpu_rounds), _cpu(cpu_steps)
    link = f"{MBIT:g} Mbit/s, {DELAY_MS:g} ms"
    bars = [
        at_most(
            "round_time",
            f"time of a round over the time of its payload, {codec}, {size:,} parameters, {PEERS} peers, {link}",
            fmean(each["ratio"] for each in times),
            MAX_RATIO,
            fmean(each["ratio"] for each in baseline),
        ),
        at_most(
            "cpu_per_round",
            f"CPU seconds of a peer for one round, {default}, {cpu_size:,} parameters, {PEERS} peers",
            cpu["total"],
            CPU_S * cpu_size / CPU_SIZE,
            cpu_baseline["total"],
        ),
    ]
    figures = {
        "seeds": [SEED],
        "peers": PEERS,
        "link": {"mbit": MBIT, "delay_ms": DELAY_MS},
        "time": {"parameters": size, "codec": codec, "rounds": times, "baseline_steps": baseline},
        "cpu": {"parameters": cpu_size, "codec": default, "round": cpu, "baseline_step": cpu_baseline},
        "raw": {
            "rounds": [account.steps for account in rounds],
            "steps": [account.steps for account in steps],
            "cpu_rounds": [account.steps for account in cpu_rounds],
            "cpu_steps": [account.steps for account in cpu_steps],
        },
    }
    return finish(args, bars, figures, (), _table(figures))


def _payload(step: dict[str, Any]) -> int:
    return max(int(step["payload_in"]), int(step["payload_out"]))


def _times(accounts: list[Account], key: str, counts: list[list[int]]) -> list[dict[str, float]]:
    """Return for each step the seconds until the last peer had it, and those that the mean of their bytes needs."""
    times = []
    for number in range(len(accounts[0].steps)):
        seconds = max(account.steps[number][key] for account in accounts)
        ideal_s = 8e-6 * fmean(count[number] for count in counts) / MBIT
        times.append({"seconds": seconds, "ideal_s": ideal_s, "ratio": seconds / ideal_s})
    return times


def _cpu(accounts: list[Account]) -> dict[str, float]:
    """Return the mean CPU seconds of a peer for a step, the first one left out, by phase where that is known."""
    spent = [step["cpu_s"] for account in accounts for step in account.steps[1:]]
    if not isinstance(spent[0], dict):
        return {"total": fmean(spent)}
    mean = {phase: fmean(each[phase] for each in spent) for phase in spent[0]}
    rest = mean["process"] - sum(mean[phase] for phase in PHASES)
    return {"total": mean["process"] + mean["p2pd"], "network and decoding": rest, **mean}


def _table(figures: dict[str, Any]) -> Table:
    table = Table("", "Shoal", "Hivemind", title=f"A round of {PEERS} peers", min_width=70)
    time, cpu = figures["time"], figures["cpu"]
    for name, key in (("seconds", "seconds"), ("at the link's rate", "ideal_s"), ("ratio", "ratio")):
        sides = [", ".join(f"{each[key]:.2f}" for each in time[side]) for side in ("rounds", "baseline_steps")]
        table.add_row(f"{time['parameters']:,} parameters: {name}", *sides)
    table.add_section()
    total = f"{cpu['parameters']:,} parameters: CPU seconds"
    table.add_row(total, f"{cpu['round']['total']:.2f}", f"{cpu['baseline_step']['total']:.2f}")
    for phase in (*PHASES, "network and decoding", "p2pd"):
        table.add_row(f"  {phase}", f"{cpu['round'][phase]:.2f}", "")
    return table


if __name__ == "__main__":
    run(main, "Time and CPU time of a round, against Hivemind's averager.")
