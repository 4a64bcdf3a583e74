"""What a state directory has of a closed run: its admission key, where it was founded, an invitation, who is revoked.

All of it is the owner's alone (mode 600). What the signatures mean is decided in `dht/invitations.py`.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from configs.errors import PeerError, StateError, UsageError
from configs.files import read_bytes, write_file
from configs.machine import PeerConfig
from configs.run import RunSpec
from dht.admission import HAS_ENDED, HOW_TO_JOIN, Admission
from dht.identity import Identity
from dht.invitations import (
    PASS_S,
    Chain,
    Grant,
    Revocations,
    Right,
    granted,
    invite,
    packed_revocations,
    parse_invitation,
    public_half,
    read_revocations,
    revoke,
    spelled,
)
from dht.membership import ACT_TICKS

log = logging.getLogger(__name__)

KEY_FILE = "admission.key"
INVITATION_FILE = "invitation"
REVOCATIONS_FILE = "revocations"
IDENTITY_FILE = "identity.key"
DAY_S = 86_400.0
OWN_DAYS = 3650.0  # of the invitation that the owner of the admission key writes for himself
SOON_S = 3 * DAY_S  # before its end an invitation is worth a warning
ALL: frozenset[Right] = frozenset({"invite", "read", "train"})
SECRET = 0o600


@dataclass(frozen=True)
class Home:
    """Whose invitation a command shows that visits a run: that of a state directory, or one that is put there now."""

    state_dir: Path
    invitation: str | None = None


def open_admission(config: PeerConfig, identity: Identity, saved: RunSpec | None) -> Admission | None:
    """Return what a daemon shows at the door of its run; None for an open one. Closes one to be founded.

    `saved` is the run of the state directory. Raises UsageError (an invitation that does not fit, --closed for a run
    that is open), StateError (the invitation of a closed run is missing or has ended).
    """
    state_dir, now = config.state_dir, time.time()
    if config.closed and saved is not None and saved.admission is None:
        raise UsageError(
            f"the run in {state_dir} was founded as an open one and stays so; give another --state-dir to found a "
            "closed one"
        )
    if config.invitation is not None:
        take_invitation(state_dir, identity, config.invitation, saved)
    key = _key(state_dir)
    if key is None and config.closed and saved is None and not config.initial_peers:
        key = Ed25519PrivateKey.generate()
        write_file(state_dir / KEY_FILE, key.private_bytes_raw().hex().encode(), mode=SECRET, is_new=True)
    is_own = key is not None and (saved.admission == public_half(key) if saved else config.closed)
    if key is not None and is_own and _ends_soon(state_dir, now, OWN_DAYS * DAY_S / 2):
        chain = invite(key, public_half(key), identity.peer_id, ALL, now, now + OWN_DAYS * DAY_S)
        write_file(state_dir / INVITATION_FILE, spelled(chain).encode(), mode=SECRET)
    if saved is not None and saved.admission is None:
        return None
    own = own_chain(state_dir)
    if own is None or (saved is None and not config.initial_peers and not is_own):
        if saved is not None:
            raise StateError(f"{state_dir / INVITATION_FILE} is missing: {HOW_TO_JOIN}, with --invitation")
        return None
    grant = _checked(own, identity.peer_id)
    if saved is not None and own[0].admission != saved.admission:
        raise StateError(f"{state_dir / INVITATION_FILE} is for another run: {HOW_TO_JOIN}, with --invitation")
    if "train" not in grant.rights:
        raise UsageError("this invitation is to read (`shoal ask`, `shoal fuse`), and a daemon trains; ask for another")
    admission = own[0].admission
    return Admission(admission, own, _revocations(state_dir, admission), partial(_keep, state_dir / REVOCATIONS_FILE))


def open_visitor(home: Home, visitor: Identity) -> Admission | None:
    """Return what a command shows at the door: a pass of an hour, signed by the state directory's identity.

    The identity itself is the daemon's, which may be running. None without an invitation: an open run needs none.
    Raises UsageError: the invitation is another's, or has ended.
    """
    path = home.state_dir / IDENTITY_FILE
    if home.invitation is None and not (home.state_dir / INVITATION_FILE).exists():
        return None
    identity = Identity.load_or_create(path)
    if home.invitation is not None:
        take_invitation(home.state_dir, identity, home.invitation, None)
    own, now = own_chain(home.state_dir), time.time()
    assert own is not None
    _checked(own, identity.peer_id)
    chain = invite(identity, own[0].admission, visitor.peer_id, {"read"}, now, now + PASS_S, own)
    return Admission(own[0].admission, chain, is_visiting=True)


def take_invitation(state_dir: Path, identity: Identity, text: str, saved: RunSpec | None) -> Grant:
    """Put an invitation into a state directory, in the place of the last. Raises UsageError, StateError."""
    chain = parse_invitation(text)
    grant = _checked(chain, identity.peer_id)
    if saved is not None and saved.admission != chain[0].admission:
        raise UsageError(f"the invitation is for another run than the one in {state_dir}; give another --state-dir")
    write_file(state_dir / INVITATION_FILE, spelled(chain).encode(), mode=SECRET)
    return grant


def invite_peer(state_dir: Path, peer_id: str, rights: Collection[Right], days: float) -> str:
    """Return an invitation for a peer, as one word. Raises UsageError: this peer may not invite, or not to that."""
    now, own, key = time.time(), own_chain(state_dir), _key(state_dir)
    if own is None:
        raise UsageError(f"{state_dir} is in no closed run; found one with `shoal start --closed`")
    until = now + days * DAY_S
    if key is not None and public_half(key) == own[0].admission:
        acts = _revocations(state_dir, public_half(key)).revoked.get(peer_id, 0.0)
        if acts >= now:
            raise UsageError(f"{peer_id} is being revoked; invite it again in {acts - now:.0f} s")
        return spelled(invite(key, public_half(key), peer_id, rights, now, until))
    grant = granted(own, own[0].admission)
    if "invite" not in grant.rights:
        raise UsageError("this peer may not invite; ask whoever invited it for an invitation with --may-invite")
    if "invite" in rights:
        raise UsageError("only who has the admission key gives the right to invite; leave out --may-invite")
    identity = Identity.load_or_create(state_dir / IDENTITY_FILE)
    return spelled(invite(identity, own[0].admission, peer_id, rights, now, min(until, grant.until), own))


def revoke_peers(state_dir: Path, peer_ids: Collection[str], tick_s: float) -> float:
    """Put peers on the list of those that are out; return when that acts (wall-clock seconds).

    Raises UsageError: the admission key is elsewhere.
    """
    key = _key(state_dir)
    if key is None:
        raise UsageError(
            f"{state_dir} has no admission key: revoke where the run was founded, or restore that peer's backup here"
        )
    before = _revocations(state_dir, public_half(key))
    now = time.time()
    acts = now + ACT_TICKS * tick_s
    # Who was out already, and perhaps was invited again since, must not be let in until `acts`.
    after = revoke(key, before, {peer: now if peer in before.revoked else acts for peer in peer_ids})
    write_file(state_dir / REVOCATIONS_FILE, packed_revocations(after), mode=SECRET)
    return acts


async def take_up_revocations(admission: Admission | None, state_dir: Path) -> None:
    """Take up the list of revocations that was written into the state directory, and show it to everybody."""
    written = await asyncio.to_thread(read_bytes, state_dir / REVOCATIONS_FILE)
    if admission is not None and written:
        admission.take_revocations(bytes(written))


def own_chain(state_dir: Path) -> Chain | None:
    """Return the invitation in a state directory. Raises StateError if it is damaged."""
    data = read_bytes(state_dir / INVITATION_FILE)
    if data is None:
        return None
    try:
        return parse_invitation(data.decode("ascii", "replace"))
    except UsageError:
        raise StateError(f"{state_dir / INVITATION_FILE} is damaged; paste it again with --invitation") from None


def end_of_invitation(admission: Admission, now: float) -> str:
    """Say that this peer's invitation is about to end, and what to do; nothing while there is time."""
    if admission.grant.until - now > SOON_S:
        return ""
    day = datetime.fromtimestamp(admission.grant.until, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"this peer's invitation ends on {day}: ask whoever invited it for `shoal invite {admission.grant.peer_id}`, "
        "then leave, and start again with --invitation"
    )


