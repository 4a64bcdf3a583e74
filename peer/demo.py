"""`shoal demo`: a real swarm of daemons on this machine, with its losses and returns, fused and measured.

Nothing is staged: the peers are processes like any user's, what happened is read from their own status, and the
models that the fused one is compared with are trained by the same daemon with the same data, seed and batch.
"""

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from configs.errors import ShoalError
from configs.load import load
from configs.run import RunPlan
from peer.processes import POLL_S, Process, founder, joiner, open_processes
from peer.status import Status
from peer.view import overview

TOTAL_TOKENS = 1_000_000  # of the whole swarm
COMMON_TOKENS = 500_000
LATE_SHARE, KILL_SHARE, LEAVE_SHARE = 0.15, 0.3, 0.6  # of the tokens, when each thing happens
SWARM_S = 170.0  # the swarm's training ends then at the latest
EVALUATED_TOKENS = 8_000  # of each domain's held-out part
DOWN_S = 3.0  # how long the killed peer stays away
PROMPT = "def read("


@dataclass
class Story:
    """What the peers' own status told."""

    statuses: dict[str, Status] = field(default_factory=dict)  # the last of each peer, by its name
    headline: str = "starting"
    rounds_at_leave: dict[str, int] = field(default_factory=dict)
    rounds_at_return: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def share(self) -> float:
        """How much of the run's tokens the swarm has absorbed."""
        return max((s.age / s.total_tokens for s in self.statuses.values()), default=0.0)

    def rounds(self) -> dict[str, int]:
        """Return each peer's rounds by its own count."""
        return {name: status.peers[0].rounds for name, status in self.statuses.items()}

    def digests(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Return block → peer → its last five digests."""
        told: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for status in self.statuses.values():
            own = status.peers[0]
            for block, marks in own.digests.items():
                told.setdefault(block, {})[own.peer_id] = [mark.model_dump() for mark in marks]
        return told


def run(*, as_json: bool, state_dir: Path | None) -> int:
    """Run the demo; return 0 only if the fused model beats the lone peer and every sub-model on the mean.

    Raises ShoalError when a daemon does not start or a model cannot be made.
    """
    folder = Path(tempfile.mkdtemp(prefix="shoal-demo-", dir=state_dir))
    console = Console(stderr=True)
    try:
        with _screen(console, as_json) as show:
            result = asyncio.run(_play(folder, show))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sample = result.pop("sample")
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        _print(Console(), result, sample)
    return 0 if _is_won(result) else 1


async def _play(folder: Path, show: Callable[[Story], None]) -> dict[str, Any]:
    story = Story()
    async with open_processes() as processes:
        await _swarm(folder, processes, story, show)
        plan = _plan()
        tokens = {"alone": max(s.peers[0].tokens for s in story.statuses.values()), "dense": plan.total_tokens}
        story.headline = "training one peer alone, and one dense model on all tokens, to compare"
        show(story)
        data = str(next((folder / "founder" / "corpus").glob("built-in-*")))
        await asyncio.gather(*(_baseline(folder, name, data, total, plan, processes) for name, total in tokens.items()))
    story.headline = "measuring on held-out text"
    show(story)
    result = await asyncio.to_thread(_measure, folder)
    after = {name: story.rounds()[name] - at for name, at in story.rounds_at_leave.items()}
    return result | {
        "rounds": max(story.rounds().values()),
        "rounds_after_founder_left": max(after.values(), default=0),
        "rounds_after_kill_of_killed_peer": story.rounds()["peer1"] - story.rounds_at_return,
        "digests": story.digests(),
        "tokens": tokens | {name: s.peers[0].tokens for name, s in story.statuses.items()},
        "seconds": round(time.monotonic() - story.started, 1),
    }


async def _swarm(folder: Path, processes: list[Process], story: Story, show: Callable[[Story], None]) -> None:
    """Let four peers find each other, lose one and get it back, lose the founder, finish, and be fused."""
    first = founder(folder, "founder", "tiny", **_environment(_plan()))
    processes.append(first)
    story.headline = "the founder prepares text that every machine has, and waits for others"
    await _watching(first.start(), processes, story, show)
    story.headline = "two peers join, by the founder's address alone"
    peers = [joiner(folder, f"peer{n}", first.address) for n in (1, 2)]
    processes += peers
    for peer in peers:
        await _watching(peer.start(), processes, story, show)
    late = joiner(folder, "peer3", peers[0].address)
    await _until(LATE_SHARE, processes, story, show)
    story.headline = "a third peer joins late, by another peer's address"
    processes.append(late)
    await _watching(late.start(), processes, story, show)
    await _until(KILL_SHARE, processes, story, show)
    story.headline = "peer1 was killed; it will come back from its state directory"
    await peers[0].kill()
    await _watching(asyncio.sleep(DOWN_S), processes, story, show)
    await _watching(peers[0].start(), processes, story, show)
    story.rounds_at_return = (await peers[0].status()).peers[0].rounds
    story.headline = "peer1 is back"
    await _until(LEAVE_SHARE, processes, story, show)
    story.headline = "the founder leaves; what it held is kept by the others"
    await _watching(first.leave(), processes, story, show)
    story.rounds_at_leave = {name: rounds for name, rounds in story.rounds().items() if name != "founder"}
    await _until(1.0, processes, story, show)
    story.headline = "fusing the sub-models, from the live peers"
    show(story)
    await asyncio.to_thread(_fuse, [peer.address for peer in (*peers, late)], folder / "fused", "routed")
    for peer in (*peers, late):
        await peer.leave()


async def _until(share: float, processes: list[Process], story: Story, show: Callable[[Story], None]) -> None:
    """Watch until the swarm has absorbed this share of its tokens, or its time is over."""

    async def reached() -> None:
        def is_over() -> bool:
            running = [process.name for process in processes if process.is_running]
            is_done = all(story.statuses[name].phase == "done" for name in running)
            return story.share >= share if share < 1 else is_done

        while not is_over() and time.monotonic() < story.started + SWARM_S:
            await asyncio.sleep(POLL_S)

    await _watching(reached(), processes, story, show)


async def _watching(
    happening: Awaitable[Any], processes: list[Process], story: Story, show: Callable[[Story], None]
) -> None:
    """Keep the story and the screen up to date until `happening` is over."""

    async def look() -> None:
        while True:
            for process in processes:
                if process.is_running and process.url:
                    with contextlib.suppress(ShoalError):
                        story.statuses[process.name] = await process.status()
            show(story)
            await asyncio.sleep(POLL_S)

    watch = asyncio.create_task(look())
    try:
        await happening
    finally:
        watch.cancel()
        await asyncio.wait([watch])


async def _baseline(folder: Path, name: str, data: str, total: int, plan: RunPlan, processes: list[Process]) -> None:
    """Train one whole model with `total` tokens, by a lone daemon, and write it as a Llama."""
    environment = _environment(plan) | {
        "SHOAL_RUN__STRATEGY__KIND": "replicas",
        "SHOAL_RUN__STRATEGY__COMMON_TOKENS": "0",
        "SHOAL_RUN__TOTAL_TOKENS": str(total),
    }
    peer = founder(folder, name, "tiny", "--data", data, **environment)
    processes.append(peer)
    await peer.start()
    await peer.done()
    await peer.leave()
    await asyncio.to_thread(_fuse, [str(peer.state_dir)], folder / f"{name}-model", "llama")


def _plan() -> RunPlan:
    plan = load("tiny").run
    assert plan is not None
    strategy = plan.strategy.model_copy(update={"common_tokens": COMMON_TOKENS})
    return plan.model_copy(update={"total_tokens": TOTAL_TOKENS, "strategy": strategy})


def _environment(plan: RunPlan) -> dict[str, str]:
    return {
        "SHOAL_RUN__TOTAL_TOKENS": str(plan.total_tokens),
        "SHOAL_RUN__STRATEGY__COMMON_TOKENS": str(plan.strategy.common_tokens),
    }


def _fuse(sources: list[str], out: Path, form: Any) -> None:
    from peer.gather import fuse_from

    fuse_from(sources, out, form)


def _measure(folder: Path) -> dict[str, Any]:
    """Score every model on the same held-out tokens, every token of them."""
    from peer.entry import built_in, saved_spec
    from peer.session import initial_state
    from peer.train.evaluate import Evaluation, evaluate
    from peer.train.fuse import Parts, fuse
    from peer.train.generate import Generation, Sampling
    from peer.train.partition import COMMON, Strategy
    from peer.train.routed import RoutedModel

    spec = saved_spec(folder / "founder")
    corpus = built_in(folder / "founder", spec) if spec is not None else None
    assert spec is not None and corpus is not None
    domains = corpus.info.domains
    heldout = {domain.name: corpus.heldout(domain) for domain in domains}
    counts = {domain.name: corpus.counts(domain) for domain in domains}
    strategy = Strategy.of(spec.strategy, len(domains))
    untrained = Parts(spec, {COMMON: initial_state(spec, strategy).phi}, counts, corpus.tokenizer_json())
    fuse(untrained, folder / "untrained-model", "llama", COMMON)

    def score(path: Path) -> Evaluation:
        return evaluate(path, heldout, max_tokens=EVALUATED_TOKENS)

    fused = score(folder / "fused")
    text = Generation(RoutedModel.load(folder / "fused"), PROMPT, Sampling(max_tokens=60))
    return {
        "untrained": _row(score(folder / "untrained-model").losses),
        "alone": _row(score(folder / "alone-model").losses),
        "dense": _row(score(folder / "dense-model").losses),
        "sub_models": {name: _row(losses) for name, losses in fused.alone.items()},
        "fused": _row(fused.losses),
        "sample": PROMPT + "".join(text),
    }


def _row(losses: Mapping[str, float]) -> dict[str, float]:
    from peer.train.evaluate import mean_perplexity

    row = {domain: round(mean_perplexity([loss]), 3) for domain, loss in losses.items()}
    return row | {"mean": round(mean_perplexity(losses.values()), 3)}


def _is_won(result: Mapping[str, Any]) -> bool:
    rivals = [result["alone"], *result["sub_models"].values()]
    return all(result["fused"]["mean"] < rival["mean"] for rival in rivals)


@contextmanager
def _screen(console: Console, as_json: bool) -> Iterator[Callable[[Story], None]]:
    """Yield what draws the story: live in a terminal; elsewhere each new headline on a line."""
    if console.is_terminal and not as_json:
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def draw(story: Story) -> None:
                width, height = console.size
                statuses = list(story.statuses.values())
                live.update(
                    overview(statuses, time.time(), story.headline, width=width, height=height - 1), refresh=True
                )

            yield draw
        return
    last = ""

    def say(story: Story) -> None:
        nonlocal last
        if story.headline != last:
            last = story.headline
            print(f"{time.monotonic() - story.started:5.0f} s  {last}", file=sys.stderr, flush=True)

    yield say


def _print(console: Console, result: Mapping[str, Any], sample: str) -> None:
    domains = list(result["fused"])
    table = Table(title="perplexity on held-out text; lower is better")
    table.add_column("model")
    for domain in domains:
        table.add_column(domain, justify="right")
    rows = [("untrained", result["untrained"]), ("one peer alone", result["alone"])]
    rows += [(f"sub-model {name}", row) for name, row in result["sub_models"].items()]
    rows += [("dense, all tokens", result["dense"]), ("fused", result["fused"])]
    for name, row in rows:
        table.add_row(name, *(f"{row[domain]:.1f}" for domain in domains), style="bold" if name == "fused" else "")
    console.print(table)
    console.print(
        f"{result['rounds']} rounds; {result['rounds_after_founder_left']} after the founder left; "
        f"{result['rounds_after_kill_of_killed_peer']} by the killed peer after its return; {result['seconds']:.0f} s"
    )
    console.print(f"\na sample of the fused model:\n{sample}", markup=False, highlight=False)
    if not _is_won(result):
        console.print("the fused model did not beat the lone peer and every sub-model", style="red")
