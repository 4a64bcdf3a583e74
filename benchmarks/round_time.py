"""How long a round takes behind home uplinks, and how much CPU time it takes, against Hivemind's averager.

    round_time       seconds from the cut's opening (the snapshot handed over) to the new anchor on the last of four
                     peers, over the seconds that the others' offers need at a link's rate, each fetched once
    cpu_per_round    CPU seconds of a holder and its p2pd for one round, from the snapshot to the checkpoint on disk

The baseline's seconds are those of its all-reduce alone (its group is formed before), over the seconds that its own
bytes need; its CPU seconds are those of all its processes, matchmaking included. The first round, in which connections
are new, is printed and does not count for the time; the first three, in which memory is new, not for the CPU.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from benchmarks.group import Account, Load, run_averagers, run_holders
from benchmarks.report import at_most, baseline, finish, run
from configs.run import OuterSpec
from peer.chaos.links import Link, open_links
from protocols.codecs import CODECS, encoded_size

PEERS = 4
MBIT, DELAY_MS = 20.0, 50.0
SEED = 1
MAX_RATIO = 1.5
TICKS = 5  # a tick is this many times what the payload needs, so half of it is enough for a round that fails the bar
CPU_S, CPU_SIZE = 1.2, 20_000_000  # the bar, for a block of this size
NEW = 1  # rounds whose connections are new; they do not count for the time
WARM_UP = 3  # rounds in which a peer still gets memory that it then uses again; they do not count for the CPU time
PHASES = ("encode", "save offer", "step", "checkpoint")  # of a holder's CPU time; the rest is network and decoding


def main(args: argparse.Namespace) -> int:
    default = OuterSpec.model_fields["codec"].default
    codec = "int4" if "int4" in CODECS else default
    left: list[str] = []
    time, cpu = _measure_time(args.quick, codec, left), _measure_cpu(args.quick, default, left)
    link = f"{MBIT:g} Mbit/s, {DELAY_MS:g} ms"
    bars = [
        at_most(
            "round_time",
            f"time of a round over the time of its payload, {codec}, {time['parameters']:,} parameters, {link}",
            fmean(each["ratio"] for each in time["rounds"][NEW:]),
            MAX_RATIO,
            fmean(each["ratio"] for each in time["baseline_steps"][NEW:]) if time["baseline_steps"] else None,
        ),
        at_most(
            "cpu_per_round",
            f"CPU seconds of a peer for one round, {default}, {cpu['parameters']:,} parameters",
            cpu["round"]["total"],
            CPU_S * cpu["parameters"] / CPU_SIZE,
            cpu["baseline_step"].get("total"),
        ),
    ]
    link_figures = {"up_mbit": MBIT, "down_mbit": MBIT, "delay_ms": DELAY_MS}
    figures = {"seeds": [SEED], "peers": PEERS, "link": link_figures, "time": time, "cpu": cpu}
    return finish(args, bars, figures, left, _table(time, cpu))


def _measure_time(is_quick: bool, codec: str, left: list[str]) -> dict[str, Any]:
    size, steps = (5_000_000, NEW + 1) if is_quick else (20_000_000, NEW + 3)
    payload = (PEERS - 1) * encoded_size(codec, size)
    tick_s = TICKS * 8e-6 * payload / MBIT
    with tempfile.TemporaryDirectory() as name, open_links([Link(MBIT, MBIT, DELAY_MS)] * PEERS) as links:
        rounds = run_holders(links, Load(size, steps, tick_s, codec, SEED, up_mbit=MBIT), Path(name))
        load = Load(size, NEW + 1, 2 * tick_s)
        theirs = baseline(lambda: run_averagers(links, load, Path(name)), "round_time", left) or []
    return {
        "parameters": size,
        "codec": codec,
        "new": NEW,
        "payload_bytes": payload,
        "sent_bytes": fmean(step["payload_out"] for account in rounds for step in account.steps),
        "rounds": _times(rounds, "anchor_s", payload),
        "baseline_steps": _times(theirs, "seconds", _wire(theirs) / (NEW + 1)),
        "raw_rounds": [account.steps for account in rounds],
        "raw_baseline_steps": [account.steps for account in theirs],
    }


def _measure_cpu(is_quick: bool, codec: str, left: list[str]) -> dict[str, Any]:
    size, steps, tick_s = (4_000_000, 5, 6.0) if is_quick else (CPU_SIZE, 6, 16.0)
    with tempfile.TemporaryDirectory() as name, open_links([Link()] * PEERS) as links:
        rounds = run_holders(links, Load(size, steps, tick_s, codec, SEED), Path(name))
        load = Load(size, WARM_UP + 1, tick_s)
        theirs = baseline(lambda: run_averagers(links, load, Path(name)), "cpu_per_round", left) or []
    return {
        "parameters": size,
        "codec": codec,
        "round": _cpu(rounds),
        "baseline_step": _cpu(theirs),
        "raw_rounds": [account.steps for account in rounds],
        "raw_baseline_steps": [account.steps for account in theirs],
    }


def _times(accounts: list[Account], key: str, payload: float) -> list[dict[str, float]]:
    """Return for each step the seconds until the last peer had it, and those that its bytes need at the link's rate."""
    if not accounts:
        return []
    ideal_s = 8e-6 * payload / MBIT
    slowest = [max(account.steps[number][key] for account in accounts) for number in range(len(accounts[0].steps))]
    return [{"seconds": seconds, "ideal_s": ideal_s, "ratio": seconds / ideal_s} for seconds in slowest]


def _wire(accounts: list[Account]) -> float:
    """Return the bytes that crossed a peer's line, the way that more crossed it; the mean over the peers."""
    return fmean(max(each.wire_in, each.wire_out) for each in accounts) if accounts else 0.0


def _cpu(accounts: list[Account]) -> dict[str, float]:
    """Return the mean CPU seconds of a peer for a step, the first `WARM_UP` left out, by phase where that is known."""
    if not accounts:
        return {}
    spent = [step["cpu_s"] for account in accounts for step in account.steps[WARM_UP:]]
    if not isinstance(spent[0], dict):
        return {"total": fmean(spent)}
    mean = {phase: fmean(each[phase] for each in spent) for phase in spent[0]}
    rest = mean["process"] - sum(mean[phase] for phase in PHASES)
    return {"total": mean["process"] + mean["p2pd"], "network and decoding": rest, **mean}


def _table(time: dict[str, Any], cpu: dict[str, Any]) -> Table:
    table = Table("", "Shoal", "Hivemind", title=f"A round of {PEERS} peers", min_width=70)
    for name, key in (("seconds", "seconds"), ("at the link's rate", "ideal_s"), ("ratio", "ratio")):
        sides = [", ".join(f"{each[key]:.2f}" for each in time[side]) or "-" for side in ("rounds", "baseline_steps")]
        table.add_row(f"{time['parameters']:,} parameters: {name}", *sides)
    table.add_row("  payload bytes sent over those needed", f"{time['sent_bytes'] / time['payload_bytes']:.2f}", "-")
    table.add_section()
    total = f"{cpu['parameters']:,} parameters: CPU seconds"
    theirs = cpu["baseline_step"].get("total")
    table.add_row(total, f"{cpu['round']['total']:.2f}", "-" if theirs is None else f"{theirs:.2f}")
    for phase in (*PHASES, "network and decoding", "p2pd"):
        table.add_row(f"  {phase}", f"{cpu['round'][phase]:.2f}", "")
    return table


if __name__ == "__main__":
    run(main, "Time and CPU time of a round, against Hivemind's averager.")
