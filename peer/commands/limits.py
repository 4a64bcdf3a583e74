"""The command that shows and changes what a running daemon may take."""

import json
from typing import Annotated, Any

import typer

from configs.errors import UsageError
from peer.commands.options import LIMIT_OPTIONS, Json, StateDir, place_of, takes
from peer.http import local

app = typer.Typer()
CAPS = [name for name in LIMIT_OPTIONS if not name.startswith("pause_on")]  # that can be taken away
NO_OPTIONS: dict[str, Any] = {
    f"no_{name}": Annotated[
        bool, typer.Option(f"--no-{name.replace('_', '-')}", help=f"Take away --{name.replace('_', '-')}.")
    ]
    for name in CAPS
}


@app.command(rich_help_panel="This machine's peer")
@lambda command: takes({**LIMIT_OPTIONS, **NO_OPTIONS}, command)
def limits(as_json: Json = False, state_dir: StateDir = None, **given: Any) -> None:
    """Show what the running daemon may take, or change it: at once, and for its next start."""
    place = place_of(state_dir)
    change = {name: given[name] for name in LIMIT_OPTIONS if given.get(name) is not None}
    for name in CAPS:
        if given.get(f"no_{name}"):
            if name in change:
                option = name.replace("_", "-")
                raise UsageError(f"--{option} and --no-{option} say different things; give one of them")
            change[name] = None
    found = local.change_limits(place, change) if change else local.fetch_limits(place)
    print(json.dumps(found, indent=1) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    """Return the limits as people read them, a line for each."""
    return [_line(name, each) for name, each in found.items()]


def _line(name: str, each: dict[str, Any]) -> str:
    value, unit = each["value"], each["unit"]
    shown = "none" if value is None else ("yes" if value else "no") if isinstance(value, bool) else f"{value} {unit}"
    now = f" ({each['now']})" if each["now"] else ""
    return f"{name:<16} {shown}{now}\n{'':<16} {each['meaning']}"
