"""What the death of one of four costs the others: the delay of their next anchor, over the cut's length.

One daemon is killed (SIGKILL of all its processes) as a round begins, and the time at which the others have their next
anchor is compared with what is usual before. Beside it Hivemind's averager, in its step, with the time-out for a silent
member that `hivemind.Optimizer` gives it: its matchmaking time.
"""

import asyncio
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.group import Load, run_averagers_with_a_death
from benchmarks.report import Bar, at_most, baseline
from configs.errors import ShoalError
from peer.chaos.faults import Stage
from peer.chaos.links import Link, open_links
from peer.chaos.play import Swarm, open_swarm, seen_of, settle
from peer.chaos.schedule import Schedule

PEERS, VICTIM = 4, 3
TICK_S = 4.0
CUT_SHARE = 0.4  # of the micro preset's rounds
USUAL_ROUNDS = 5  # before a kill, whose median is what is usual
MOMENTS = (0.0, 0.02, 0.1, 0.2, 0.3)  # of a round, at which one is killed
QUICK_MOMENTS = (0.02,)
AVERAGED = 20_000  # parameters, as many as the daemons' model has
STEPS, STEP_S = 6, 20.0  # of the averager; it is killed in the one in the middle


def measure(swarm: Swarm, facts: dict[str, Any], not_measured: list[str], *, is_quick: bool) -> Bar:
    """Kill again and again; return the bar, and put each delay into `facts`."""
    delays = asyncio.run(_kill(swarm, QUICK_MOMENTS if is_quick else MOMENTS))
    facts["kill"] = delays
    theirs = None if is_quick else baseline(_averagers, "kill_delay", not_measured)
    facts["kill_averager_s"] = theirs
    worst = max(delay for each in delays for delay in each["delays_s"])
    what = "delay of the others' next anchor after kill -9, over the cut's length (worst of all)"
    cut_s = CUT_SHARE * TICK_S
    return at_most("kill_delay", what, worst / cut_s, 1.0, None if theirs is None else theirs / cut_s)


async def _kill(swarm: Swarm, moments: tuple[float, ...]) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory(prefix="shoal-kill-") as name:
        schedule = Schedule(peers=PEERS, tick_seconds=TICK_S, faults=())
        async with open_swarm([schedule], swarm, Path(name)) as stage:
            for moment in moments:
                found.append(await _kill_at(stage, moment))
                print(found[-1], flush=True)
                await settle(stage)
    return found


async def _kill_at(stage: Stage, moment: float) -> dict[str, Any]:
    """Kill one at a moment of a round; return when the others had their anchors."""
    begun = time.time()
    await asyncio.sleep(USUAL_ROUNDS * stage.tick_s)
    others = [index for index in range(PEERS) if index != VICTIM]
    usual = {n: statistics.median(_took(stage, n, begun)) for n in others}
    tick = int((time.time() - stage.genesis) / stage.tick_s) + 1
    began = stage.genesis + tick * stage.tick_s
    await asyncio.sleep(began + moment * stage.tick_s - time.time())
    victim, killed = stage.daemons[VICTIM], time.time()
    victim.signal(signal.SIGKILL, victim.tree())
    await victim.ended()
    # The next anchor is that of this round, unless it is there already by then.
    due = {n: tick if began + usual[n] > killed else tick + 1 for n in others}
    delays: dict[int, float] = {}
    deadline = time.monotonic() + 20 * stage.tick_s
    while len(delays) < len(others) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        for n in others:
            steps = [line for line in seen_of(stage, [], begun).rounds(n) if line.is_step and line.round >= due[n]]
            if steps:
                delays[n] = steps[0].at - (stage.genesis + due[n] * stage.tick_s + usual[n])
    if len(delays) < len(others):
        raise ShoalError(f"after the death of one, not all of the others had an anchor in {20 * stage.tick_s:g} s")
    return {"moment": moment, "usual_s": usual, "delays_s": list(delays.values())}


def _took(stage: Stage, peer: int, since: float) -> list[float]:
    """Return the seconds from each round's beginning to the anchor that a peer had of it, since a moment."""
    steps = [line for line in seen_of(stage, [], since).rounds(peer) if line.is_step]
    return [line.at - (stage.genesis + line.round * stage.tick_s) for line in steps]


def _averagers() -> float:
    """Return by how many seconds the death of one of four delays the others' next average, at the most."""
    with open_links([Link()] * PEERS) as links, tempfile.TemporaryDirectory(prefix="shoal-kill-") as folder:
        load = Load(AVERAGED, STEPS, STEP_S)
        accounts = run_averagers_with_a_death(links, load, Path(folder), STEPS // 2)
    delays: list[float] = []
    for account in accounts:
        whole = [step["seconds"] for step in account.steps if step["step"] < STEPS // 2 and step["group"] > 1]
        usual_s = statistics.median(whole) if whole else 0.0
        waited_s = 0.0
        for step in account.steps:
            if step["step"] >= STEPS // 2:
                if step["group"] > 1:
                    delays.append(waited_s + step["seconds"] - usual_s)
                    break
                waited_s += STEP_S  # nothing came of it; the next one begins only then
        else:
            delays.append(waited_s)
    return max(delays)
