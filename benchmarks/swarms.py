"""Swarms of paced boxes, of Shoal and of the baseline, and how fast they were: for `utilization.py` and `unequal.py`.

Speed is counted step by step, from what the workers write, over a window of whole rounds once the swarm has settled;
each daemon's own status is compared with it.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.boxes import Box, open_boxes, other_cpu_seconds
from benchmarks.pacing import FACTOR, step_seconds
from benchmarks.patience import HANG_S, Hung
from configs.clock import Clock
from configs.errors import ShoalError
from configs.load import load
from configs.run import RunPlan
from peer.block.timing import due
from peer.chaos.links import Peer
from peer.member.entry import saved_spec
from peer.train.partition import Strategy

CONFIG = Path(__file__).with_name("twenty.toml")
QUICK = {"num_layers = 10": "num_layers = 2", "tick_seconds = 3.5": "tick_seconds = 1.0"}
SETTLED_S = 1800.0  # after which the first round must have ended as it should
LOOK_S = 2.0  # between two looks at the daemons' status: less than a tick

Spot = tuple[Peer | None, float]  # where a box is (None: loopback), and its period in seconds
Event = tuple[int, str]  # a round by its tick, or a version, and the block that it is of


@dataclass(frozen=True)
class Setting:
    """What all that is compared has in common."""

    config: Path
    plan: RunPlan
    data: Path
    peers: int
    rounds: int  # in the window with network
    alone_s: float  # the window without
    period_s: float

    @property
    def round_s(self) -> float:
        return self.plan.rounds.length(0) * self.plan.rounds.tick_seconds


@dataclass
class Speed:
    """What boxes did in a window."""

    seconds: float
    each: list[float]  # tokens a second
    step_ms: float  # median of the steps' work: more than their processor time where they had to wait for a core
    step_cpu_ms: float
    cpu_s: dict[str, float]  # processor seconds of an average box
    other_cpu_s: float  # processor seconds of what is not of this benchmark: more than a few spoil it
    by_status: list[float] = field(default_factory=list)  # tokens a second, as the daemons' status has it
    rounds: dict[str, Any] = field(default_factory=dict)
    digests_agree: float = 0.0  # share of the versions, of those that several know, of which all have the same

    @property
    def tokens_per_s(self) -> float:
        return sum(self.each)


@contextmanager
def prepare(*, is_quick: bool) -> Iterator[Setting]:
    """Make the corpus and measure a step: once, for all that is compared."""
    from peer.prepare.builtin import built_in_corpus

    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        text = CONFIG.read_text()
        for old, new in QUICK.items() if is_quick else ():
            assert old in text
            text = text.replace(old, new)
        config = Path(folder) / CONFIG.name
        config.write_text(text)
        plan = load(str(config)).run
        assert plan is not None
        data = built_in_corpus(Path(folder), plan.model.vocab_size, plan.model.context_length).path
        peers, rounds, alone_s = (2, 2, 8.0) if is_quick else (4, 4, 42.0)
        yield Setting(config, plan, data, peers, rounds, alone_s, FACTOR * step_seconds(plan, peers))


class Watch:
    """What the daemons' own status told, look by look."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self._boxes = boxes
        self.outcomes: dict[str, dict[Event, str]] = {box.name: {} for box in boxes}  # box → round → words
        self.digests: dict[str, dict[Event, str]] = {box.name: {} for box in boxes}  # box → version → digest
        self.tokens: dict[str, dict[int, int]] = {box.name: {} for box in boxes}  # box → tick → trained by then

    def look(self) -> None:
        for box in self._boxes:
            status = box.status()
            own = status.peers[0]
            self.tokens[box.name][status.tick] = own.tokens
            for block in status.blocks:
                if block.outcome:
                    self.outcomes[box.name][block.last_round, block.block] = block.outcome
            for block_name, marks in own.digests.items():
                self.digests[box.name].update({(mark.version, block_name): mark.digest for mark in marks})

    def until(self, when: float) -> None:
        """Look again and again until then (wall clock)."""
        while (left := when - time.time()) > 0:
            time.sleep(min(LOOK_S, left))
            self.look()

    def wait_for_outcome(self, text: str) -> None:
        """Wait for every daemon's newest round to begin with `text`."""
        end = time.monotonic() + SETTLED_S
        while not all(past and past[max(past)].startswith(text) for past in self.outcomes.values()):
            if time.monotonic() > end:
                raise Hung(f"no round ended with '{text}' everywhere in {SETTLED_S:g} s: {self.outcomes}")
            self.until(time.time() + LOOK_S)

    def rounds(self, rounds: Sequence[Event]) -> dict[str, Any]:
        """Return how these rounds ended at each box."""
        return {name: [past.get(r, "never ended") for r in rounds] for name, past in self.outcomes.items()}

    def agreement(self) -> float:
        known = [[d[v] for d in self.digests.values() if v in d] for v in set().union(*self.digests.values())]
        compared = [len(set(digests)) == 1 for digests in known if len(digests) > 1]
        return sum(compared) / max(1, len(compared))