def _checked(chain: Chain, peer_id: str) -> Grant:
    """Return what an invitation allows to this peer. Raises UsageError."""
    try:
        grant = granted(chain, chain[0].admission)
    except PeerError as error:
        raise UsageError(f"{error}; paste the whole line that `shoal invite` printed") from None
    if grant.peer_id != peer_id:
        raise UsageError(
            f"the invitation is for peer {grant.peer_id}, and this is {peer_id}; ask for one for this peer, or give "
            "the --state-dir of that one"
        )
    if not grant.holds(time.time(), {}):
        raise UsageError(f"the invitation does not hold now: {HAS_ENDED}; is this machine's clock right?")
    return grant


def _ends_soon(state_dir: Path, now: float, within_s: float) -> bool:
    own = own_chain(state_dir)
    return own is None or granted(own, own[0].admission).until - now < within_s


def _key(state_dir: Path) -> Ed25519PrivateKey | None:
    path = state_dir / KEY_FILE
    data = read_bytes(path)
    if data is None:
        return None
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(data.decode("ascii").strip()))
    except ValueError:
        raise StateError(f"{path} is damaged; restore it from the backup of this identity") from None


def _revocations(state_dir: Path, admission: str) -> Revocations:
    data = read_bytes(state_dir / REVOCATIONS_FILE)
    if data is None:
        return Revocations(admission=admission)
    try:
        return read_revocations(bytes(data), admission)
    except PeerError as error:
        raise StateError(
            f"{state_dir / REVOCATIONS_FILE} is damaged ({error}); move it away, the other peers have it"
        ) from None


def _keep(path: Path, data: bytes) -> None:
    """Write a newer list of revocations; a disk that refuses costs no more than a warning."""
    try:
        write_file(path, data, mode=SECRET)
    except StateError as error:
        log.warning("%s", error)
