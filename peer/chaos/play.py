"""Plays a schedule of faults on a swarm of real daemons, and says which invariants held.

    founder, joiners → all seal together → each fault at its tick → all agree again → all leave → what is left

Where the machine permits no namespaces, disks or clocks, the faults that need them are left out, and that is said.
"""

import asyncio
import contextlib
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import ShoalError
from configs.files import read_model
from configs.run import RunSpec
from peer.chaos import faults
from peer.chaos.daemons import END_S, Daemon, RoundLine
from peer.chaos.faults import Stage
from peer.chaos.invariants import (
    Done,
    Seen,
    Work,
    agree_rounds,
    agreed_at,
    check,
    counts_what_was_trained,
    no_surprise,
    recovery_rounds,
    taken_up,
)
from peer.chaos.links import Link, Links, forbidden, lacking, open_links
from peer.chaos.machine import Disk, build_clock, free_port, left_behind
from peer.chaos.schedule import MOMENTARY, ON_DISKS, ON_LINKS, Fault, Schedule

CONFIG = Path(__file__).with_name("micro.toml")
DISK_MIB = 64
SETTLED_ROUNDS = 3  # of all, one after the other, before the first fault
CALM_ROUNDS = 2  # after all agree again
ORPHAN_ROUNDS = 60  # until a block that nobody holds has had its turn at one of the others
SETTLE_S = 600.0  # until a swarm without faults seals rounds of all
LEFT_S = 20.0  # for what a killed daemon has started to end by itself
LOOK_S = 0.1  # between two looks at what the daemons have said
PORT = 4001
LOGS = "SHOAL_CHAOS_LOGS"  # an environment variable: where to keep the logs of plays that broke something
EXPERTS = {"SHOAL_RUN__STRATEGY__KIND": "experts", "SHOAL_RUN__STRATEGY__COMMON_TOKENS": "20000"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Swarm:
    """What the daemons of a play are told."""

    config: Path = CONFIG
    data: Path | None = None  # a prepared corpus; None: a small one is made
    program: tuple[str, ...] = (sys.executable, "-m", "peer")  # that is the command `shoal`
    environment: Mapping[str, str] = field(default_factory=dict)  # of all, beside this process's own


@dataclass
class Played:
    """What came of a schedule."""

    schedule: Schedule
    broken: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # faults that this machine does not permit
    refusals: list[str] = field(default_factory=list)
    recovery_rounds: float = 0.0
    recovery_s: float = 0.0
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether every invariant did."""
        return not self.broken


def permitted(schedule: Schedule) -> tuple[Schedule, list[str]]:
    """Return what of a schedule can be played on this machine, and why the rest cannot."""
    skipped, missing = [], set[str]()
    if (schedule.needs_links() or schedule.on_disks()) and (why := forbidden() or lacking()):
        missing = ON_LINKS | ON_DISKS
        skipped = [f"{fault.kind}: {why}" for fault in schedule.faults if fault.kind in missing]
    if any(fault.kind.endswith("clock") for fault in schedule.faults) and shutil.which("cc") is None:
        missing |= {"clock", "wrong_clock"}
        skipped += [f"{f.kind}: there is no C compiler" for f in schedule.faults if f.kind.endswith("clock")]
    return schedule.without(missing), skipped


async def play(schedule: Schedule, swarm: Swarm = Swarm(), say: Say = lambda line: None) -> Played:
    """Play a schedule on a swarm of its own. Raises ShoalError where that does not even begin; nothing is left."""
    return (await play_all([schedule], swarm, say))[0]


async def play_all(schedules: Sequence[Schedule], swarm: Swarm = Swarm(), say: Say = lambda line: None) -> list[Played]:
    """Play schedules, for as many peers each, one after the other on one swarm; return what came of those played.

    The first that breaks something is the last that is played. What shows only in the end is held against all of them.
    """
    allowed = [permitted(schedule) for schedule in schedules]
    played: list[Played] = []
    with tempfile.TemporaryDirectory(prefix="shoal-chaos-") as name:
        async with open_swarm([each for each, _ in allowed], swarm, Path(name)) as stage:
            say(f"{len(stage.daemons)} peers seal rounds together")
            for asked, (schedule, skipped) in zip(schedules, allowed, strict=True):
                played.append(await _act(schedule, stage, say))
                played[-1].schedule, played[-1].skipped = asked, skipped
                if not played[-1].holds:
                    break
            before = len(stage.broken)
            await leave(stage)
            in_the_end = stage.broken[before:] + await _left(Path(name), stage)
            if stage.block == "model":
                in_the_end += await asyncio.to_thread(_miscounted, stage)
            for each in played:
                each.broken += in_the_end
        _keep_logs(Path(name), played)
    return played


@asynccontextmanager
async def open_swarm(schedules: Sequence[Schedule], swarm: Swarm, folder: Path) -> AsyncIterator[Stage]:
    """Hold a swarm that seals rounds of all, and has what these schedules need; it is killed in the end.

    Raises ShoalError if it does not come to that.
    """
    with ExitStack() as stack:
        count = schedules[0].peers + 1  # and one for visitors
        needs_links = any(each.needs_links() for each in schedules)
        links = stack.enter_context(open_links([Link()] * count, schedules[0].seed)) if needs_links else None
        async with _open_stage(schedules, swarm, folder, links) as stage, _watched(stage):
            await settle(stage)
            yield stage


def _keep_logs(folder: Path, played: Sequence[Played]) -> None:
    """Copy the daemons' logs to where the environment says, if something was broken."""
    if (logs := os.environ.get(LOGS)) and not all(each.holds for each in played):
        into = Path(logs) / played[-1].schedule.name.replace(" ", "-")
        into.mkdir(parents=True, exist_ok=True)
        for log in folder.glob("*.log"):
            shutil.copy(log, into)


@asynccontextmanager
async def _open_stage(
    schedules: Sequence[Schedule], swarm: Swarm, folder: Path, links: Links | None
) -> AsyncIterator[Stage]:
    first = schedules[0]
    data = swarm.data or await asyncio.to_thread(make_corpus, folder / "corpus", first.strategy)
    async with _open_daemons(schedules, swarm, folder, links) as (daemons, visitor):
        founding = ["start", "--config", str(swarm.config), "--data", str(data)]
        block = "model" if first.strategy == "replicas" else "trunk"
        stage = Stage(daemons, [founding], links, block, random.Random(first.seed), visitor)
        stage.sides = [0] * (len(daemons) + 1)
        founder = daemons[0]
        founder.environment |= {"SHOAL_RUN__ROUNDS__TICK_SECONDS": str(first.tick_seconds)}
        if first.strategy == "experts":
            founder.environment |= EXPERTS
        await stage.start(0)
        if not founder.is_ready:
            raise ShoalError(f"the swarm does not begin: {'; '.join(stage.broken) or founder.log[-500:]}")
        stage.commands += [["join", founder.address] for _ in daemons[1:]]
        spec = read_model(founder.files / "run.json", RunSpec)
        assert spec is not None, "it has said that it is ready"
        stage.genesis, stage.tick_s = spec.genesis, spec.rounds.tick_seconds
        yield stage


@asynccontextmanager
async def _open_daemons(
    schedules: Sequence[Schedule], swarm: Swarm, folder: Path, links: Links | None
) -> AsyncIterator[tuple[list[Daemon], Daemon]]:
    faults = [fault for schedule in schedules for fault in schedule.faults]
    needs_clock = {peer for fault in faults if fault.kind.endswith("clock") for peer in fault.peers}
    on_disks = {peer for schedule in schedules for peer in schedule.on_disks()}
    library = build_clock(folder) if needs_clock else None
    daemons: list[Daemon] = []
    async with contextlib.AsyncExitStack() as stack:
        for index in range(schedules[0].peers + 1):
            name = f"peer{index}" if index < schedules[0].peers else "visitor"
            place = links.peers[index] if links else None
            disk = Disk(folder / name, DISK_MIB) if index in on_disks else None
            daemon = Daemon(name, folder, place, PORT if place else free_port(), disk)
            stack.push_async_callback(daemon.close)
            daemon.program = list(swarm.program)
            daemon.environment |= swarm.environment
            if index in needs_clock and library is not None:
                daemon.own_clock(library)
            daemons.append(daemon)
        yield daemons[:-1], daemons[-1]


@asynccontextmanager
async def _watched(stage: Stage) -> AsyncIterator[None]:
    """Ask the daemons how they are, twice a tick, in the meantime."""
    async with asyncio.TaskGroup() as tasks:
        watched = [*stage.daemons, *([stage.visitor] if stage.visitor else [])]
        watching = [tasks.create_task(_watch(daemon, stage.tick_s)) for daemon in watched]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()


async def _watch(daemon: Daemon, tick_s: float) -> None:
    while True:
        if daemon.lives:
            await daemon.sample()
        await asyncio.sleep(tick_s / 2)


async def settle(stage: Stage) -> None:
    """Start whoever does not run, and wait until all seal rounds together. Raises ShoalError if they never do."""
    await asyncio.gather(*(stage.start(index) for index in range(len(stage.daemons))))
    if stage.broken:
        raise ShoalError(f"the swarm does not begin: {'; '.join(stage.broken)}")
    await _until(lambda: _have_settled(seen_of(stage, [], 0.0)), SETTLE_S, "all to seal rounds together", stage)


async def _act(schedule: Schedule, stage: Stage, say: Say) -> Played:
    """Do the faults of a schedule, wait until all agree again, and say what was broken."""
    since = time.time()
    clear, stage.refusals[:] = len(stage.broken), []
    begin = stage.genesis + (int((since - stage.genesis) / stage.tick_s) + 1) * stage.tick_s
    done: list[Done] = []
    async with asyncio.TaskGroup() as doing:
        for fault in schedule.faults:
            doing.create_task(_do(stage, fault, begin, done, say))
    stage.done += done
    seen = seen_of(stage, done, since)
    if schedule.strategy == "experts":
        return await _see_orphan(schedule, stage, seen, clear, say)
    with contextlib.suppress(TimeoutError):
        most_s = agree_rounds(seen) * seen.tick_s + 10.0
        await _until(lambda: agreed_at(seen) is not None, most_s)
        await asyncio.sleep(CALM_ROUNDS * seen.tick_s)
    line, ended = agreed_at(seen), max((each.ended for each in done), default=since)
    say("they do not agree" if line is None else f"all agree, {recovery_rounds(seen):.0f} rounds after the last fault")
    return Played(
        schedule,
        broken=stage.broken[clear:] + check(seen),
        refusals=list(stage.refusals),
        recovery_rounds=recovery_rounds(seen),
        recovery_s=line.at - ended if line else math.inf,
        seconds=time.time() - since,
    )


async def _see_orphan(schedule: Schedule, stage: Stage, seen: Seen, clear: int, say: Say) -> Played:
    """Wait until a block without holders is taken up; of swarms with experts that is all that is checked."""
    orphan, began = stage.orphan, time.time()
    assert orphan is not None

    def lines() -> list[RoundLine]:
        return [line for peer in seen.present for life in seen.lives[peer] for line in life.rounds]

    with contextlib.suppress(TimeoutError):
        await _until(lambda: taken_up(orphan, lines()), ORPHAN_ROUNDS * seen.tick_s)
    broken = no_surprise(seen)
    if not taken_up(orphan, lines()):
        broken.append(f"nobody took up {orphan.block}, version {orphan.version}")
    say(f"{orphan.block}: {'nobody took it up' if broken else 'taken up'}")
    took_s = time.time() - began
    return Played(schedule, stage.broken[clear:] + broken, [], [], took_s / seen.tick_s, took_s, took_s)


def seen_of(stage: Stage, done: Sequence[Done], since: float) -> Seen:
    """Return what was seen of a swarm since a moment, in which these faults were done to it."""
    lives = {index: daemon.lives for index, daemon in enumerate(stage.daemons)}
    return Seen(stage.genesis, stage.tick_s, stage.block, lives, done, since, frozenset(stage.gone))


async def _do(stage: Stage, fault: Fault, begin: float, done: list[Done], say: Say) -> None:
    await asyncio.sleep(max(0.0, begin + fault.at * stage.tick_s - time.time()))
    async with contextlib.AsyncExitStack() as held:
        for peer in sorted(fault.victims()) if fault.kind not in ON_LINKS else ():
            # A restart may take longer than was planned; what comes next waits for it.
            await held.enter_async_context(stage.busy.setdefault(peer, asyncio.Lock()))
        await _do_now(stage, fault, done, say)


async def _do_now(stage: Stage, fault: Fault, done: list[Done], say: Say) -> None:
    began = time.time()
    who = f" of {', '.join(stage.daemons[peer].name for peer in sorted(fault.victims()))}" if fault.victims() else ""
    say(f"tick {(began - stage.genesis) / stage.tick_s:.1f}: {fault.kind}{who}")
    await faults.do(stage, fault)
    if not fault.is_final and fault.kind not in MOMENTARY:
        since = time.time() if fault.kind == "twin" else began  # a start is no part of the time side by side
        await asyncio.sleep(max(0.0, fault.ticks * stage.tick_s - (time.time() - since)))
        await faults.undo(stage, fault)
        say(f"tick {(time.time() - stage.genesis) / stage.tick_s:.1f}: the end of {fault.kind}{who}")
    done.append(Done(fault, began, time.time()))


def _have_settled(seen: Seen) -> bool:
    """Say whether all have sealed rounds of all, one after the other."""
    words = f"sealed {len(seen.lives)} of {len(seen.lives)}"
    last = [seen.rounds(peer)[-SETTLED_ROUNDS:] for peer in seen.lives]
    return all(len(lines) == SETTLED_ROUNDS and all(words in line.outcome for line in lines) for lines in last)


async def _until(is_so: Callable[[], bool], most_s: float, what: str = "", stage: Stage | None = None) -> None:
    """Wait until `is_so`. Raises TimeoutError, or ShoalError with `what` and the logs' ends if there is a stage."""
    deadline = time.monotonic() + most_s
    while not is_so():
        if time.monotonic() > deadline:
            if stage is None:
                raise TimeoutError
            logs = "\n".join(f"{each.name}: {each.log[-600:]}" for each in stage.daemons)
            raise ShoalError(f"waited {most_s:g} s in vain for {what}\n{logs}")
        await asyncio.sleep(LOOK_S)


async def leave(stage: Stage) -> None:
    """Let all leave, one after the other, as people go."""
    everybody = [*stage.daemons, *([stage.visitor] if stage.visitor else [])]
    for daemon in reversed(everybody):
        if not daemon.is_running:
            continue
        daemon.signal(signal.SIGTERM)
        if not await daemon.ended():
            stage.broken.append(f"{daemon.name} did not leave within {END_S:g} s")
        elif daemon.life.code != 0:
            stage.broken.append(f"{daemon.name} left with {daemon.life.code}: {daemon.life.complaint}")


async def _left(folder: Path, stage: Stage) -> list[str]:
    """Return what is left of the daemons: processes, sockets, shared memory, temporary files."""
    deadline = time.monotonic() + LEFT_S
    while (pids := left_behind(folder)) and time.monotonic() < deadline:  # noqa: ASYNC110  # of other processes
        await asyncio.sleep(LOOK_S)
    faults.end_orphans(pids)
    everybody = [*stage.daemons, *([stage.visitor] if stage.visitor else [])]
    left = [f"process {pid}" for pid in pids] + [path for each in everybody for path in each.left()]
    return [f"{what} was left behind" for what in left]


def _miscounted(stage: Stage) -> list[str]:
    """Return whose tokens in the block's newest state are not those that it has trained."""
    from peer.train.checkpoint import read_facts  # with torch

    states = [read_facts(d.files / "blocks" / f"{stage.block}.safetensors") for d in stage.daemons]
    ages = [json.loads(state.get("ages", "{}")) for state in states]
    wrong = []
    for index, daemon in enumerate(stage.daemons):
        own = [done.fault for done in stage.done if index in done.fault.peers]
        work = Work(
            index,
            daemon.lives,
            stage.saved[index],
            counted=max(int(each.get(daemon.peer_id, 0)) for each in ages),
            ends=sum(fault.kind.endswith("_worker") for fault in own),
            is_damaged=any(fault.kind in ("damage", "twin") for fault in own),  # nor is the work of who is left out
        )
        wrong += counts_what_was_trained(work, stage.tick_s)
    return wrong


def make_corpus(folder: Path, strategy: str) -> Path:
    """Prepare a small corpus, of two domains for experts, that the micro model learns in seconds."""
    from peer.prepare.engine import prepare_texts
    from peer.prepare.plan import Plan

    texts = {"songs": [f"{number} bottles of beer on the wall, {number} of beer. " * 20 for number in range(200)]}
    rhymes = {"rhymes": [f"{number} ducks went over the hills and far away. " * 20 for number in range(200)]}
    prepare_texts(texts if strategy == "replicas" else texts | rhymes, folder, Plan(vocab_size=512, context_length=64))
    return folder
