"""The picture of a swarm in a terminal: pure functions from statuses to something that rich can print.

Everything that other peers wrote is shown as plain text: neither markup nor control characters of theirs have effect.
"""

import io
import itertools
import math
import re
import textwrap
import time
from collections import Counter
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from configs.text import clean
from peer.http.status import BlockStatus, PeerStatus, Status

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
PHASES = {"common": "common phase", "parted": "sub-models parted", "done": "training done, serving"}

Curve = tuple[str, Sequence[tuple[int, float]]]  # label, (tokens, loss)


def view(status: Status, now: float, *, width: int = WIDTH, height: int = HEIGHT) -> RenderableType:
    """Show one daemon's status in `width` by `height` characters; `now` is the wall-clock time in seconds."""
    curves = [("loss", status.losses), *((f"held-out {name}", points) for name, points in status.held_out.items())]
    return _page(status, curves, _headline(status), now, (width, height))


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
    return _page(merged, curves, title, now, (width, height))


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


def agreement(peer: PeerStatus, peers: Sequence[PeerStatus]) -> bool | None:
    """Say whether `peer` has the majority's digest of each block that it shares; None: there is nothing to compare.

    A block is compared at the newest version for which another peer has published a digest too.
    """
    verdicts = []
    for block, marks in peer.digests.items():
        for mark in sorted(marks, key=lambda mark: -mark.version):
            votes = Counter(_digest(other, block, mark.version) for other in peers)
            del votes[None]
            if votes.total() > 1:
                verdicts.append(votes[mark.digest] == max(votes.values()))
                break
    return all(verdicts) if verdicts else None


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


