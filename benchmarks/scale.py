"""What becomes of a swarm larger than one group, simulated: the same grouping, sealing, codecs and steps as a daemon's.

    theory                        the pull alone, of whole and exact anchors, without pseudo-gradients and limit: by how
                                  much it shrinks the variance between replicas, over (groups − 1) / (peers − 1)
    dispersion                    the full step: does the spread between replicas grow without end?
    churn                         the same while 30 % of the peers are replaced, unannounced, in every round
    scale_bytes, scale_lookups    what a round costs a peer of 10,000 over what it costs one of 16

Bytes are what a peer receives: offers with fragments of a block of a million parameters, lists, records of its bucket,
answers of the DHT. Look-ups are counted by the questions that they ask other nodes: its own record stored in the
bucket, and the bucket read (twice more where it is thin). Membership records and states are not counted.
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.report import Bar, at_most, between, finish, run
from peer.simulate.run import Simulation, one_thread
from peer.simulate.scenario import Scenario
from peer.simulate.theory import pull_factor
from peer.simulate.work import SIZE
from peer.train.mixing import FRAGMENT_CODEC, pull
from protocols.codecs import decode, encode
from protocols.grouping import bits_for, draw, group

PULLED = (8, 16, 32, 64)  # peers
PULL_GROUP, PULL_VALUES = 4, 128
SPREAD_GROUP, ROUNDS, WINDOW = 4, 500, 100
CHURN = 0.3
FEW, FULLEST, MANY = 16, 9000, 10_000  # peers; buckets have the most members on average just below 9 · 2ⁿ peers


def main(args: argparse.Namespace) -> int:
    ticks, seeds, rounds = (200, range(3), 3) if args.quick else (1000, range(8), 20)
    with one_thread():
        pulls = [pulled(peers, ticks) for peers in PULLED]
        spreads = [dispersion(peers=16, churn=churn, seeds=seeds) for churn in (0.0, CHURN)]
        costs = [cost(Scenario(peers=peers, rounds=rounds)) for peers in (FEW, MANY)]
        if not args.quick:
            spreads += [dispersion(peers=64, churn=churn, seeds=seeds[:1]) for churn in (0.0, CHURN)]
            costs += [cost(Scenario(peers=FULLEST, rounds=5)), cost(Scenario(peers=MANY, rounds=5, churn=CHURN))]
    bars = [*_bars_of_spread(pulls, *spreads[:2]), *_bars_of_cost(*costs[:2])]
    not_measured = []
    if args.quick:
        not_measured = [
            f"theory in more than {ticks} ticks, dispersion and churn with more than {len(seeds)} seeds or 16 peers",
            f"{MANY:,} peers in more than {rounds} rounds or with churn, {FULLEST:,} peers",
        ]
    figures = {
        "seeds": list(seeds),
        "pull": [asdict(one) for one in pulls],
        "dispersion": spreads,
        "costs": costs,
    }
    table = Table.grid()
    for part in (_table_of_pulls(pulls), _table_of_spreads(spreads), _table_of_costs(costs)):
        table.add_row(part)
    return finish(args, bars, figures, not_measured, table)


@dataclass(frozen=True)
class Pulled:
    """By how much one pull shrinks the variance between so many replicas."""

    peers: int
    exact: float
    rounded: float  # anchors as they are sent, one pseudo-gradient apart: what rounding takes off an anchor stays in it
    theory: float  # of the groups that there were

    @property
    def ratio(self) -> float:
        return self.exact / self.theory


def pulled(peers: int, ticks: int) -> Pulled:
    """Measure the pull over many ticks, each with groups and anchors of its own."""
    chance = torch.Generator().manual_seed(peers)
    names = [f"peer{number}" for number in range(peers)]
    before, exact, rounded, expected = [], [], [], []
    for tick in range(ticks):
        weights = torch.randn(PULL_VALUES, generator=chance)
        anchors = weights + SIZE * torch.randn(peers, PULL_VALUES, generator=chance)
        sent = decode(FRAGMENT_CODEC, encode(FRAGMENT_CODEC, anchors.flatten()), anchors.numel()).view_as(anchors)
        groups = _groups(names, tick)
        before.append(_variance(anchors))
        exact.append(_variance(_after_pull(anchors, anchors, groups)))
        rounded.append(_variance(_after_pull(anchors, sent, groups)))
        expected.append(before[-1] * pull_factor(peers, len(groups)))
    return Pulled(peers, *(sum(after) / sum(before) for after in (exact, rounded, expected)))


def _groups(names: Sequence[str], tick: int) -> list[list[int]]:
    """Return the rows of each group's members."""
    bits = bits_for(len(names), PULL_GROUP)
    draws = {name: draw("", "model", tick, name) for name in names}
    buckets: dict[str, dict[str, str]] = defaultdict(dict)
    for name, drawn in draws.items():
        buckets[drawn[:bits]][name] = drawn
    found = {group(name, buckets[drawn[:bits]], bits, PULL_GROUP) for name, drawn in draws.items()}
    return [[names.index(name) for name in members] for members in sorted(found)]


