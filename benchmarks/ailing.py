"""What may ail a swarm, as data: what goes wrong, what must be said of it, and the cure that is said, carried out.

Each is a function of a ward: up to its `yield` it does to real daemons what goes wrong, and after it what the cure of
the finding tells the user to do, and nothing else. What is wrong with a run from its founding on has a second setting
instead, founded as the cure says. `diagnosis.py` runs them.
"""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from benchmarks.ward import ENOUGH, PROGRAM, Setting, Ward, at_work
from configs.errors import ShoalError
from peer.chaos.daemons import Daemon
from peer.chaos.links import Link
from peer.chaos.machine import free_port, tree

Stage = Callable[[Ward], AbstractAsyncContextManager[None]]

BUSY = "while True: pass"
PROGRAMS = 6  # others that want the patient's core
CORE = "1"  # that one
NARROW = Link(up_mbit=0.05)  # a way up that somebody else has filled
LEFT_MIB = 100  # on the small disk
DISK_MIB = 512
HUNT_S = 5.0  # between two of the worker's deaths
STEP_S = 3.0  # of a machine that is slow for its run


@dataclass(frozen=True)
class Ailment:
    """One of them. `code`, `cause` and `cure` (patterns) are what the patient's finding must be."""

    name: str
    code: str
    cause: str
    cure: str
    patient: int
    setting: Setting
    stage: Stage | None = None  # None: the run is founded so
    cured: Setting | None = None  # as the cure says to found it


# What happens to a swarm that was well

HOUSE = Setting(on_links=True, disks={1: DISK_MIB}, clocks=frozenset({2}))


@asynccontextmanager
async def slow_link(ward: Ward) -> AsyncIterator[None]:
    """Somebody else's upload fills the line; the cure: free it."""
    assert ward.links is not None
    ward.links.change(2, NARROW)
    yield
    ward.links.change(2, Link())


@asynccontextmanager
async def busy_processor(ward: Ward) -> AsyncIterator[None]:
    """A machine of one core, on which other programs run; the cure: end them."""
    await _pin(ward.daemons[2], CORE)
    async with at_work(["taskset", "-c", CORE, sys.executable, "-c", BUSY], PROGRAMS):
        yield
    await _pin(ward.daemons[2], f"0-{(os.cpu_count() or 1) - 1}")


@asynccontextmanager
async def clock_drifts(ward: Ward) -> AsyncIterator[None]:
    """The clock goes six seconds ahead; the cure: set it."""
    ward.daemons[2].set_clock(6.0)
    yield
    ward.daemons[2].set_clock(0.0)


@asynccontextmanager
async def clock_set(ward: Ward) -> AsyncIterator[None]:
    """Somebody sets the clock by five minutes; the cure: set it right."""
    ward.daemons[2].set_clock(300.0)
    yield
    ward.daemons[2].set_clock(0.0)


@asynccontextmanager
async def disk_nearly_full(ward: Ward) -> AsyncIterator[None]:
    """Something else takes the disk; the cure: free some."""
    disk = ward.daemons[1].disk
    assert disk is not None
    found, filler = os.statvfs(disk.inside), disk.inside / "filler"
    with filler.open("wb") as file:
        taken_bytes = found.f_bavail * found.f_frsize - (LEFT_MIB << 20)
        await asyncio.to_thread(os.posix_fallocate, file.fileno(), 0, taken_bytes)
    yield
    filler.unlink()


@asynccontextmanager
async def worker_dies(ward: Ward) -> AsyncIterator[None]:
    """A program that ends what takes much of the processor; the cure: stop it, leave, and start again."""
    daemon = ward.daemons[2]

    async def hunt() -> None:
        while True:
            await asyncio.sleep(HUNT_S)
            daemon.signal(signal.SIGKILL, daemon.workers())

    hunter = asyncio.create_task(hunt())
    try:
        yield
    finally:
        hunter.cancel()
    await ward.leave(2)
    await ward.start(2)


@asynccontextmanager
async def worker_hangs(ward: Ward) -> AsyncIterator[None]:
    """The process that trains stands still; the cure: leave, and start again."""
    ward.daemons[2].signal(signal.SIGSTOP, ward.daemons[2].workers())
    yield
    await ward.leave(2)
    await ward.start(2)


@asynccontextmanager
async def cut_off(ward: Ward) -> AsyncIterator[None]:
    """The cable is pulled; the cure: see what the doctor says, and put it back."""
    assert ward.links is not None
    ward.links.part([0, 0, 1])
    yield
    said = await ward.shoal(2, "doctor", ward.daemons[0].address)
    if not re.search(r"(?i)no answer|not reach|unreachable|cannot be", said):
        raise ShoalError(f"the doctor does not see that nobody can be reached: {said}")
    ward.links.part([0, 0, 0])


@asynccontextmanager
async def twin(ward: Ward) -> AsyncIterator[None]:
    """A copy of the state directory is started beside it; the cure: stop one of them."""
    daemon = ward.daemons[2]
    other = Daemon("twin", ward.folder, None, free_port())
    try:
        shutil.copytree(daemon.files, other.state_dir, ignore=shutil.ignore_patterns("*.lock", "daemon.json"))
        other.program, other.environment = list(PROGRAM), daemon.environment | {"BENCH_STEP_LOG": os.devnull}
        await other.start(["join", ward.daemons[0].address])
        await other.begun(120.0)
        yield
        other.signal(signal.SIGTERM)
        await other.ended()
    finally:
        await other.close()


