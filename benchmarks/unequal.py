"""What slow peers cost the others: the fast ones' tokens a second in the swarm over their own, each alone.

The swarm of `utilization.py`, but one peer takes ten times as long for a step, and another sits behind 5 Mbit/s and
200 ms. Nobody may be kept from training by them; what they themselves contribute, and what becomes of the rounds, is
printed. The baseline is in the same place; its peers alone keep the pace exactly (`utilization.py` measures it), so its
ratio is to the pace.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table

from benchmarks.report import arguments, at_least, baseline, finish
from benchmarks.swarms import Setting, Speed, Spot, hivemind_together, prepare, shoal_alone, shoal_together
from peer.chaos.links import Link, open_links

LINK, SLOW_LINK = Link(up_mbit=100, down_mbit=100, delay_ms=50), Link(up_mbit=5, down_mbit=5, delay_ms=200)
SLOWER = 10  # times, at one peer
QUICK_LINK = Link(up_mbit=20, down_mbit=20, delay_ms=200)  # over 5 Mbit/s a newcomer's download alone takes two minutes
FAST = slice(0, -2)  # the boxes that are not slow; the last but one has slow steps, the last a slow link


def main() -> int:
    args = arguments(__doc__.splitlines()[0])
    with prepare(is_quick=args.quick) as setting:
        count = 4
        periods = [setting.period_s] * (count - 2) + [SLOWER * setting.period_s, setting.period_s]
        slow = QUICK_LINK if args.quick else SLOW_LINK
        with open_links([LINK] * (count - 1) + [slow]) as links:
            spots: list[Spot] = list(zip(links.peers, periods, strict=True))
            together = shoal_together(setting, spots, settled="")
        alone = shoal_alone(setting, [(None, period_s) for period_s in periods])
        swarms = {"shoal": together}
        missing = ["the baseline, and a link of 5 Mbit/s: left out by --quick"] if args.quick else []
        if not args.quick and (theirs := baseline(lambda: _hivemind(setting, periods, slow), "unequal", missing)):
            swarms["hivemind"] = theirs
    ratio = sum(together.each[FAST]) / sum(alone.each[FAST])
    pace = setting.plan.inner.batch_tokens / setting.period_s
    of_pace = sum(swarms["hivemind"].each[FAST]) / (pace * (count - 2)) if "hivemind" in swarms else None
    what = "tokens/s of the fast peers beside two slow ones over their own alone"
    bar = at_least("unequal", what, ratio, 0.98, of_pace)
    figures = {
        "seeds": [setting.plan.seed],
        "round_s": setting.round_s,
        "periods_s": periods,
        "swarms": {name: asdict(speed) for name, speed in swarms.items()},
        "alone": asdict(alone),
    }
    return finish(args, [bar], figures, missing, _table(setting, periods, slow, swarms, alone))


def _hivemind(setting: Setting, periods: Sequence[float], slow: Link) -> Speed:
    with open_links([LINK] * (len(periods) - 1) + [slow]) as links:
        return hivemind_together(setting, list(zip(links.peers, periods, strict=True)))


def _table(setting: Setting, periods: Sequence[float], slow: Link, swarms: dict[str, Speed], alone: Speed) -> Table:
    kinds = [*["fast"] * (len(periods) - 2), f"{SLOWER} times slower", f"behind {slow.up_mbit:g} Mbit/s"]
    title = f"steps of {setting.period_s:.2f} s, rounds of {setting.round_s:g} s"
    table = Table("", "peer", "together, tokens/s", "alone", "of its pace", "rounds", title=title)
    for name, swarm in swarms.items():
        for index, kind in enumerate(kinds):
            pace = setting.plan.inner.batch_tokens / periods[index]
            own = f"{alone.each[index]:.1f}" if name == "shoal" else "-"
            ended = "\n".join(list(swarm.rounds.values())[index]) or "none"
            table.add_row(name, kind, f"{swarm.each[index]:.1f}", own, f"{swarm.each[index] / pace:.4f}", ended)
    return table


if __name__ == "__main__":
    sys.exit(main())
