"""The picture of a swarm in a terminal: pure functions from a view to something that rich can print.

Everything that other peers wrote is shown as plain text: neither markup nor control characters of theirs have effect.
"""

import io
import itertools
import math
import re
import textwrap
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from configs.text import clean
from peer.http.status import BlockStatus, Status
from peer.http.view import Dot, View, duration, view

WIDTH, HEIGHT = 100, 30
FIXED_LINES = 10  # the header, the titles, the gaps, and one to spare; the rest is shared by rows and events
LEAST_EVENTS = 3
MOST_WARNINGS = 2
MOST_UNSEEN = 3  # peers of which it is said why they are not seen
BARS = "▁▂▃▄▅▆▇█"

GOOD, WARN, BAD, ACCENT, QUIET = "green", "yellow", "red", "cyan", "bright_black"
STATE_STYLES = {
    "training": GOOD,
    "serving": GOOD,
    "paused": WARN,
    "leaving": WARN,
    "starting": ACCENT,
    "downloading": ACCENT,
}

Curve = tuple[str, Sequence[tuple[int, float]]]  # label, (tokens, loss)


def draw(seen: View, *, width: int = WIDTH, height: int = HEIGHT) -> RenderableType:
    """Show what one daemon says in `width` by `height` characters."""
    curves = [("loss", seen.losses), *((f"held-out {name}", points) for name, points in seen.held_out.items())]
    return _page(seen, curves, _headline(seen), (width, height))


def overview(
    statuses: Sequence[Status], now: float, headline: str, *, width: int = WIDTH, height: int = HEIGHT
) -> RenderableType:
    """Show several daemons of one run on one page: each one's own words of itself, a curve for each, every block.

    `statuses` may be empty, while nobody has started yet.
    """
    title = Text.assemble(("shoal", f"bold {ACCENT}"), "  ", clean(headline))
    if not statuses:
        return Group(_rule(title), Text("waiting for the first peer …", style=QUIET))
    newest = max(statuses, key=lambda status: status.age)
    blocks: dict[str, BlockStatus] = {}
    for block in (block for status in statuses for block in status.blocks):
        if block.block not in blocks or block.version > blocks[block.block].version:
            blocks[block.block] = block
    own = [status.peers[0] for status in statuses if status.peers]
    events = list(dict.fromkeys(event for status in statuses for event in status.events))
    merged = newest.model_copy(
        update={"peers": own, "blocks": [blocks[name] for name in sorted(blocks)], "events": events, "peer_id": ""}
    )
    curves = [(short(status.peer_id), status.losses) for status in statuses]
    return _page(view(merged, now), curves, title, (width, height))


def to_svg(page: RenderableType, title: str, *, width: int = WIDTH) -> str:
    """Return a picture of `page` as SVG that loads nothing from anywhere; equal pages give equal pictures."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(page)
    svg = console.export_svg(title=title, unique_id="shoal")
    return re.sub(r"\s*@font-face\s*{[^}]*}", "", svg)


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw `values` in at most `width` characters; each shows the mean of its share. What is not finite is left out."""
    values = [value for value in values if math.isfinite(value)]
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    edges = [round(place * len(values) / count) for place in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def plain(text: str, style: str = "") -> Text:
    """Return `text` for a table's cell, where a bare string would be read as markup."""
    return Text(clean(text), style=style)


def short(peer_id: str) -> str:
    """Return the name of a peer: the last six characters of its id."""
    return clean(peer_id[-6:])


def si(value: float) -> str:
    """Write a number in at most five characters: 950, 12.3k, 4.0M."""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (1e12, 1e9, "G")):
        if abs(value) < limit * 0.9995:
            return f"{value:.0f}" if not unit else f"{value / divisor:.1f}{unit}"
    return f"{value / 1e12:.1f}T"


