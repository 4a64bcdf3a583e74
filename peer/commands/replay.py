"""`shoal replay`: what happened in a daemon's last rounds, in the order and, on a terminal, at a pace of time.

Pure functions make the text of a round; the command only fetches, waits and prints.
"""

import itertools
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlencode

import typer

from configs.text import clean
from peer.commands.options import Json, StateDir, place_of
from peer.http import local

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from peer.http.history import RoundRecord

app = typer.Typer()

LONGEST_S = 2.0  # that a replay waits between two rounds, however long it was
LANE_CHARS = 40  # for the time of a round
MARKS = {"sealed": ("●", "green"), "late": ("▲", "yellow"), "absent": ("○", "yellow"), "left out": ("■", "red")}
PHASES = {
    "snapshot": "copied out",
    "offer": "own offer made",
    "gathered": "offers gathered",
    "sealed": "agreed",
    "stepped": "step taken",
    "applied": "applied",
}


@app.command(rich_help_panel="This machine's peer")
def replay(
    where: Annotated[str | None, typer.Argument(help="A state directory or a URL.", metavar="[DIR|URL]")] = None,
    block: Annotated[str | None, typer.Option("--block", help="Only of this block.", metavar="B")] = None,
    tick: Annotated[int | None, typer.Option("--round", help="This round in detail.", min=1, metavar="N")] = None,
    last: Annotated[int, typer.Option("--last", help="How many rounds.", min=1, max=500, metavar="N")] = 100,
    speed: Annotated[float, typer.Option("--speed", help="Times as fast as it was; 0: at once.", min=0)] = 60.0,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Show what happened in the last rounds: who offered, who was late and why, how long it took."""
    asked = {"block": block} if block else {}
    path = f"/rounds?{urlencode({'limit': last, **asked})}" if tick is None else f"/rounds/{tick}?{urlencode(asked)}"
    found = local.fetch_rounds(where or place_of(state_dir), path)
    if as_json:
        print(found.model_dump_json(indent=1))
        return
    from peer.commands.terminal import show  # rich: only once there is something to draw

    if not found.rounds:
        print(f"no round{f' of {clean(block)}' if block else ''} is remembered yet; the first shows when it has ended")
    elif tick is not None:
        for record in found.rounds:
            show(detail(record))
    else:
        _play(list(reversed(found.rounds)), speed if sys.stdout.isatty() else 0.0)


def line(record: "RoundRecord") -> "Text":
    """Return a round as one line: when, which, who took part, and what came of it."""
    from rich.text import Text

    at = time.strftime("%H:%M:%S", time.localtime(record.at))
    text = Text.assemble((at, "bright_black"), f"  {record.tick:>7}  ", (f"{clean(record.block):<12} ", "cyan"))
    for part in record.parts:
        text.append(*MARKS[part.fate])
    text.append(f"  {clean(record.outcome)}", "bold red" if record.cause else "")
    text.append(f"  in {_bytes(record.bytes_in)}, out {_bytes(record.bytes_out)}", "bright_black")
    reasons = [f"{clean(part.peer[-6:])} {part.fate}: {clean(part.why)}" for part in record.parts if part.why]
    for reason in reasons:
        text.append(f"\n{'':10}{reason}", "yellow")
    return text


def detail(record: "RoundRecord") -> "RenderableType":
    """Return all that is remembered of a round: its phases as a waterfall, and every member with its reason."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    span_s = max([record.cut_s, *record.phases.values(), *(part.offer_s or 0.0 for part in record.parts)], default=0.0)
    phases = Table(box=None, pad_edge=False, show_header=False)
    ends = sorted(record.phases.items(), key=lambda phase: phase[1])
    for (name, end_s), begin_s in zip(ends, [0.0, *(end for _, end in ends)], strict=False):
        phases.add_row(PHASES.get(name, clean(name)), lane(begin_s, end_s, span_s), f"{end_s:.2f} s")
    phases.add_row("cut", lane(record.cut_s, record.cut_s, span_s), f"{record.cut_s:.2f} s")
    parts = Table(box=None, pad_edge=False, header_style="bright_black")
    for name in ("peer", "fate", "offer", "list", "size", "tokens", "why"):
        parts.add_column(name, justify="left" if name in ("peer", "fate", "why") else "right")
    for part in record.parts:
        mark, style = MARKS[part.fate]
        offer, heard = (f"{value:.2f} s" if value is not None else "never" for value in (part.offer_s, part.list_s))
        fate, why = Text(f"{mark} {part.fate}", style), Text(clean(part.why), "yellow")
        peer = Text(clean(part.peer[-6:]))
        parts.add_row(peer, fate, offer, heard, _bytes(part.size_bytes), f"{part.tokens:,}", why)
    facts = f"version {record.version}, {record.age:,} tokens, bits {clean(record.digest[:16]) or '-'}"
    return Group(line(record), Text(facts, "bright_black"), "", phases, "", parts, "")


def lane(begin_s: float, end_s: float, span_s: float) -> str:
    """Draw a stretch of a round's time; one that is too short to be seen is a thin line."""
    scale = LANE_CHARS / span_s if span_s > 0 else 0.0
    begin, end = round(begin_s * scale), round(end_s * scale)
    bar = "█" * (end - begin) or "▏"
    return f"{' ' * begin}{bar}".ljust(LANE_CHARS + 1)


def pauses(records: Sequence["RoundRecord"], speed: float) -> list[float]:
    """Return how many seconds to wait before each round; never long, and not at all at speed 0."""
    if speed <= 0:
        return [0.0] * len(records)
    gaps = (max(0.0, later.at - earlier.at) / speed for earlier, later in itertools.pairwise(records))
    return [0.0, *(min(gap, LONGEST_S) for gap in gaps)][: len(records)]


def _play(records: Sequence["RoundRecord"], speed: float) -> None:
    from peer.commands.terminal import show

    try:
        for record, pause_s in zip(records, pauses(records, speed), strict=True):
            time.sleep(pause_s)
            show(line(record))
    except KeyboardInterrupt:
        return
    skipped = sum(1 for record in records if record.cause)
    print(f"{len(records)} rounds, {skipped} of them skipped; one in detail: shoal replay --round {records[-1].tick}")


def _bytes(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
