"""The commands about who takes part: a peer's identity, invitations to a closed run, and its members."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from configs.errors import NetworkError, StateError, UsageError
from peer.commands.options import Json, StateDir, place_of
from peer.http import local

WHO = "Who takes part"

app = typer.Typer()
identity = typer.Typer(
    help="Show this machine's peer id, back up what makes it this peer, or restore that.", no_args_is_help=True
)
app.add_typer(identity, name="identity", rich_help_panel=WHO)

PeerIdArgument = Annotated[str, typer.Argument(help="As `shoal identity show` prints it.", metavar="PEER_ID")]


@identity.command()
def show(state_dir: StateDir = None) -> None:
    """Print this machine's peer id; makes one when there is none. Send it to whoever may invite you."""
    from dht.identity import Identity
    from peer.member.invited import IDENTITY_FILE

    print(Identity.load_or_create(place_of(state_dir) / IDENTITY_FILE).peer_id)


@identity.command()
def backup(
    file: Annotated[Path, typer.Argument(help="To write; keep it secret.", metavar="FILE")], state_dir: StateDir = None
) -> None:
    """Write what makes this machine this peer into one file: its keys and its invitation."""
    from peer.member.backup import back_up

    peer_id = back_up(place_of(state_dir), file)
    print(f"wrote {file}: whoever has it is {peer_id}")


@identity.command()
def restore(
    file: Annotated[Path, typer.Argument(help="That `shoal identity backup` wrote.", metavar="FILE")],
    state_dir: StateDir = None,
) -> None:
    """Make a state directory the peer's whose backup this is. No two machines may be one peer at once."""
    from peer.member.backup import restore as put_back

    place = place_of(state_dir)
    with local.hold_state_dir(place):
        peer_id = put_back(file, place)
    print(f"{place} is now {peer_id}")


@app.command(rich_help_panel=WHO)
def invite(
    peer_id: PeerIdArgument,
    days: Annotated[float, typer.Option(help="That the invitation lasts.", min=0.01, max=3650)] = 90.0,
    read_only: Annotated[bool, typer.Option("--read-only", help="To ask and fuse, not to train.")] = False,
    may_invite: Annotated[bool, typer.Option("--may-invite", help="Who may invite others, who may not.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Print the line by which one peer joins this closed run. The same again renews it."""
    place = place_of(state_dir)
    _check_peer_id(peer_id)
    if read_only and may_invite:
        raise UsageError("who may only read cannot invite; leave out --read-only or --may-invite")
    from peer.member.entry import saved_spec
    from peer.member.invited import invite_peer

    rights = {"read"} if read_only else {"read", "train"} | ({"invite"} if may_invite else set())
    word = invite_peer(place, peer_id, rights, days)  # type: ignore[arg-type]
    try:
        addresses = local.fetch_status(place).addresses
    except (StateError, NetworkError):
        print(f"no daemon runs in {place}: put the address of any peer in the place of ADDRESS", file=sys.stderr)
        addresses = []
    address = addresses[0] if addresses else "ADDRESS"
    begin = f"ask {address} PROMPT" if read_only else f"join {address}"
    spec = saved_spec(place)
    print(f"shoal {begin} --run {'ID' if spec is None else spec.run_id} --invitation {word}")


@app.command(rich_help_panel=WHO)
def revoke(
    peer_ids: Annotated[list[str], typer.Argument(help="As `shoal members` prints them.", metavar="PEER_ID...")],
    state_dir: StateDir = None,
) -> None:
    """Put peers out of this closed run, everywhere. Needs the admission key: the founder's state directory."""
    place = place_of(state_dir)
    for peer_id in peer_ids:
        _check_peer_id(peer_id)
    from peer.member.entry import saved_spec
    from peer.member.invited import revoke_peers

    spec = saved_spec(place)
    if spec is None or spec.admission is None:
        raise UsageError(f"{place} is in no closed run; found one with `shoal start --closed`")
    acts = revoke_peers(place, peer_ids, spec.rounds.tick_seconds)
    when = f"out from {datetime.fromtimestamp(acts, UTC):%H:%M:%S} UTC on"
    try:
        local.post_action(place, "revocations")
    except StateError:
        print(f"{when}; no daemon runs in {place}: it tells the others as soon as it starts")
    else:
        print(f"{when}; this machine's daemon has told the others")


@app.command(rich_help_panel=WHO)
def members(as_json: Json = False, state_dir: StateDir = None) -> None:
    """List who was admitted to this closed run, as this machine's daemon has seen it."""
    status = local.fetch_status(place_of(state_dir))
    if as_json:
        print("[" + ", ".join(member.model_dump_json() for member in status.members) + "]")
        return
    if not status.is_closed:
        print("this run is open: whoever reaches a peer may take part; `shoal status` shows who is there")
        return
    for member in sorted(status.members, key=lambda m: (not m.holds, m.peer_id)):
        by = f", invited by {member.invited_by}" if member.invited_by else ""
        until = f"until {datetime.fromtimestamp(member.until, UTC):%Y-%m-%d}"
        state = until if member.holds else "out: " + ("ended" if member.until <= time.time() else "revoked")
        print(f"{member.peer_id}  {'+'.join(member.rights)}  {state}{by}")


def _check_peer_id(text: str) -> None:
    from pydantic import TypeAdapter, ValidationError

    from configs.names import PeerId

    try:
        TypeAdapter(PeerId).validate_python(text)
    except ValidationError:
        raise UsageError(f"'{text[:80]}' is no peer id; the other side sees its own by `shoal identity show`") from None
