"""The command line. Each command checks what it can at once and only then imports what its work needs.

Commands that talk to a running daemon never import torch, transformers or hivemind. Results go to stdout, logs and
progress to stderr. `main` turns every `ShoalError` into one line; anything else is a bug and keeps its traceback.
"""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs.errors import ShoalError, UsageError
from configs.files import is_full
from configs.outlets import read_target
from configs.temporary import NOTE, note_temporary, remove_noted
from peer import __version__
from peer.commands import admission, answers, limits, logs, models, preparing, publishing, replay, service
from peer.commands.beginning import RUN_FILE, check_start, founds
from peer.commands.options import (
    Base,
    Config,
    Host,
    InitFrom,
    Invitation,
    Json,
    Port,
    StateDir,
    place_of,
    takes_peer_options,
)
from peer.http import local

if TYPE_CHECKING:
    from configs.load import Settings

log = logging.getLogger(__name__)

app = typer.Typer(
    help="Train one language model on many machines, with nobody in charge. Begin with: shoal demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
PEER, SWARM = "This machine's peer", "Look and try"

_UserMistake: type[Any] = typer.BadParameter.__bases__[0]  # click's UsageError, whichever click typer brings


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and the protocol.", is_eager=True)
    ] = False,
) -> None:
    logs.configure("warning")
    if version:
        from configs.protocol import OLDEST_PROTOCOL, PROTOCOL_VERSION, Spoken

        print(f"shoal {__version__}")
        print(f"protocol {Spoken(protocol=PROTOCOL_VERSION, oldest=OLDEST_PROTOCOL)}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(rich_help_panel=SWARM)
def demo(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Run a swarm on this machine, fuse its model and score it: a first look, in minutes."""
    import peer.commands.demo

    raise typer.Exit(peer.commands.demo.run(as_json=as_json, state_dir=state_dir))


@app.command(rich_help_panel=PEER)
@takes_peer_options
def start(
    config: Config = None,
    init_from: InitFrom = None,
    closed: Annotated[
        bool | None, typer.Option("--closed", help="Only who is invited takes part (shoal invite).")
    ] = None,
    invitation: Invitation = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Go on with a run from where its checkpoint was published.", metavar="TARGET"),
    ] = None,
    **settings: Any,
) -> None:
    """Found a run, or go on with the one in the state directory; prints the line that others join by.

    What is given is kept in the state directory and comes back at the next start: give only what changes.
    """
    if from_ is not None:
        _restore(from_, settings.get("state_dir"))
    _run_daemon(config, init_from=init_from, closed=closed, invitation=invitation, **settings)


@app.command(rich_help_panel=PEER)
@takes_peer_options
def join(
    addresses: Annotated[list[str], typer.Argument(help="Of any peer of the run.", metavar="ADDR...")],
    run: Annotated[str | None, typer.Option("--run", help="Join only this run.", metavar="ID")] = None,
    config: Config = None,
    base: Base = None,
    invitation: Invitation = None,
    **settings: Any,
) -> None:
    """Join a run by the address of any of its peers.

    What is given is kept in the state directory and comes back at the next start: give only what changes.
    """
    if run is not None and (len(run) != 32 or not set(run) <= set("0123456789abcdef")):
        raise UsageError(
            f"'{run}' is no run id: it has 32 hexadecimal digits, as in the line that `shoal status` shows"
        )
    _run_daemon(config, initial_peers=addresses, run_id=run, base=base, invitation=invitation, **settings)


@app.command(rich_help_panel=PEER)
def status(
    where: Annotated[str | None, typer.Argument(help="A state directory or a URL.", metavar="[DIR|URL]")] = None,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again each second.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Show what a daemon and its swarm are doing."""
    place = where or place_of(state_dir)
    if as_json and not watch:
        print(local.fetch_status(place).model_dump_json(indent=1))
        return
    snapshot = None if watch else local.fetch_status(place)
    from peer.commands import terminal  # rich: only once there is something to draw

    if snapshot is None:
        terminal.watch_status(place, as_json=as_json)
    else:
        terminal.show_status(snapshot)


@app.command(rich_help_panel=PEER)
def leave(state_dir: StateDir = None) -> None:
    """Leave the run: hand over, save, and end this machine's daemon."""
    place = place_of(state_dir)
    local.post_action(place, "leave")
    print("leaving: handing over and saving (Ctrl-C ends only the wait)", flush=True)
    local.wait_until_gone(place)
    print(f"left; {place} keeps the peer's identity and state, `shoal start` goes on with it")


@app.command(rich_help_panel=PEER)
def pause(state_dir: StateDir = None) -> None:
    """Stop training until `shoal resume`; the peer stays in the swarm and serves."""
    local.post_action(place_of(state_dir), "pause")
    print("paused; go on with: shoal resume")


@app.command(rich_help_panel=PEER)
def resume(state_dir: StateDir = None) -> None:
    """Train again after `shoal pause`."""
    note = local.post_action(place_of(state_dir), "resume")
    print(f"training again{f', {note}' if note else ''}")


@app.command(rich_help_panel=PEER)
def doctor(
    address: Annotated[str | None, typer.Argument(help="Of a peer that looks from outside.", metavar="[ADDR]")] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Say what is wrong with this machine, its ports, its NAT and its clock, and what to do about it."""
    if address is not None:
        from dht.addresses import parse_address

        parse_address(address)
    from peer.commands.doctor import run

    raise typer.Exit(run(address, as_json=as_json, state_dir=state_dir, host=host, port=port))


@app.command(rich_help_panel=SWARM)
def simulate(
    peers: Annotated[int | None, typer.Option(help="Up to 10,000 were tried (default: 64).", metavar="N")] = None,
    rounds: Annotated[int | None, typer.Option(help="To simulate (20).", metavar="N")] = None,
    group_size: Annotated[int | None, typer.Option(help="Of a group that exchanges offers (8).", metavar="N")] = None,
    fragments: Annotated[int | None, typer.Option(help="Of the anchor, a power of two (32).", metavar="N")] = None,
    pull_clip: Annotated[float | None, typer.Option(help="In pseudo-gradients (8).", metavar="X")] = None,
    churn: Annotated[float | None, typer.Option(help="Share of peers replaced in a round (0).", metavar="X")] = None,
    loss: Annotated[float | None, typer.Option(help="Share of messages that never arrive (0).", metavar="X")] = None,
    delay_ms: Annotated[float | None, typer.Option(help="Mean delay; rounds take 2 s (0).", metavar="X")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same figures (0).", metavar="N")] = None,
    codec: Annotated[str | None, typer.Option(help="Of the offers (int4).", metavar="NAME")] = None,
    as_json: Json = False,
) -> None:
    """Run the code that groups, seals and combines for thousands of peers on a simulated network, beside the theory."""
    given = {name: value for name, value in locals().items() if name != "as_json"}
    from peer.simulate.scenario import read_scenario

    scenario = read_scenario(**given)
    from peer.commands import terminal
    from peer.simulate.run import run

    if not as_json:
        return run(scenario)
    with terminal.progress() as report:
        return run(scenario, report)


@app.command(rich_help_panel=SWARM)
def chaos(
    schedule: Annotated[
        str | None, typer.Argument(help="A TOML or JSON file, seed:N, or a kind of fault; none shows all kinds.")
    ] = None,
    config: Config = None,
    data: Annotated[
        str | None, typer.Option("--data", help="A prepared corpus for --config.", metavar="DIR|URL")
    ] = None,
    as_json: Json = False,
) -> None:
    """Do to a test swarm on this machine what happens to swarms, and say what held all the same."""
    import peer.commands.chaos

    if schedule is None:
        from peer.commands import terminal

        terminal.show(peer.commands.chaos.kinds())
        return
    raise typer.Exit(peer.commands.chaos.run(schedule, config=config, data=data, as_json=as_json))


app.add_typer(replay.app)
app.add_typer(admission.app)
app.add_typer(limits.app)
app.add_typer(service.app)
app.add_typer(preparing.app)
app.add_typer(models.app)
app.add_typer(publishing.app)
app.add_typer(answers.app)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 (it failed), 2 (a user's mistake) or 130 (Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an old terminal must not end a command
    try:
        return int(app(arguments, prog_name="shoal", standalone_mode=False) or 0)
    except ShoalError as error:
        return _complain(str(error), error.exit_code)
    except _UserMistake as error:
        command = error.ctx.command_path if error.ctx else "shoal"
        return _complain(f"{error.format_message().rstrip('.')}; see: {command} --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except OSError as error:
        if is_full(error):
            return _complain("the disk is full; free some space, then try again: what was saved is intact", 1)
        if not isinstance(error, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is flushed into it at exit
        return 1


def _complain(message: str, exit_code: int) -> int:
    print(f"shoal: {' '.join(message.split())}", file=sys.stderr)
    return exit_code


def _run_daemon(config: str | None, **flags: Any) -> None:
    """Check the settings, then become the daemon. Lists that were not given leave the preset's as they are."""
    from configs.kept import recall
    from configs.load import load

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in flags.items() if value != []}
    settings = recall(load(config, **given))
    check_start(settings)
    own = settings.peer
    is_founding = founds(settings)
    logs.configure(own.log_level)
    _say_kept(settings)
    _say_of_run(settings, config, is_founding=is_founding)
    note = own.state_dir / NOTE
    with local.hold_state_dir(own.state_dir), remove_noted(note):  # before the imports, which take seconds
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends them at once; the daemon has its own handler
        from peer.workers.ranks import preload

        note_temporary(note, preload())  # the workers' imports run beside the daemon's own
        import peer.daemon

        peer.daemon.run(settings)


def _restore(target: str, state_dir: Path | None) -> None:
    """Write the published checkpoint of a run into the state directory, unless a run is there already."""
    place, source = place_of(state_dir), read_target(target)
    if (place / RUN_FILE).is_file():
        log.warning("%s has a run already, and goes on with that; --from is for an empty --state-dir", place)
        return
    from peer.publish.restore import restore

    with local.hold_state_dir(place):
        checkpoint = restore(source, place)
    print(
        f"restored run {checkpoint.run_id} ({checkpoint.run_name}) from {source}: {checkpoint.age:,} tokens", flush=True
    )


def _say_of_run(settings: "Settings", config: str | None, *, is_founding: bool) -> None:
    """Say what of the settings does not count for the run: by its strategy, or because it is there already."""
    if is_founding:
        if settings.left_out:
            kind = settings.run.strategy.kind if settings.run is not None else ""
            log.info("%s of %s is left out: strategy %s does not use it", ", ".join(settings.left_out), config, kind)
        if settings.wants_pretrained:
            log.info("%s", FROM_NOTHING)
        return
    ignored = [*settings.run_variables, *([f"[run] of --config {config}"] if config and settings.run else [])]
    if ignored:
        level = logging.WARNING if settings.run_variables else logging.INFO
        log.log(level, "a run never changes once it is founded: what %s says is ignored", " and ".join(ignored))


FROM_NOTHING = (
    "this run begins with random weights: so small a model learns what answers look like, not much of what they say; "
    "with --init-from MODEL-DIR this preset tunes a pretrained model instead"
)


def _say_kept(settings: "Settings") -> None:
    """Say what an earlier start has left to this one; nothing where it makes no difference."""
    from configs.kept import MACHINE_FILE, spell_kept, unknown_keys

    unknown, line = unknown_keys(settings), spell_kept(settings)
    if unknown:
        where = settings.peer.state_dir / MACHINE_FILE
        log.warning("%s holds what this version does not know, and is passed over: %s", where, ", ".join(unknown))
    if line:
        log.info("%s", line)