# What is wrong from the beginning

PINNED = Setting(
    peers=2,
    run={"SHOAL_RUN__STRATEGY__KIND": "experts", "SHOAL_RUN__STRATEGY__COMMON_TOKENS": "20000"},
    tick_s=1.0,
    text={"python": ENOUGH // 4, "docs": ENOUGH // 4},
    options={0: ("--sub-model", "expert.0"), 1: ("--sub-model", "expert.1")},
)
# Verses are learnt within seconds; then the rate, which still rises, makes an end of it.
STEEP = {"SHOAL_RUN__INNER__OPTIMIZER": "muon", "SHOAL_RUN__INNER__WARMUP_TOKENS": "200000"}
EXPERTS = {"SHOAL_RUN__STRATEGY__KIND": "experts"}


@asynccontextmanager
async def dead_expert(ward: Ward) -> AsyncIterator[None]:
    """Who trains a sub-model is gone for good; the cure: start one more peer with it."""
    await ward.kill(1)
    gone = ward.daemons.pop(1)
    yield
    fresh = Daemon("peer2", ward.folder, None, free_port())
    fresh.program, fresh.environment = gone.program, gone.environment
    ward.daemons.append(fresh)
    await ward.start(1)
    await gone.close()


CLOSED = Setting(peers=2, is_closed=True)


@asynccontextmanager
async def invitation_ends(ward: Ward) -> AsyncIterator[None]:
    """An invitation of one day; the cure: ask for another, leave, and start again with it."""
    await ward.leave(1)
    await ward.start(1, "--invitation", await ward.invitation(1, days=1))
    yield
    fresh = await ward.invitation(1)
    await ward.leave(1)
    await ward.start(1, "--invitation", fresh)


HEALTHY = Setting(peers=2)
AILMENTS = [
    Ailment("disk nearly full", "disk", r"100 MiB are free", r"free some", 1, HOUSE, disk_nearly_full),
    Ailment("clock set by 300 s", "clock", r"was set forward by 300 s", r"set it right", 2, HOUSE, clock_set),
    Ailment(
        "clock 6 s ahead", "clock", r"clock is \d\.\d s ahead of", r"NTP here, or set the clock", 2, HOUSE, clock_drifts
    ),
    Ailment("worker hangs", "worker", r"taken no step for \d+ s", r"leave and start again", 2, HOUSE, worker_hangs),
    Ailment(
        "worker dies", "worker", r"ended \d+ times.*SIGKILL", r"stop that, then leave and start", 2, HOUSE, worker_dies
    ),
    Ailment("peer cut off", "nobody-heard", r"none of the 2 other", r"shoal doctor", 2, HOUSE, cut_off),
    Ailment("slow link", "slow-link", r"too slow for these rounds", r"free it", 2, HOUSE, slow_link),
    Ailment("busy processor", "busy-processor", r"programs have taken \d+%", r"end other", 2, HOUSE, busy_processor),
    Ailment("one identity twice", "twin", r"another process runs with this peer's", r"stop one", 2, Setting(), twin),
    Ailment("dead expert", "gap", r"nobody trains it", r"--sub-model expert\.1", 0, PINNED, dead_expert),
    Ailment("invitation ends", "invitation", r"ends on \d{4}", r"shoal invite", 1, CLOSED, invitation_ends),
    Ailment(
        "steps longer than rounds",
        "long-steps",
        rf"steps take {STEP_S:g} s",
        r"found the run with ticks of \d+ s \(SHOAL_RUN__ROUNDS__TICK_SECONDS",
        1,
        Setting(peers=2, step_s=STEP_S, tick_s=1.0),
        cured=Setting(peers=2, step_s=STEP_S, tick_s=4 * STEP_S),
    ),
    Ailment(
        "too high a rate",
        "diverging",
        r"diverged \d+ times",
        r"lower rate than 1 \(SHOAL_RUN__INNER__LEARNING_RATE\), such as 0\.1",
        1,
        Setting(peers=2, run=STEEP | {"SHOAL_RUN__INNER__LEARNING_RATE": "1"}, text={"verses": ENOUGH // 2}),
        cured=Setting(peers=2, run=STEEP | {"SHOAL_RUN__INNER__LEARNING_RATE": "0.1"}, text={"verses": ENOUGH // 2}),
    ),
    Ailment(
        "skewed text",
        "skewed-text",
        r"docs has [\d,]+ tokens of text, python has [\d,]+",
        r"more text of docs",
        1,
        Setting(peers=2, run=EXPERTS, text={"python": ENOUGH, "docs": ENOUGH // 30}),
        cured=Setting(peers=2, run=EXPERTS, text={"python": ENOUGH, "docs": ENOUGH // 3}),
    ),
    Ailment(
        "too little text",
        "little-text",
        r"its text was read \d+ times",
        r"found a run with more text",
        1,
        Setting(peers=2, text={"python": 20_000}),
        cured=Setting(peers=2),
    ),
]


async def _pin(daemon: Daemon, cores: str) -> None:
    for pid in tree(daemon.pid):
        process = await asyncio.create_subprocess_exec(
            "taskset", "--all-tasks", "--pid", "--cpu-list", cores, str(pid), stdout=asyncio.subprocess.DEVNULL
        )
        await process.wait()
