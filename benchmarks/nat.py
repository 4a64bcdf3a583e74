"""Peers that cannot dial each other: how soon they train together, and whether they go on, in network namespaces.

    python -m benchmarks.nat [--pair NAME …] [--quick] [--json FILE]

A founder that everybody can dial, and two joiners that it alone can hear of; the second one's join is what is timed,
imports and the waiting for ticks included. When rounds of all three have been sealed, the founder pauses: what the two
seal from then on goes through its relay, or directly, but not through its work.

    nat          the worst of the pairs: seconds from the join to the first round that is sealed by all three
    nat_rounds   the least of them: rounds sealed by the two alone, in the time that as many need, twice
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.boxes import SHOAL, Box, open_boxes, shoal
from benchmarks.nats import Kind, Site, open_world
from benchmarks.patience import Hung, until
from benchmarks.report import at_least, at_most, exit_with, finish, parser
from peer.corpus.prepare import Plan, prepare_texts

JOIN_S, ROUNDS = 30.0, 10
TICK_S = 2.0
SLOW_S = 240.0  # after which a pair has failed
PORT = 4001
PLAN = f"""
[run]
name = "nat"
total_tokens = 100_000_000
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
first_ticks = 1
last_ticks = 1
double_tokens = 1_000_000_000
cut_share = 0.4
"""


@dataclass(frozen=True)
class Pair:
    """Two joiners' sites, and why they are here."""

    first: Kind
    second: Kind
    why: str
    founder: Kind = "open"


PAIRS = {
    "cone": Pair("cone", "cone", "two homes"),
    "symmetric": Pair("symmetric", "symmetric", "two mobile networks: no hole can be punched"),
    "mixed": Pair("cone", "symmetric", "a home and a mobile network"),
    "closed": Pair("closed", "closed", "two machines with firewalls of their own"),
    "family": Pair("open", "six", "one has IPv4 only, one IPv6 only; the founder has both", founder="dual"),
}
QUICK = ("mixed",)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    options.add_argument("--pair", action="append", choices=PAIRS, help="only this one; may be repeated")
    args = options.parse_args()
    names = args.pair or (QUICK if args.quick else tuple(PAIRS))
    with tempfile.TemporaryDirectory(prefix="shoal-nat-") as folder:
        data = Path(folder) / "data"
        songs = [f"{number} bottles of beer on the wall, {number} bottles of beer. " * 20 for number in range(200)]
        prepare_texts({"songs": songs}, data, Plan(vocab_size=512, context_length=64))
        (Path(folder) / "plan.toml").write_text(PLAN)
        found = {name: measure(PAIRS[name], Path(folder) / name, data) for name in names}
    bars = [
        at_most("nat", "seconds from join to the first round sealed together", worst(found, "join_s"), JOIN_S),
        at_least("nat_rounds", "rounds that the two sealed alone", -worst(found, "rounds", -1), ROUNDS),
    ]
    return finish(args, bars, {"seeds": [], "pairs": found}, table=table_of(found))


def worst(found: dict[str, dict[str, Any]], key: str, sign: int = 1) -> float:
    """Return the largest of the pairs' figures, or of their negatives."""
    return max(sign * each[key] for each in found.values())


def measure(pair: Pair, folder: Path, data: Path) -> dict[str, Any]:
    """Let a founder and a pair train; return what came of it. A pair that never does counts as slow as can be."""
    folder.mkdir()
    kinds = (pair.founder, pair.first, pair.second)
    with open_world([Site(kind) for kind in kinds]) as places, open_boxes() as boxes:
        founder, *joiners = boxes[:] = [
            Box(folder, name, place) for name, place in zip(("founder", "first", "second"), places, strict=True)
        ]
        own = ["--threads", "1", "--log-level", "info"]
        founder.start([*SHOAL, "start", "--config", str(folder.parent / "plan.toml"), "--data", str(data), *own,
                       "--host", "::" if pair.founder == "dual" else "0.0.0.0", "--port", str(PORT),
                       "--state-dir", str(founder.state_dir)])  # fmt: skip
        line = founder.wait_for("^join with: shoal join (.+)").split()
        began = 0.0
        for joiner, kind in zip(joiners, kinds[1:], strict=True):
            began = time.monotonic()
            address = reaching(founder, kind) or line[0]
            host = "::" if kind == "six" else "0.0.0.0"
            joiner.start([*SHOAL, "join", address, *line[1:], *own, "--host", host, "--state-dir",
                          str(joiner.state_dir)])  # fmt: skip
            joiner.wait_for("^(ready)")
        try:
            until_sealed(boxes, 1)
            join_s = time.monotonic() - began
            shoal("pause", "--state-dir", str(founder.state_dir), behind=places[0].command())
            before, alone = max(sealed(joiners), default=0), time.monotonic()
            most_s = 2 * TICK_S * ROUNDS + SLOW_S / 8
            until(lambda: [r for r in sealed(joiners) if r > before], lambda rounds: len(rounds) >= ROUNDS, "rounds",
                  most_s=most_s)  # fmt: skip
            seconds = time.monotonic() - alone
        except Hung as error:
            print(error, file=sys.stderr)
            join_s, seconds = (join_s if "join_s" in locals() else SLOW_S), 0.0
        return {
            "why": pair.why,
            "join_s": join_s,
            "rounds": len([r for r in sealed(joiners) if r > before]) if "before" in locals() else 0,
            "alone_s": seconds,
            "ways": [re.findall(r"(?:others (?:can|cannot)|nobody could)[^\n]*", joiner.log)[:1] for joiner in joiners],
        }


def reaching(founder: Box, kind: Kind) -> str | None:
    """Return the founder's address that a machine of this kind can dial, if that makes a difference."""
    family = "ip6" if kind == "six" else "ip4"
    found = founder.all_said(rf"^listening on (/{family}/\S+)")
    return str(found[0]) if found else None


def until_sealed(boxes: Sequence[Box], count: int) -> None:
    """Wait until `boxes` have sealed so many rounds together. Raises Hung."""
    until(lambda: sealed(boxes), lambda rounds: len(rounds) >= count, "rounds", most_s=SLOW_S,
          seen=lambda _: "\n".join(box.log[-2000:] for box in boxes))  # fmt: skip


def sealed(boxes: Sequence[Box]) -> list[int]:
    """Return the rounds in which each of `boxes` sealed the work of so many as they are, with one digest."""
    everybody = f"sealed {len(boxes)} of {len(boxes)}"
    said = [dict(re.findall(rf"\bmodel round (\d+): (?:.*; )?{everybody};.* digest (\w+),", box.log)) for box in boxes]
    common = set.intersection(*map(set, said))
    return sorted(int(number) for number in common if len({each[number] for each in said}) == 1)


def table_of(found: dict[str, dict[str, Any]]) -> Table:
    table = Table("pair", "why", title="Two joiners and a founder that can be dialled", min_width=70)
    for column in ("join, s", "rounds alone", "in s"):
        table.add_column(column, justify="right")
    for name, each in found.items():
        table.add_row(name, each["why"], f"{each['join_s']:.1f}", str(each["rounds"]), f"{each['alone_s']:.1f}")
    return table


if __name__ == "__main__":
    exit_with(main)
