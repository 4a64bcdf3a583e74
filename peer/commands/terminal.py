"""What commands print: pages of `page.py`, progress, results. Pages and results go to stdout, progress to stderr."""

import itertools
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from configs.errors import NetworkError, UsageError
from configs.text import clean, printable
from peer.commands.page import HEIGHT, WIDTH, draw, plain
from peer.http.local import fetch_status
from peer.http.status import Status
from peer.http.view import view

if TYPE_CHECKING:
    from peer.fused.evaluate import Evaluation
    from peer.fused.generate import Segment
    from peer.fused.scores import TaskScores

WATCH_S = 1.0  # between two looks
LINE_S = 10.0  # between two lines of progress where nobody watches
PATIENCE = 3  # looks in a row without an answer, after which the daemon counts as gone
SAMPLE_CHARS = 320  # of a text that is shown
SPEAKERS = ("cyan", "green", "yellow", "magenta", "blue", "red")

Report = Callable[[str, int, int], None]  # what is being done, how much is done, of how much (0: not known yet)


def show_status(status: Status) -> None:
    """Print one page."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    # Nothing is cut for height: what does not fit can be scrolled, or piped on.
    height = HEIGHT + len(status.peers) + len(status.blocks)
    console.print(draw(view(status, time.time()), width=console.width, height=height))


def show(what: RenderableType) -> None:
    """Print something once."""
    (Console() if sys.stdout.isatty() else Console(width=WIDTH)).print(what)


def watch_status(where: str | Path, *, as_json: bool) -> None:
    """Show the daemon's status anew each second until Ctrl-C, which ends it in peace; as JSON, one line a second.

    Raises as `fetch_status` when the daemon is gone.
    """
    if not as_json and not sys.stdout.isatty():
        raise UsageError("--watch needs a terminal to draw on; for a pipe add --json, which prints a line a second")
    try:
        if as_json:
            for status in _statuses(where):
                print(status.model_dump_json(), flush=True)
        else:
            _draw(_statuses(where))
    except KeyboardInterrupt:
        return


@contextmanager
def progress() -> Iterator[Report]:
    """Show how far a long job is, and when it will be done; a line now and then where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield _lines(time.monotonic)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    display = Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = display.add_task(clean(stage), total=None)
        display.update(tasks[stage], completed=done, total=total or None)

    with display:
        yield report


def _lines(clock: Callable[[], float]) -> Report:
    """Return what writes a line to stderr every LINE_S seconds."""
    told_at = clock()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal told_at
        if clock() - told_at >= LINE_S:
            told_at = clock()
            print(clean(stage) + (f" {done / total:.0%}" if total else ""), file=sys.stderr, flush=True)

    return report


def show_evaluation(result: "Evaluation") -> None:
    """Print losses and perplexities, and those of each sub-model by itself where there are several."""
    alone = result.alone if len(result.alone) > 1 else {}
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    table.add_column("domain")
    for name in ("tokens", "loss", "perplexity", *(f"{sub_model} alone" for sub_model in alone)):
        table.add_column(plain(name), justify="right")
    for domain, perplexity in result.perplexities.items():
        others = (f"{math.exp(own[domain]):.3f}" for own in alone.values())
        loss = f"{result.losses[domain]:.3f}"
        table.add_row(plain(domain), f"{result.tokens[domain]:,}", loss, Text(f"{perplexity:.3f}", "bold"), *others)
    others = (f"{math.exp(statistics.fmean(own.values())):.3f}" for own in alone.values())
    tokens, loss = f"{sum(result.tokens.values()):,}", f"{math.log(result.mean):.3f}"
    table.add_row("mean", tokens, loss, Text(f"{result.mean:.3f}", "bold cyan"), *others)
    console = Console()
    console.print(table)
    console.print(f"{result.forward_passes} forward passes a token, {result.seconds:.1f} s", style="bright_black")


def show_scores(domain: str, task: "TaskScores", base: "TaskScores | None" = None) -> None:
    """Print how good the answers to the examples of one domain are, beside what needs no model, and some of them.

    `base`: the scores of the model that it began with.
    """
    beside = ({} if base is None else {"base": base.scores}) | dict(task.trivial)
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in (f"{clean(domain)}, {task.examples:,} examples", "score", "95 % interval", *beside):
        table.add_column(plain(name), justify="right" if table.columns else "left", no_wrap=True)
    for name, score in task.scores.items():
        others = [f"{scores[name].value:.1f}" if name in scores else "" for scores in beside.values()]
        table.add_row(name, Text(f"{score.value:.1f}", "bold"), f"{score.low:.1f} to {score.high:.1f}", *others)
    console = Console()
    console.print()
    console.print(table)
    for at, sample in enumerate(task.samples):
        said = {"input": sample.input, "reference": sample.reference, "answer": sample.answer}
        if base is not None:
            said["base"] = base.samples[at].answer
        console.print()
        for name, text in said.items():
            short = " ".join(text.split())
            short = short if len(short) <= SAMPLE_CHARS else f"{short[:SAMPLE_CHARS]} …"
            style = "bold" if name == "answer" else ""
            console.print(Text.assemble((f"{name:>9}  ", "bright_black"), (printable(short), style)))


def show_segments(segments: "Sequence[Segment]") -> None:
    """Print who spoke which part of a text: a colour for each sub-model, its name and its mean share."""
    colours: dict[str, str] = {}
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("sub-model", "domain", "share", "", "text"):
        table.add_column(name, no_wrap=name != "text", justify="right" if name == "share" else "left")
    for segment in segments:
        colour = colours.setdefault(segment.sub_model, SPEAKERS[len(colours) % len(SPEAKERS)])
        speaker, text = plain(segment.sub_model, colour), Text(printable(segment.text), colour)
        kind = Text("prompt" if segment.is_prompt else "", "bright_black")
        table.add_row(speaker, plain(segment.domain), f"{segment.weight:.0%}", kind, text)
    Console().print(table)


def _statuses(where: str | Path) -> Iterator[Status]:
    """Yield a status a second. Raises as `fetch_status`, after `PATIENCE` looks in vain at a daemon that was there."""
    yield fetch_status(where)
    failures = 0
    while True:
        time.sleep(WATCH_S)
        try:
            status = fetch_status(where)
        except NetworkError:
            failures += 1
            if failures >= PATIENCE:
                raise
            continue
        failures = 0
        yield status


def _draw(statuses: Iterator[Status]) -> None:
    console = Console()
    page: RenderableType = ""
    first = next(statuses)  # what is wrong at once is said on the ordinary screen
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            for status in itertools.chain([first], statuses):
                page = _fitted(status, console)
                live.update(page, refresh=True)
    finally:
        console.print(page)  # the last one stays


def _fitted(status: Status, console: Console) -> RenderableType:
    return draw(view(status, time.time()), width=console.width, height=console.height)