def shoal_together(setting: Setting, spots: Sequence[Spot], *, settled: str) -> Speed:
    """Run daemons as one swarm; the window begins when every newest round begins with `settled`."""
    with _boxes(spots) as boxes:
        boxes[0].found(setting.config, setting.data)
        line = boxes[0].wait_for("^join with: (.+)")
        for box in boxes[1:]:  # one by one: the founder's uplink has to carry the state to each
            box.join(line, setting.data)
            box.wait_for("^(ready)")
            box.status_when(lambda status: status.state == "training", "to train", SETTLED_S)
        return _watch(setting, boxes, settled, setting.rounds * setting.round_s)


def shoal_alone(setting: Setting, spots: Sequence[Spot]) -> Speed:
    """Run as many daemons at the same time, each of which founds a run that nobody joins."""
    with _boxes(spots) as boxes:
        for box in boxes:
            box.found(setting.config, setting.data)
        return _watch(setting, boxes, "alone", setting.alone_s)


def hivemind_together(setting: Setting, spots: Sequence[Spot]) -> Speed:
    """Run the baseline's peers as one swarm; the window is of as many epochs as Shoal's of rounds."""
    speed_sum = sum(1 / period_s for _, period_s in spots)  # steps a second
    with _boxes(spots) as boxes:
        for seed, box in enumerate(boxes):
            peers = ["--peers", boxes[0].wait_for('"address": "(.+?)"')] if seed else []
            box.start(_hivemind(setting, box, seed, speed_sum, peers))
        for box in boxes:
            box.wait_for('("averaged")', SETTLED_S)
        first = max((int(epoch) for epoch in boxes[0].all_said('"epoch": ([0-9]+)')), default=0) + 1
        since = float(boxes[0].wait_for(f'"time": ([0-9.]+), .*"epoch": {first},', SETTLED_S))
        before = _used(boxes)
        end = rf'"time": ([0-9.]+), .*"epoch": {first + setting.rounds},'
        until = float(boxes[0].wait_for(end, HANG_S + 5 * setting.rounds * setting.round_s))
        speed = _speed(setting, boxes, since, until, before)
        for box in boxes:
            outcomes = box.all_said('"time": ([0-9.]+), .*"outcome": "(.+?)"')
            speed.rounds[box.name] = [words for when, words in outcomes if since < float(when) <= until]
        return speed


def hivemind_alone(setting: Setting, spots: Sequence[Spot]) -> Speed:
    """Run as many of the baseline's peers at the same time, each of which nobody joins."""
    with _boxes(spots) as boxes:
        for seed, box in enumerate(boxes):
            box.start(_hivemind(setting, box, seed, 1 / box.period_s, []))
        for box in boxes:
            box.wait_for('("epoch")', SETTLED_S)
        since = time.time()
        before = _used(boxes)
        time.sleep(setting.alone_s)
        return _speed(setting, boxes, since, since + setting.alone_s, before)


