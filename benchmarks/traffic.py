"""What a round sends: bytes for each peer, parameter and round, against Hivemind's averager for each step.

    traffic_int4, traffic_sparse    payload bytes in a complete group of four, with these codecs
    traffic_random                  the same in random groups of eight among sixteen, fragments included

Payload is what the services count: offers, and whatever else of tensors went out. Beside it stand the bytes at the
peers' devices, with all headers, acknowledgements and small messages; the baseline has only these.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from benchmarks.group import Account, Load, per_parameter, run_averagers, run_holders
from benchmarks.report import at_most, baseline, finish, run
from peer.chaos.links import Link, open_links
from protocols.codecs import CODECS

PEERS = 4
MANY, MANY_SIZE = 16, 1_000_000  # peers, and parameters of each, in random groups
MANY_ROUNDS = 24  # enough to even out how many a draw brings together: 8 at the mean
MAX_RANDOM = 4.5
BARS = {"int4": 1.6, "sparse": 0.15}  # payload bytes for each peer, parameter and round
SEED = 1


def main(args: argparse.Namespace) -> int:
    size, tick_s = (1_000_000, 5.0) if args.quick else (20_000_000, 20.0)
    here = [codec for codec in ("int8", *BARS) if codec in CODECS]
    rows: dict[str, dict[str, Any]] = {}
    not_measured = [f"traffic_{codec}: this version has no codec {codec}" for codec in BARS if codec not in here]
    with tempfile.TemporaryDirectory() as folder, open_links([Link()] * PEERS) as links:
        for codec in here:
            load = Load(size, 2, tick_s, codec, SEED)
            rows[f"Shoal, {codec}"] = _row(load, run_holders(links, load, Path(folder)))
        load = Load(size, 2, max(10.0, tick_s))
        if theirs := baseline(lambda: run_averagers(links, load, Path(folder)), "traffic", not_measured):
            rows["Hivemind, float16"] = _row(load, theirs)
    if not args.quick:
        with tempfile.TemporaryDirectory() as folder, open_links([Link()] * MANY) as links:
            load = Load(MANY_SIZE, MANY_ROUNDS, 10.0, "int4", SEED)
            rows["Shoal, int4, random"] = _row(load, run_holders(links, load, Path(folder)))
    wire = rows["Hivemind, float16"]["wire"] if "Hivemind, float16" in rows else None
    bars = [
        at_most(
            f"traffic_{codec}",
            f"payload bytes sent for each peer, parameter and round, {codec}, group of {PEERS}",
            rows[f"Shoal, {codec}"]["payload"],
            BARS[codec],
            wire,
        )
        for codec in here
        if codec in BARS
    ]
    if "Shoal, int4, random" in rows:
        bars.append(
            at_most(
                "traffic_random",
                f"payload bytes sent for each peer, parameter and round, int4, random groups of 8 among {MANY}",
                rows["Shoal, int4, random"]["payload"],
                MAX_RANDOM,
                wire,
            )
        )
    else:
        not_measured.append("traffic_random: sixteen peers, left out by --quick")
    figures = {"seeds": [SEED], "peers": PEERS, "parameters": size, "rows": rows}
    return finish(args, bars, figures, not_measured, _table(rows, size))


def _row(load: Load, accounts: list[Account]) -> dict[str, Any]:
    """Return the mean over the peers, in bytes for each parameter and round (or step), and the raw accounts."""
    payloads = [sum(step.get("payload_out", 0) for step in account.steps) for account in accounts]
    is_counted = any(payloads)
    return {
        "payload": per_parameter(fmean(payloads), load) if is_counted else None,
        "wire": per_parameter(fmean(account.wire_out for account in accounts), load),
        "wire_bytes_out": [account.wire_out for account in accounts],
        "steps": [account.steps for account in accounts],
    }


def _table(rows: dict[str, dict[str, Any]], size: int) -> Table:
    table = Table("", title=f"Bytes sent for each peer, parameter and round; {PEERS} peers, {size:,} parameters")
    table.add_column("payload", justify="right")
    table.add_column("on the wire", justify="right")
    for name, row in rows.items():
        table.add_row(name, "-" if row["payload"] is None else f"{row['payload']:.3f}", f"{row['wire']:.3f}")
    return table


if __name__ == "__main__":
    run(main, "Bytes that a round sends, against Hivemind's averager.")
