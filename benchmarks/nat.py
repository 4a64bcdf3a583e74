"""Peers that cannot dial each other: how soon they train together, and whether they go on, in network namespaces.

    python -m benchmarks.nat [--pair NAME …] [--quick] [--json FILE]

A founder that everybody can dial, and two joiners that it alone can hear of; the second one's join is what is timed,
imports and the waiting for ticks included. (It is ready when it has found its way and is in the DHT.) When a round of
all three has been sealed, the founder pauses: what the two seal from then on goes through its relay, or directly, but
not through its work.

    nat          the worst of the pairs: seconds from the join to the first round that is sealed by all three
    nat_rounds   the least of them: rounds sealed by the two alone, in twice the time that ten need, and half a minute
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.boxes import MICRO, SHOAL, Box, open_boxes, shoal
from benchmarks.nats import Kind, Site, open_world
from benchmarks.patience import Hung, until
from benchmarks.report import at_least, at_most, exit_with, finish, parser
from peer.chaos.links import Peer
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

JOIN_S, ROUNDS = 30.0, 10
TICK_S = 2.0
SETTLE_S = 30.0  # for the founder to have paused everywhere
SLOW_S = 240.0  # after which a pair has failed
PORT = 4001
JOINERS = ("first", "second")
PLAN = MICRO.read_text().replace("tick_seconds = 1.0", f"tick_seconds = {TICK_S}")


@dataclass(frozen=True)
class Pair:
    """Two joiners' sites, and why they are here."""

    first: Kind
    second: Kind
    why: str
    founder: Kind = "open"
    is_alone: bool = True  # the two go on without the founder's work


PAIRS = {
    "open": Pair("open", "open", "nobody is behind anything: what the others are measured against"),
    "cone": Pair("cone", "cone", "two homes"),
    "symmetric": Pair("symmetric", "symmetric", "two mobile networks: no hole can be punched"),
    "mixed": Pair("cone", "symmetric", "a home and a mobile network"),
    "closed": Pair("closed", "closed", "two machines with firewalls of their own"),
    "family": Pair("open", "six", "IPv4 only and IPv6 only; the founder has both, and passes offers on", "dual", False),
}
BASELINE = "open"
QUICK = (BASELINE, "mixed")


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
        found = {}
        for name in names:
            found[name] = measure(PAIRS[name], Path(folder) / name, data)
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    beside = found[BASELINE]["join_s"] if BASELINE in found else None
    hidden = {name: each for name, each in found.items() if name != BASELINE} or found
    bars = [
        at_most("nat", "seconds from join to the first round sealed together", worst(hidden, "join_s"), JOIN_S, beside),
        at_least("nat_rounds", "rounds sealed then, by the two alone", -worst(hidden, "rounds", -1), ROUNDS),
    ]
    return finish(args, bars, {"seeds": [], "pairs": found}, table=table_of(found))


def worst(found: dict[str, dict[str, Any]], key: str, sign: int = 1) -> float:
    """Return the largest of the pairs' figures, or of their negatives."""
    return max(sign * each[key] for each in found.values())


def measure(pair: Pair, folder: Path, data: Path) -> dict[str, Any]:
    """Let a founder and a pair train; return what came of it. What never happens counts as slow as can be."""
    folder.mkdir()
    with open_world([Site(kind) for kind in (pair.founder, pair.first, pair.second)]) as places, open_boxes() as boxes:
        boxes += [Box(folder, name, place) for name, place in zip(("founder", *JOINERS), places, strict=True)]
        joiners = boxes[1:]
        began = start(pair, boxes, data)
        ready_s = time.monotonic() - began
        join_s = seconds_until(lambda: sealed(boxes), 1, SLOW_S, began)
        if pair.is_alone:
            shoal("pause", "--state-dir", str(boxes[0].state_dir), behind=places[0].command())
        counted = joiners if pair.is_alone else boxes
        first = max(sealed(counted), default=0)

        def rounds() -> list[int]:
            return [each for each in sealed(counted) if each > first]

        alone_s = seconds_until(rounds, ROUNDS, 2 * TICK_S * ROUNDS + SETTLE_S)
        return {
            "why": pair.why,
            "ready_s": ready_s,
            "join_s": join_s,
            "rounds": len(rounds()),
            "rounds_s": alone_s,
            "link": link_of(joiners[1], joiners[0], places[2]),
            "said": [re.findall(r"(?:others can|nobody could)[^\n]*", joiner.log)[:1] for joiner in joiners],
        }


def start(pair: Pair, boxes: Sequence[Box], data: Path) -> float:
    """Start a founder and two joiners, one after the other is there; return when the last one's command began."""
    founder, began = boxes[0], time.monotonic()
    for box, kind in zip(boxes, (pair.founder, pair.first, pair.second), strict=True):
        began = time.monotonic()
        host = "::" if kind in ("six", "dual") else "0.0.0.0"
        own = ["--threads", "1", "--host", host, "--state-dir", str(box.state_dir)]
        if box is founder:
            plan = str(data.parent / "plan.toml")
            box.start([*SHOAL, "start", "--config", plan, "--data", str(data), "--port", str(PORT), *own])
        else:
            run = founder.wait_for(r"^join with: shoal join \S+ (.+)").split()
            address = founder.wait_for(rf"^listening on (/ip{6 if kind == 'six' else 4}/\S+)")
            box.start([*SHOAL, "join", address, *run, *own])
        box.wait_for("^(ready)")
    return began


def seconds_until(look: Callable[[], Sequence[int]], count: int, most_s: float, began: float | None = None) -> float:
    """Wait until `look` returns so many rounds; return the seconds since `began`, or `most_s` if it never does."""
    since = time.monotonic() if began is None else began
    try:
        until(look, lambda found: len(found) >= count, f"{count} rounds", most_s=most_s)
    except Hung as error:
        print(error, file=sys.stderr, flush=True)
        return most_s
    return time.monotonic() - since


def link_of(box: Box, other: Box, place: Peer) -> str:
    """Return how two daemons are connected, by the status of the first."""
    said = json.loads(shoal("status", "--json", str(box.state_dir), behind=place.command()))
    me = other.all_said(r"^peer (\S+)")[0]
    return next((each["link"] or "not connected" for each in said["peers"] if each["peer_id"] == me), "not known")


def sealed(boxes: Sequence[Box]) -> list[int]:
    """Return the rounds in which each of `boxes` sealed the work of so many as they are, with one digest."""
    everybody = f"sealed {len(boxes)} of {len(boxes)}"
    said = [dict(re.findall(rf"\bmodel round (\d+): (?:.*; )?{everybody};.* digest (\w+),", box.log)) for box in boxes]
    common = set.intersection(*map(set, said))
    return sorted(int(number) for number in common if len({each[number] for each in said}) == 1)


def table_of(found: dict[str, dict[str, Any]]) -> Table:
    table = Table("pair", "why", title="Two joiners and a founder that can be dialled", min_width=70)
    for column in ("ready, s", "join, s", "rounds then", "in s", "the two are"):
        table.add_column(column, justify="right")
    for name, each in found.items():
        seconds = [f"{each[key]:.1f}" for key in ("ready_s", "join_s")]
        table.add_row(name, each["why"], *seconds, str(each["rounds"]), f"{each['rounds_s']:.1f}", each["link"])
    return table


if __name__ == "__main__":
    exit_with(main)