def _hivemind(setting: Setting, box: Box, seed: int, steps_per_s: float, peers: list[str]) -> list[str]:
    """Return the command of a peer of the baseline, in a swarm that takes so many steps a second."""
    sequences = setting.plan.inner.batch_tokens // setting.plan.model.context_length
    command = [sys.executable, "-m", "benchmarks.hivemind_optimizer", "--config", str(setting.config)]
    command += ["--data", str(setting.data), "--seed", str(seed), "--host", box.host]
    return [*command, "--target-batch", str(round(setting.round_s * steps_per_s) * sequences), *peers]


@contextmanager
def _boxes(spots: Sequence[Spot]) -> Iterator[list[Box]]:
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder, open_boxes() as boxes:
        boxes += [Box(Path(folder), f"peer{n}", place, period_s) for n, (place, period_s) in enumerate(spots)]
        yield boxes


def _watch(setting: Setting, boxes: list[Box], settled: str, window_s: float) -> Speed:
    """Let daemons settle, and watch them for a window that begins with a round."""
    for box in boxes:
        box.wait_for("^(ready)")
    watch = Watch(boxes)
    watch.wait_for_outcome(settled)
    spec = saved_spec(boxes[0].state_dir)
    assert spec is not None
    clock, length = Clock(spec.genesis, spec.rounds.tick_seconds), spec.rounds.length(0)
    first = (clock.tick() // length + 1) * length
    last = first + round(window_s / spec.rounds.tick_seconds)
    since, until = clock.time_of(first), clock.time_of(last)
    watch.until(since)
    before = _used(boxes)
    watch.until(until)
    speed = _speed(setting, boxes, since, until, before)
    watch.until(time.time() + 0.8 * spec.rounds.tick_seconds)  # for the status at the last tick
    ticks = [(by_tick.get(first), by_tick.get(last)) for by_tick in watch.tokens.values()]
    speed.by_status = [(end - begin) / (until - since) for begin, end in ticks if begin is not None and end is not None]
    ages = dict.fromkeys(Strategy.of(spec.strategy, 1).blocks(boxes[0].status().peers[0].sub_model), 0)
    speed.rounds = watch.rounds([(tick, block) for tick in range(first, last) for block in due(spec, ages, tick)])
    speed.digests_agree = watch.agreement()
    return speed


def _speed(setting: Setting, boxes: Sequence[Box], since: float, until: float, before: list[dict[str, float]]) -> Speed:
    used = [{kind: now[kind] - then[kind] for kind in then} for now, then in zip(_used(boxes), before, strict=True)]
    time.sleep(max(box.period_s for box in boxes) + 1.0)  # for the steps that lie across the end
    steps = [row for box in boxes for row in box.steps(since, until)]
    if idle := [box.name for box in boxes if not len(box.steps())]:
        raise ShoalError(f"{', '.join(idle)} took no step")
    if not steps:
        raise ShoalError(f"no step ended in a window of {until - since:g} s")
    return Speed(
        seconds=until - since,
        each=[setting.plan.inner.batch_tokens * box.steps_per_s(since, until) for box in boxes],
        step_ms=1e3 * statistics.median(row[1] for row in steps),
        step_cpu_ms=1e3 * statistics.median(row[2] for row in steps),
        cpu_s={kind: sum(of_box[kind] for of_box in used[:-1]) / len(boxes) for kind in used[0]},
        other_cpu_s=used[-1]["others"],
    )


def _used(boxes: Sequence[Box]) -> list[dict[str, float]]:
    """Return the processor seconds so far of each box, by kind, and of everything else on this machine."""
    return [*(box.cpu_seconds() for box in boxes), {"others": other_cpu_seconds()}]