def _page(seen: View, curves: Sequence[Curve], title: Text, size: tuple[int, int]) -> RenderableType:
    width, height = size
    curves = [curve for curve in curves if curve[1]][:4]
    join = _join_lines(seen.headline.join, width)
    warnings = [line for each in seen.findings[:MOST_WARNINGS] for line in _warning_lines(each.line(), width)]
    why, privacy = seen.headline.why, seen.headline.privacy
    unseen = [*_warning_lines(why, width)] if why else []
    unseen += _unseen_lines(seen)
    unseen += [Text(f"left here: {clean(privacy)}", style=QUIET)] if privacy else []
    room = max(4, height - FIXED_LINES - LEAST_EVENTS - len(join) - len(curves) - len(warnings) - len(unseen))
    for_blocks = min(len(seen.sectors), max(room // 2, room - len(seen.dots)))
    for_peers = min(len(seen.dots), room - for_blocks)
    for_events = LEAST_EVENTS + room - for_blocks - for_peers
    gap = 2 if width >= WIDTH else 1
    return Group(
        _rule(title),
        *warnings,
        _facts(seen),
        _progress(seen, width),
        *join,
        Text(),
        _peer_table(seen, for_peers, gap),
        *unseen,
        Text(),
        _block_table(seen, for_blocks, gap),
        Text(),
        *(_curve(label, points, width) for label, points in curves),
        *([Text()] if curves else []),
        *(Text(clean(event), style=QUIET, no_wrap=True, overflow="ellipsis") for event in seen.events[-for_events:]),
    )


def _headline(seen: View) -> Text:
    name, run = clean(seen.headline.run_name), clean(seen.headline.run_id[:8])
    return Text.assemble(("shoal", f"bold {ACCENT}"), "  ", (name, "bold"), (f"  run {run}", QUIET))


def _rule(title: Text) -> Rule:
    return Rule(title, style=QUIET, align="left")


def _facts(seen: View) -> RenderableType:
    head = seen.headline
    left = Text.assemble(
        clean(head.strategy), (" · ", QUIET), clean(head.phase), (" · ", QUIET),
        f"tick {head.tick}", (" · ", QUIET), f"up {duration(head.up_s)}",
    )  # fmt: skip
    if head.state:
        left.append(" · ", QUIET).append(clean(head.state), STATE_STYLES.get(head.state, ""))
    return _line(left, Text(seen.progress.ends, style="bold", no_wrap=True))


def _progress(seen: View, width: int) -> RenderableType:
    done = seen.progress
    bar_width = max(10, width - 40)
    bar = ProgressBar(total=1.0, completed=done.share, width=bar_width, complete_style=ACCENT, finished_style=GOOD)
    return _line(bar, Text(f"{si(done.age)} of {si(done.total_tokens)} tokens  {done.share:4.0%}", no_wrap=True))


def _line(left: RenderableType, right: RenderableType) -> Table:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(left, right)
    return line


def _warning_lines(text: str, width: int) -> list[Text]:
    """Return a warning, as many lines as it takes."""
    lines = textwrap.wrap(clean(text), width - 2, initial_indent="! ", subsequent_indent="  ")
    return [Text(line, style=f"bold {WARN}", no_wrap=True) for line in lines]


def _unseen_lines(seen: View) -> list[Text]:
    """Say why peers are not seen, a line for each."""
    unseen = [f"{clean(dot.name)} {clean(dot.why)}" for dot in seen.dots if dot.why]
    return [Text(line, style=WARN, no_wrap=True, overflow="ellipsis") for line in unseen[:MOST_UNSEEN]]


def _join_lines(join: str, width: int) -> list[Text]:
    """Return the line that a new peer types; a longer one is continued as a shell would read it."""
    lines: list[str] = []
    for word in clean(join).split():
        if lines and len(lines[-1]) + len(word) + 3 <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}" if lines else word)
    shown: list[str] = []
    for line in [f"{line} \\" for line in lines[:-1]] + lines[-1:]:
        while len(line) > width:  # in mid-word, without the next line's indent
            shown.append(f"{line[: width - 1]}\\")
            line = line[width - 1 :]
        shown.append(line)
    return [Text(line, style=ACCENT, no_wrap=True) for line in shown]


def _table(gap: int, *columns: tuple[str, str]) -> Table:
    table = Table(box=None, expand=True, padding=(0, gap, 0, 0), pad_edge=False, header_style=QUIET)
    for name, justify in columns:
        table.add_column(name, justify="right" if justify == ">" else "left", no_wrap=True, overflow="ellipsis")
    return table


def _peer_table(seen: View, rows: int, gap: int) -> RenderableType:
    table = _table(
        gap,
        ("peer", "<"), ("sub-model", "<"), ("domain", "<"), ("state", "<"), ("rounds", ">"), ("loss", ">"),
        ("tok/s", ">"), ("in / out", ">"), ("digest", "<"),
    )  # fmt: skip
    hidden = len(seen.dots) - rows
    shown = seen.dots[: rows - 1] if hidden else seen.dots
    for dot in shown:
        table.add_row(*_peer_row(dot))
    return Group(table, Text(f"and {len(seen.dots) - len(shown)} more", style=QUIET)) if hidden else table


def _peer_row(dot: Dot) -> tuple[RenderableType, ...]:
    mark, style = {True: ("✓", GOOD), False: ("✗", BAD), None: ("", QUIET)}[dot.agrees]
    return (
        Text(clean(dot.name), style=f"bold {ACCENT}" if dot.is_me else ""),
        plain(dot.sub_model),
        plain(dot.domain),
        plain(dot.state, STATE_STYLES.get(dot.state, "")),
        str(dot.rounds),
        "–" if dot.loss is None else f"{dot.loss:.3f}",
        si(dot.tokens_per_s),
        f"{si(dot.bytes_in)} / {si(dot.bytes_out)}",
        Text.assemble((clean(dot.digest), QUIET), " ", (mark, style)),
    )


def _block_table(seen: View, rows: int, gap: int) -> RenderableType:
    table = _table(
        gap,
        ("block", "<"), ("holders", ">"), ("keepers", ">"), ("age", ">"), ("version", ">"), ("round", ">"),
        ("last round", "<"), ("agree", ">"),
    )  # fmt: skip
    hidden = len(seen.sectors) - rows
    shown = seen.sectors[: rows - 1] if hidden else seen.sectors
    for block in shown:
        style = GOOD if block.agreement >= 1 else WARN if block.agreement > 0.5 else BAD
        table.add_row(
            plain(block.block, "bold"),
            str(len(block.holders)),
            str(len(block.keepers)),
            si(block.age),
            str(block.version),
            duration(block.round_s) if block.round_s else "–",
            plain(block.outcome, WARN if block.outcome.startswith("skipped") else ""),
            Text(f"{block.agreement:.0%}", style=style) if len(block.holders) > 1 else Text("–", style=QUIET),
        )
    return Group(table, Text(f"and {len(seen.sectors) - len(shown)} more", style=QUIET)) if hidden else table


def _curve(label: str, points: Sequence[tuple[int, float]], width: int) -> Text:
    values = [loss for _, loss in points]
    return Text.assemble(
        (f"{label:<7}{values[0]:6.3f} ", QUIET), (sparkline(values, width - 24), ACCENT), f" {values[-1]:.3f}",
        no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
