"""`shoal demo`: a real swarm of daemons on this machine, with its losses and returns, fused and measured.

Nothing is staged: the peers are processes like any user's, what happened is read from their own status, and the
models that the fused one is compared with are trained by the same daemon with the same data, seed and batch. The demo
ends by tokens: a step is measured first, and gives their number (demo_tokens.py). No clock cuts anything off.

Here is the play. What it tells meanwhile is demo_story.py's, what it ends with is demo_scores.py's.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

from configs.cores import usable_cores
from configs.errors import ShoalError
from configs.load import load
from configs.machine import PeerConfig
from configs.run import RunPlan
from peer.commands.demo_scores import is_won, print_result, score_models
from peer.commands.demo_story import STALL_S, STILL_S, Pace, Story, least_share, screen, swarm_share
from peer.commands.demo_tokens import durations, tokens_for
from peer.commands.page import si
from peer.commands.processes import POLL_S, Process, founder, joiner, open_processes
from peer.ending import first_cause, handling_signals
from peer.http.view import duration

if TYPE_CHECKING:
    from peer.fused.card import Format

COMMON_SHARE = 0.5  # of the tokens, in which the swarm trains one model, before sub-models part
LATE_SHARE, KILL_SHARE, LEAVE_SHARE = 0.15, 0.3, 0.6  # of the tokens, when each thing happens
DOWN_S = 3.0  # how long the killed peer stays away
BASELINES = ("alone", "dense")

Show = Callable[[Story], None]
T = TypeVar("T")


def run(*, as_json: bool, state_dir: Path | None) -> int:
    """Run the demo; return 0 only if the fused model beats the lone peer and every sub-model on the mean.

    A SIGINT, SIGTERM or SIGHUP ends it with 128 plus the signal's number; no daemon and no folder are left behind.
    Raises ShoalError when a daemon does not start, ends by itself or gets stuck, or a model cannot be made.
    """
    signals: list[int] = []
    try:
        with screen(Console(stderr=True), as_json) as show:
            result = asyncio.run(_until_signalled(state_dir, show, signals))
    except asyncio.CancelledError:
        if not signals:
            raise
        return 128 + signals[0]
    except BaseExceptionGroup as group:
        raise first_cause(group) from None
    sample = result.pop("sample")
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        print_result(Console(), result, sample)
    return 0 if is_won(result) else 1


async def _until_signalled(state_dir: Path | None, show: Show, signals: list[int]) -> dict[str, Any]:
    """Play, unless a signal cancels it; further ones change nothing, since ending takes only moments."""
    play = asyncio.current_task()
    assert play is not None

    def on_signal(number: int) -> None:
        signals.append(number)
        if len(signals) == 1:
            play.cancel()

    # What whoever started this has told it to ignore, as `nohup` does, stays ignored.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    with handling_signals(on_signal, numbers):
        async with _scratch_folder(state_dir) as folder, open_processes() as cast:
            now_s = time.monotonic()
            story = Story(Pace("the measurement", None, now_s), now_s)
            async with asyncio.TaskGroup() as group:
                watches = [group.create_task(_look(cast, story)), group.create_task(_keep_shown(story, show))]
                result = await _play(folder, cast, story)
                for watch in watches:
                    watch.cancel()
            return result


@asynccontextmanager
async def _scratch_folder(state_dir: Path | None) -> AsyncIterator[Path]:
    """Hold a folder for everything that the demo writes; it is gone afterwards, with the threads that wrote in it."""
    folder = Path(tempfile.mkdtemp(prefix="shoal-demo-", dir=state_dir))
    try:
        yield folder
    finally:
        await asyncio.get_running_loop().shutdown_default_executor()
        shutil.rmtree(folder, ignore_errors=True)


async def _play(folder: Path, cast: list[Process], story: Story) -> dict[str, Any]:
    """Choose the tokens, then train the swarm and its baselines with them, and measure."""
    story.headline = "measuring how long a step takes on this machine"
    plan = _preset()
    step_s, cores = await _measured_step_s(plan), usable_cores()
    plan = _plan(tokens_for(step_s, cores), step_s)
    expected = durations(plan.total_tokens, step_s, cores)
    chosen = f"a step takes {step_s:.2f} s on one of {cores:g} cores: {si(plan.total_tokens)} tokens in all"
    story.begin(
        f"{chosen}, about {duration(expected.total_s)}",
        "the swarm's tokens",
        expected.swarm_s,
        lambda: swarm_share(story.statuses),
    )
    await _swarm(folder, plan, cast, story, expected.fuse_s)
    totals = {"alone": max(status.peers[0].tokens for status in story.statuses.values()), "dense": story.age}
    story.begin(
        f"training one peer alone with {si(totals['alone'])} tokens and one dense model with {si(totals['dense'])}, "
        "to compare",
        "the one that takes longer",
        expected.baselines_s,
        lambda: least_share(story.baselines, totals),
    )
    tokens = await _baselines(folder, totals, plan, cast, story)
    story.begin("measuring on held-out text", "the text", expected.score_s)
    result = await _in_thread(lambda progress: score_models(folder, progress), story)
    trained = {name: status.peers[0].tokens for name, status in story.statuses.items()}
    return (
        result
        | story.facts()
        | {
            "tokens": tokens | {"fused": story.age} | trained,
            "step_s": round(step_s, 4),
            "cores": cores,
            "seconds": round(time.monotonic() - story.started_s, 1),
        }
    )


async def _measured_step_s(plan: RunPlan) -> float:
    """Return the seconds that one inner step takes here, with one thread."""
    from peer.workers.pace import measure_step

    return await measure_step(PeerConfig(threads=1), plan)


async def _swarm(folder: Path, plan: RunPlan, cast: list[Process], story: Story, fuse_s: float) -> None:
    """Let four peers find each other, lose one and get it back, lose the founder, finish, and be fused."""
    first = founder(folder, "founder", "tiny", **_environment(plan))
    cast.append(first)
    await first.start()
    story.headline = "two peers join, by the founder's address alone"
    peers = [joiner(folder, f"peer{n}", first.address) for n in (1, 2)]
    cast += peers
    async with asyncio.TaskGroup() as group:  # the founder trains already, so both at once
        for peer in peers:
            group.create_task(peer.start())
    await _until(story, lambda: story.share >= LATE_SHARE)
    story.headline = "a third peer joins late, by another peer's address"
    late = joiner(folder, "peer3", peers[0].address)
    cast.append(late)
    await late.start()
    await _until(story, lambda: story.share >= KILL_SHARE)
    story.headline = "peer1 was killed; it will come back from its state directory"
    await peers[0].kill()
    del story.statuses["peer1"]
    await asyncio.sleep(DOWN_S)
    await peers[0].start()
    await _until(story, lambda: "peer1" in story.statuses)
    story.rounds_at_return = story.rounds()["peer1"]
    story.headline = "peer1 is back"
    await _until(story, lambda: story.share >= LEAVE_SHARE)
    story.headline = "the founder leaves; what it held is kept by the others"
    await first.leave()
    story.rounds_at_leave = {name: rounds for name, rounds in story.rounds().items() if name != "founder"}
    remaining = (*peers, late)
    await _until(story, lambda: all(story.is_done(peer.name) for peer in remaining))
    story.begin("fusing the sub-models, from the live peers", "the fusing", fuse_s)
    addresses = [peer.address for peer in remaining]
    await _in_thread(lambda progress: _fuse(addresses, folder / "fused", "routed", progress), story)
    for peer in remaining:  # everything of theirs is in the fused model
        await peer.kill()


async def _baselines(
    folder: Path, totals: dict[str, int], plan: RunPlan, cast: list[Process], story: Story
) -> dict[str, int]:
    """Train the baselines side by side; return how many tokens each has had in the end."""
    data = str(next((folder / "founder" / "corpus").glob("built-in-*")))
    async with asyncio.TaskGroup() as group:
        tasks = {
            name: group.create_task(_baseline(folder, name, data, total, plan, cast, story))
            for name, total in totals.items()
        }
    return {name: task.result() for name, task in tasks.items()}


async def _baseline(
    folder: Path, name: str, data: str, total: int, plan: RunPlan, cast: list[Process], story: Story
) -> int:
    """Train one whole model with `total` tokens, by a lone daemon, and write it as a Llama.

    Returns the tokens that are in it: never fewer, and a few steps more, since a run ends at a round, of one tick here.
    """
    environment = _environment(plan) | {
        "SHOAL_RUN__STRATEGY__KIND": "replicas",
        "SHOAL_RUN__STRATEGY__COMMON_TOKENS": "0",
        "SHOAL_RUN__TOTAL_TOKENS": str(total),
        "SHOAL_RUN__ROUNDS__FIRST_TICKS": "1",
        "SHOAL_RUN__ROUNDS__LAST_TICKS": "1",
    }
    peer = founder(folder, name, "tiny", "--data", data, **environment)
    cast.append(peer)
    await peer.start()
    await _until(story, lambda: story.is_done(name))
    await peer.leave()
    return await asyncio.to_thread(_fuse, [str(peer.state_dir)], folder / f"{name}-model", "llama", lambda share: None)


async def _until(story: Story, has_come: Callable[[], bool]) -> None:
    """Wait until what the daemons tell makes `has_come` true."""
    async with story.news:
        await story.news.wait_for(has_come)


async def _look(cast: list[Process], story: Story) -> None:
    """Keep the story up to date. Raises ShoalError when a daemon ended by itself or gets no further."""
    while True:
        await asyncio.gather(*(_look_at(process, story) for process in cast))
        now_s = time.monotonic()
        story.refresh(now_s)
        for process in cast:
            if process.has_ended_by_itself:
                raise _ended(f"{process.name} ended by itself", process)
            if process.name == story.stuck(now_s):
                raise _ended(f"{process.name} has made no progress for {duration(STALL_S)}", process)
        if story.pace.is_still(now_s):
            told = f"{story.pace.share:.0%} of {story.pace.of_what}, and no more for {duration(STILL_S)}"
            raise _ended(told, next(process for process in reversed(cast) if process.is_running))
        async with story.news:
            story.news.notify_all()
        await asyncio.sleep(POLL_S)


def _ended(what: str, process: Process) -> ShoalError:
    return ShoalError(f"{what}; the last line of {process.name}'s log: {process.last_line}")


async def _look_at(process: Process, story: Story) -> None:
    url = process.url
    if not (process.is_running and url):
        return story.forget(process.name)
    status = None
    with contextlib.suppress(ShoalError):  # it may be busy; for how long is noticed
        status = await process.status()
    if process.is_running and process.url == url:  # and not one that has been killed meanwhile
        story.take_in(process.name, status, time.monotonic(), is_baseline=process.name in BASELINES)
    return None


async def _keep_shown(story: Story, show: Show) -> None:
    while True:
        show(story)
        await asyncio.sleep(POLL_S)


async def _in_thread(work: Callable[[Callable[[float], None]], T], story: Story) -> T:
    """Run long `work` in a thread, which tells the story how far it is; when this is cancelled, it ends there."""
    is_cancelled = threading.Event()

    def progress(share: float) -> None:
        if is_cancelled.is_set():
            raise ShoalError("the demo is ending")  # nobody hears it any more
        story.pace.note(share, time.monotonic())

    try:
        return await asyncio.to_thread(work, progress)
    finally:
        is_cancelled.set()


def _preset() -> RunPlan:
    plan = load("tiny").run
    assert plan is not None
    return plan


def _plan(total_tokens: int, step_s: float) -> RunPlan:
    """Return the preset's plan with so many tokens, and with the clock of a machine that takes such steps."""
    from peer.workers.pace import Pace, choose_tick

    plan = _preset()
    tick_s, _ = choose_tick(plan.rounds, Pace(step_s, 0.0, 0.0))  # on loopback a step is what takes its time
    changes = {
        "total_tokens": total_tokens,
        "strategy": plan.strategy.model_copy(update={"common_tokens": int(COMMON_SHARE * total_tokens)}),
        "rounds": plan.rounds.model_copy(update={"tick_seconds": tick_s}),
    }
    return plan.model_copy(update=changes)


def _environment(plan: RunPlan) -> dict[str, str]:
    return {
        "SHOAL_RUN__TOTAL_TOKENS": str(plan.total_tokens),
        "SHOAL_RUN__STRATEGY__COMMON_TOKENS": str(plan.strategy.common_tokens),
        "SHOAL_RUN__ROUNDS__TICK_SECONDS": str(plan.rounds.tick_seconds),
    }


def _fuse(sources: list[str], out: Path, form: "Format", progress: Callable[[float], None]) -> int:
    """Gather a run's blocks from `sources` and fuse them into `out`; return the tokens in the common block."""
    from peer.fused.fuse import fuse
    from peer.train.partition import COMMON
    from peer.visit.gather import Sources, gather

    progress(0.3)  # what was imported takes most of the time
    parts = gather(Sources(sources))
    progress(0.7)
    fuse(parts, out, form)
    progress(1.0)
    return sum(parts.ages.get(COMMON, {}).values())