def duration(seconds: float) -> str:
    """Write a duration with one unit that matters: 45 s, 12 min, 3.5 h, 2.1 days."""
    for limit, divisor, unit in ((100, 1, "s"), (100 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}" if unit == "h" else f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def _page(status: Status, curves: Sequence[Curve], title: Text, now: float, size: tuple[int, int]) -> RenderableType:
    width, height = size
    curves = [curve for curve in curves if curve[1]][:4]
    join = _join_lines(status, width)
    warnings = [line for text in status.warnings[:MOST_WARNINGS] for line in _warning_lines(text, width)]
    warnings += _warning_lines(status.paused, width) if status.paused else []
    unseen = _unseen_lines(status)
    unseen += [Text(f"left here: {clean(status.privacy)}", style=QUIET)] if status.privacy else []
    room = max(4, height - FIXED_LINES - LEAST_EVENTS - len(join) - len(curves) - len(warnings) - len(unseen))
    for_blocks = min(len(status.blocks), max(room // 2, room - len(status.peers)))
    for_peers = min(len(status.peers), room - for_blocks)
    for_events = LEAST_EVENTS + room - for_blocks - for_peers
    gap = 2 if width >= WIDTH else 1
    return Group(
        _rule(title),
        *warnings,
        _facts(status, now),
        _progress(status, width),
        *join,
        Text(),
        _peer_table(status, for_peers, gap),
        *unseen,
        Text(),
        _block_table(status, for_blocks, gap),
        Text(),
        *(_curve(label, points, width) for label, points in curves),
        *([Text()] if curves else []),
        *(Text(clean(event), style=QUIET, no_wrap=True, overflow="ellipsis") for event in status.events[-for_events:]),
    )


def _headline(status: Status) -> Text:
    name, run = clean(status.run_name), clean(status.run_id[:8])
    return Text.assemble(("shoal", f"bold {ACCENT}"), "  ", (name, "bold"), (f"  run {run}", QUIET))


def _rule(title: Text) -> Rule:
    return Rule(title, style=QUIET, align="left")


def _facts(status: Status, now: float) -> RenderableType:
    left = Text.assemble(
        clean(status.strategy), (" · ", QUIET), PHASES.get(status.phase, clean(status.phase)), (" · ", QUIET),
        f"tick {status.tick}", (" · ", QUIET), f"up {duration(max(0.0, now - status.started_at))}",
    )  # fmt: skip
    if status.state:
        left.append(" · ", QUIET).append(clean(status.state), STATE_STYLES.get(status.state, ""))
    right = Text("", no_wrap=True)
    if status.phase != "done" and status.eta_s is not None:
        at = time.strftime("%H:%M", time.localtime(now + status.eta_s))
        right = Text(f"done in {duration(status.eta_s)}, at {at}", style="bold", no_wrap=True)
    return _line(left, right)


def _progress(status: Status, width: int) -> RenderableType:
    share = min(1.0, status.age / status.total_tokens) if status.total_tokens else 0.0
    bar = ProgressBar(total=1.0, completed=share, width=max(10, width - 40), complete_style=ACCENT, finished_style=GOOD)
    return _line(bar, Text(f"{si(status.age)} of {si(status.total_tokens)} tokens  {share:4.0%}", no_wrap=True))


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


def _unseen_lines(status: Status) -> list[Text]:
    """Say why peers are not seen, a line for each."""
    unseen = [f"{short(peer.peer_id)} {clean(peer.why)}" for peer in status.peers if peer.why]
    return [Text(line, style=WARN, no_wrap=True, overflow="ellipsis") for line in unseen[:MOST_UNSEEN]]


def _join_lines(status: Status, width: int) -> list[Text]:
    """Return the line that a new peer types; a longer one is continued as a shell would read it."""
    lines: list[str] = []
    for word in clean(status.join).split():
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


def _peer_table(status: Status, rows: int, gap: int) -> RenderableType:
    table = _table(
        gap,
        ("peer", "<"), ("sub-model", "<"), ("domain", "<"), ("state", "<"), ("rounds", ">"), ("loss", ">"),
        ("tok/s", ">"), ("in / out", ">"), ("digest", "<"),
    )  # fmt: skip
    hidden = len(status.peers) - rows
    shown = status.peers[: rows - 1] if hidden else status.peers
    for peer in shown:
        mark, style = {True: ("✓", GOOD), False: ("✗", BAD), None: ("", QUIET)}[agreement(peer, status.peers)]
        name = Text(short(peer.peer_id), style=f"bold {ACCENT}" if peer.peer_id == status.peer_id else "")
        table.add_row(
            name,
            plain(peer.sub_model),
            plain(peer.domain),
            plain(peer.state, STATE_STYLES.get(peer.state, "")),
            str(peer.rounds),
            "–" if peer.loss is None else f"{peer.loss:.3f}",
            si(peer.tokens_per_s),
            f"{si(peer.bytes_in)} / {si(peer.bytes_out)}",
            Text.assemble((_newest_digest(peer, status.peers), QUIET), " ", (mark, style)),
        )
    return Group(table, Text(f"and {len(status.peers) - len(shown)} more", style=QUIET)) if hidden else table


def _block_table(status: Status, rows: int, gap: int) -> RenderableType:
    table = _table(
        gap,
        ("block", "<"), ("holders", ">"), ("keepers", ">"), ("age", ">"), ("version", ">"), ("round", ">"),
        ("last round", "<"), ("agree", ">"),
    )  # fmt: skip
    hidden = len(status.blocks) - rows
    shown = status.blocks[: rows - 1] if hidden else status.blocks
    for block in shown:
        style = GOOD if block.agreement >= 1 else WARN if block.agreement > 0.5 else BAD
        table.add_row(
            plain(block.block, "bold"),
            str(len(block.holders)),
            str(len(block.keepers)),
            si(block.age),
            str(block.version),
            duration(block.round_ticks * status.tick_seconds) if block.round_ticks else "–",
            plain(block.outcome, WARN if block.outcome.startswith("skipped") else ""),
            Text(f"{block.agreement:.0%}", style=style) if len(block.holders) > 1 else Text("–", style=QUIET),
        )
    return Group(table, Text(f"and {len(status.blocks) - len(shown)} more", style=QUIET)) if hidden else table


def _curve(label: str, points: Sequence[tuple[int, float]], width: int) -> Text:
    values = [loss for _, loss in points]
    return Text.assemble(
        (f"{label:<7}{values[0]:6.3f} ", QUIET), (sparkline(values, width - 24), ACCENT), f" {values[-1]:.3f}",
        no_wrap=True, overflow="ellipsis",
    )  # fmt: skip


def _digest(peer: PeerStatus, block: str, version: int) -> str | None:
    return next((mark.digest for mark in peer.digests.get(block, []) if mark.version == version), None)


def _newest_digest(peer: PeerStatus, peers: Sequence[PeerStatus]) -> str:
    """Return version and digest of the block that `peer` shares with the most others; of its own one in a tie."""
    if not any(peer.digests.values()):
        return ""
    sharers = Counter(block for other in peers for block, marks in other.digests.items() if marks)
    block = max((b for b, marks in peer.digests.items() if marks), key=lambda b: (sharers[b], b == peer.sub_model))
    mark = max(peer.digests[block], key=lambda mark: mark.version)
    return f"{mark.version}:{clean(mark.digest[:6])}"