def _after_pull(anchors: Tensor, sent: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    after = anchors.clone()
    for members in groups:
        for me in members:
            after[me] -= pull(sent[me], [sent[row] for row in members], math.inf)
    return after


def _variance(anchors: Tensor) -> float:
    return float((anchors.double() - anchors.double().mean(0)).square().mean())


def dispersion(*, peers: int, churn: float, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the spread between replicas, in pseudo-gradients, early and late: means over all seeds.

    What churn does to few peers is a matter of luck: with one seed the late mean is up to a sixth off the early one.
    """
    swarms = []
    for seed in seeds:
        scenario = Scenario(peers=peers, group_size=SPREAD_GROUP, rounds=ROUNDS, churn=churn, seed=seed)
        swarms.append(list(Simulation(scenario).rounds()))
    early = [fmean(figures.spread for figures in rounds[WINDOW : 2 * WINDOW]) for rounds in swarms]
    late = [fmean(figures.spread for figures in rounds[-WINDOW:]) for rounds in swarms]
    return {
        "peers": peers,
        "churn": churn,
        "early": fmean(early),
        "late": fmean(late),
        "trend": fmean(late) / fmean(early),
        "trends": [after / before for after, before in zip(late, early, strict=True)],  # of each seed
        "largest": max(figures.spread for rounds in swarms for figures in rounds),
        "theory": fmean(
            figures.theory for rounds in swarms for figures in rounds[-WINDOW:]
        ),  # of the groups there were
        "skipped": fmean(figures.skipped for rounds in swarms for figures in rounds),
        "lost": fmean(rounds[-1].lost for rounds in swarms),
        "work": fmean(rounds[-1].work for rounds in swarms),
    }


def cost(scenario: Scenario) -> dict[str, Any]:
    """Return what a round costs a peer, means over the rounds, and what the simulation took."""
    began = time.monotonic()
    rounds = [asdict(figures) for figures in Simulation(scenario).rounds()]
    names = ("groups", "mbytes", "lookups", "lookup_rpcs", "holders", "skipped")
    means = {name: fmean(figures[name] for figures in rounds) for name in names}
    return {"scenario": scenario.model_dump(), **means, "seconds": time.monotonic() - began}


def _bars_of_spread(pulls: Sequence[Pulled], calm: dict[str, Any], churned: dict[str, Any]) -> list[Bar]:
    worst = max(pulls, key=lambda one: abs(one.ratio - 1))
    what = f"variance left by a pull over theory's; the worst of {len(pulls)} swarms, {worst.peers} peers"
    trend = f"spread of rounds {ROUNDS - WINDOW + 1} to {ROUNDS} over that of {WINDOW + 1} to {2 * WINDOW}"
    return [
        between("theory", what, worst.ratio, 0.95, 1.05, 1.0),
        at_most("dispersion", f"{trend}, 16 peers in groups of {SPREAD_GROUP}", calm["trend"], 1.1, 1.0),
        at_most("churn", f"the same, {CHURN:.0%} of the peers replaced in each round", churned["trend"], 1.1, 1.0),
    ]


def _bars_of_cost(few: dict[str, Any], many: dict[str, Any]) -> list[Bar]:
    swarms = f"a peer of {MANY:,} over one of {FEW}, each round"
    members = f"{MANY / many['groups']:.1f} members in a group against {FEW / few['groups']:.1f}"
    return [
        at_most("scale_bytes", f"bytes received by {swarms} ({members})", many["mbytes"] / few["mbytes"], 1.2),
        at_most("scale_lookups", f"questions of look-ups, {swarms}", many["lookup_rpcs"] / few["lookup_rpcs"], 3),
    ]


def _table_of_pulls(pulls: Sequence[Pulled]) -> Table:
    table = Table(title=f"Variance after a pull over that before, groups of {PULL_GROUP}")
    for name in ("peers", "measured", "theory", "ratio", f"anchors sent in {FRAGMENT_CODEC}"):
        table.add_column(name, justify="right")
    for one in pulls:
        factors = (f"{one.exact:.4f}", f"{one.theory:.4f}", f"{one.ratio:.3f}", f"{one.rounded:.4f}")
        table.add_row(str(one.peers), *factors)
    return table


def _table_of_spreads(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"Spread between replicas in groups of {SPREAD_GROUP}, in pseudo-gradients, {ROUNDS} rounds")
    early, late = f"{WINDOW + 1} to {2 * WINDOW}", f"last {WINDOW}"
    names = (
        "peers",
        "churn",
        early,
        late,
        "trend",
        "of each seed",
        "largest",
        "calm theory",
        "skipped",
        "lost",
        "work",
    )
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        trends = f"{min(row['trends']):.2f} to {max(row['trends']):.2f}"
        table.add_row(
            str(row["peers"]),
            f"{row['churn']:.0%}",
            *(f"{row[name]:.3f}" for name in ("early", "late", "trend")),
            trends,
            *(f"{row[name]:.3f}" for name in ("largest", "theory")),
            *(f"{row[name]:.1%}" for name in ("skipped", "lost", "work")),
        )
    return table


def _table_of_costs(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="A round's cost for a peer, groups of 8")
    for name in (
        "peers",
        "churn",
        "a group's members",
        "MB received",
        "look-ups",
        "questions",
        "peers by estimate",
        "seconds a round",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        scenario = row["scenario"]
        peers = scenario["peers"]
        table.add_row(
            f"{peers:,}",
            f"{scenario['churn']:.0%}",
            f"{peers / row['groups']:.2f}",
            f"{row['mbytes']:.3f}",
            f"{row['lookups']:.2f}",
            f"{row['lookup_rpcs']:.1f}",
            f"{row['holders']:,.0f}",
            f"{row['seconds'] / scenario['rounds']:.2f}",
        )
    return table


if __name__ == "__main__":
    run(main, "The spread between replicas and the cost of a round, for up to 10,000 simulated peers.")
