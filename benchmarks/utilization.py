"""How much of the time peers train while they are a swarm: tokens a second together over tokens a second each alone.

Four peers, each in a network namespace behind 100 Mbit/s and 50 ms, train one model of 20.8 million parameters in
rounds of 28 s. Then the same four processes, at the same time on the same machine, each as a lone daemon that nobody
joins. The same is done with the baseline, `hivemind.Optimizer` (`hivemind_optimizer.py`). All take paced steps
(`pacing.py` says why, and what is fair about it); `--unpaced` measures Shoal without, where every second that a daemon
computes is taken from some worker.

A swarm that seals no rounds, or whose digests differ, is fast for nothing: then the benchmark fails.
"""

import argparse
import sys
from dataclasses import asdict, replace
from itertools import chain

from rich.table import Table

from benchmarks.report import at_least, baseline, finish, parser
from benchmarks.swarms import (
    Setting,
    Speed,
    hivemind_alone,
    hivemind_together,
    prepare,
    shoal_alone,
    shoal_together,
)
from peer.chaos.links import Link, open_links
from peer.train.partition import COMMON, Strategy

LINK = Link(up_mbit=100, down_mbit=100, delay_ms=50)
COLUMNS = (
    "together, tokens/s",
    "alone",
    "ratio",
    "of the pace",
    "step, ms",
    "its CPU, ms",
    "daemon's CPU a round, s",
    "CPU of others, %",
)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    options.add_argument("--unpaced", action="store_true", help="measure unpaced steps too")
    args = options.parse_args()
    with prepare(is_quick=args.quick) as setting:
        speeds = {"shoal": _shoal(setting)}
        missing = ["the baseline, left out by --quick"] if args.quick else []
        if not args.quick and (theirs := baseline(lambda: _hivemind(setting), "utilization", missing)):
            speeds["hivemind"] = theirs
        if args.unpaced:
            speeds["shoal, unpaced"] = _shoal(replace(setting, period_s=0.0))
    together, _ = speeds["shoal"]
    ratios = {name: together.tokens_per_s / alone.tokens_per_s for name, (together, alone) in speeds.items()}
    ended = list(chain(*together.rounds.values()))
    sealed = sum("sealed" in words for words in ended) / len(ended)
    agree = together.digests_agree
    what = "tokens/s of a swarm over the same peers alone"
    bars = [
        at_least("utilization", what, ratios["shoal"], 0.98, ratios.get("hivemind")),
        at_least("utilization_sealed", f"share of {len(ended)} rounds (of all peers) that were sealed", sealed, 0.9),
        at_least("utilization_digests", "share of the versions that have one digest at all peers", agree, 1.0),
    ]
    figures = {
        "seeds": [setting.plan.seed],
        "parameters": Strategy("replicas", 1).layout(COMMON, setting.plan.model).size,
        "round_s": setting.round_s,
        "period_s": setting.period_s,
        "pace_tokens_per_s": setting.plan.inner.batch_tokens / setting.period_s * setting.peers,
        "ratios": ratios,
        "speeds": {name: {"together": asdict(t), "alone": asdict(a)} for name, (t, a) in speeds.items()},
    }
    return finish(args, bars, figures, missing, _table(setting, speeds))


def _shoal(setting: Setting) -> tuple[Speed, Speed]:
    with open_links([LINK] * setting.peers) as links:
        spots = [(place, setting.period_s) for place in links.peers]
        together = shoal_together(setting, spots, settled=f"sealed {setting.peers} of {setting.peers}")
    return together, shoal_alone(setting, [(None, setting.period_s)] * setting.peers)


def _hivemind(setting: Setting) -> tuple[Speed, Speed]:
    with open_links([LINK] * setting.peers) as links:
        together = hivemind_together(setting, [(place, setting.period_s) for place in links.peers])
    return together, hivemind_alone(setting, [(None, setting.period_s)] * setting.peers)


def _table(setting: Setting, speeds: dict[str, tuple[Speed, Speed]]) -> Table:
    title = f"{setting.peers} peers, steps of {setting.period_s:.2f} s, rounds of {setting.round_s:g} s"
    table = Table("", title=title)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, (together, alone) in speeds.items():
        pace = setting.plan.inner.batch_tokens * setting.peers / setting.period_s
        beside = sum(together.cpu_s[kind] for kind in ("main", "threads", "p2pd"))
        table.add_row(
            name,
            f"{together.tokens_per_s:.1f}",
            f"{alone.tokens_per_s:.1f}",
            f"{together.tokens_per_s / alone.tokens_per_s:.4f}",
            "-" if "unpaced" in name else f"{together.tokens_per_s / pace:.4f}",
            f"{together.step_ms:.0f}",
            f"{together.step_cpu_ms:.0f}",
            "-" if name == "hivemind" else f"{beside * setting.round_s / together.seconds:.2f}",
            " ".join(f"{100 * each.other_cpu_s / each.seconds:.0f}" for each in (together, alone)),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
