"""`shoal chaos`: plays a schedule of faults on a test swarm of this machine, and shows what held."""

import asyncio
import json
import math
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from configs.errors import UsageError
from configs.load import PRESETS
from peer.chaos.links import NAMED, Link
from peer.chaos.play import CONFIG, Played, Swarm, play
from peer.chaos.schedule import EACH_KIND, Schedule, drawn, read_schedule
from peer.corpus.remote import opened_corpus

SEED = "seed:"


def run(schedule: str, *, config: str | None, data: str | None, as_json: bool) -> int:
    """Play it; return the exit code: 1 when something that must hold did not. Raises UsageError, ShoalError."""
    chosen = choose(schedule)
    plan = CONFIG if config is None else _preset(config)
    if plan != CONFIG and data is None:
        raise UsageError(f"--config {config} needs the text of that swarm: give a prepared corpus with --data")
    with ExitStack() as stack:  # the daemons' network reaches no store, so a corpus at a URL is copied
        given = None if data is None else stack.enter_context(opened_corpus(data, has_shards=True)).path.absolute()
        played = asyncio.run(play(chosen, Swarm(plan, given), lambda line: print(line, file=sys.stderr, flush=True)))
    if as_json:
        print(json.dumps(facts_of(played), indent=1))
    else:
        _show(played)
    return 0 if played.holds else 1


def choose(name: str) -> Schedule:
    """Return the schedule in a file, the one of a kind of fault by its name, or one drawn: `seed:7`."""
    if name in EACH_KIND:
        return EACH_KIND[name]
    if name.startswith(SEED):
        if not name.removeprefix(SEED).isdigit():
            raise UsageError(f"'{name}' is no seed; it looks like seed:7")
        return drawn(int(name.removeprefix(SEED)))
    if not Path(name).exists():
        raise UsageError(f"there is no schedule '{name}': name a TOML or JSON file, seed:7, or one of {_names()}")
    return read_schedule(Path(name))


def facts_of(played: Played) -> dict[str, object]:
    """Return what came of a play, as JSON has it."""
    facts = asdict(played)
    facts["schedule"] = played.schedule.model_dump(mode="json", exclude_defaults=True)
    for key in ("recovery_rounds", "recovery_s"):
        facts[key] = facts[key] if math.isfinite(facts[key]) else None
    return {"name": played.schedule.name, "holds": played.holds, **facts}


def kinds() -> Table:
    """Return the schedules that have a name, and the links, to be shown."""
    table = Table("name", "what is done")
    for name, schedule in EACH_KIND.items():
        table.add_row(name, ", ".join(fault.model_dump_json(exclude_defaults=True) for fault in schedule.faults))
    for name, link in NAMED.items():
        table.add_row(f"(link) {name}", _link(link))
    return table


def _link(link: Link) -> str:
    rates = [f"{mbit:g} Mbit/s {way}" for mbit, way in ((link.up_mbit, "up"), (link.down_mbit, "down")) if mbit]
    delays = f"{link.delay_ms:g} to {link.delay_ms + link.jitter_ms:g} ms, {link.loss:.1%} lost"
    return ", ".join([*rates, delays])


def _show(played: Played) -> None:
    console = Console(soft_wrap=True)
    for line in played.skipped:
        console.print(f"[yellow]not played[/] {escape(line)}")
    for line in played.refusals:
        console.print(f"[dim]said[/] {escape(line)}")
    for line in played.broken:
        console.print(f"[bold red]broken[/] {escape(line)}")
    if math.isfinite(played.recovery_rounds):
        rounds = f"{played.recovery_rounds:.0f} rounds, {played.recovery_s:.1f} s"
        console.print(f"all had the same bits {rounds} after the last fault")
    console.print("[green]every invariant held[/]" if played.holds else "[bold red]not every invariant held[/]")


def _names() -> str:
    return ", ".join(f"'{name}'" for name in EACH_KIND)


def _preset(config: str) -> Path:
    path = Path(config) if config.endswith(".toml") else PRESETS / f"{config}.toml"
    if not path.is_file():
        raise UsageError(f"there is no preset {config}; give tiny, small, or the path of a TOML file")
    return path
