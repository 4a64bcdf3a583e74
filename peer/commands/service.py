"""The commands that make a peer a service of its machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from configs.errors import UsageError
from peer.commands.options import StateDir, place_of

if TYPE_CHECKING:
    from peer.service.manager import Service

app = typer.Typer()
service = typer.Typer(
    help="Let systemd or launchd start this machine's peer, now and after each boot.", no_args_is_help=True
)
app.add_typer(service, name="service", rich_help_panel="This machine's peer")

System = Annotated[bool, typer.Option("--system/--user", help="Of the whole machine, by root, or of this user.")]


@service.command()
def install(
    system: System = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be written and done.")] = False,
    user: Annotated[
        str | None, typer.Option("--run-as", help="With --system: as whom; not root, if you can.", metavar="NAME")
    ] = None,
    state_dir: StateDir = None,
) -> None:
    """Write the service and start it: it goes on with the run in the state directory."""
    from peer.service import manager

    if user and not system:
        raise UsageError("--run-as is for --system: a user's service runs as that user; leave it out")
    place = place_of(state_dir).absolute()
    found = _service(place, is_system=system, user=user or "")
    if dry_run:
        print(f"# {found.path}\n{found.content.decode()}")
        commands = [command for command in (*found.install, found.lasting) if command]
        print("\n".join(f"# then: {' '.join(command)}" for command in commands))
        if found.absent:
            print(f"# nothing of this can be done here: {found.absent}")
        return
    note = manager.install(found, place)
    print(f"installed {found.path} and started it; see: shoal service status, shoal status")
    if note:
        print(f"shoal: {note}", file=sys.stderr)


@service.command()
def uninstall(system: System = False, state_dir: StateDir = None) -> None:
    """Let the peer leave, and forget the service; the state directory stays."""
    from peer.service import manager

    found = _service(place_of(state_dir).absolute(), is_system=system)
    is_gone = manager.uninstall(found)
    print(f"uninstalled {found.path}" if is_gone else f"no service is installed (there is no {found.path})")


@service.command()
def status(system: System = False, state_dir: StateDir = None) -> None:
    """Say what the service manager knows of the service."""
    from peer.service import manager

    print(manager.status(_service(place_of(state_dir).absolute(), is_system=system)))


def _service(place: Path, *, is_system: bool, user: str = "") -> "Service":
    from peer.service.definition import Peer
    from peer.service.manager import service_of

    return service_of(Peer(Path(sys.executable), place, user), is_system=is_system)
