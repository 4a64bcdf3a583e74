"""What makes a state directory this peer, in one file that can be put away: keys and invitation, nothing of the run."""

import base64
import binascii
from pathlib import Path

from configs.errors import DataError, StateError
from configs.files import read_bytes, read_json, write_file, write_json
from dht.identity import Identity
from peer.member.invited import IDENTITY_FILE, INVITATION_FILE, KEY_FILE, REVOCATIONS_FILE, SECRET

FILES = (IDENTITY_FILE, KEY_FILE, INVITATION_FILE, REVOCATIONS_FILE)
REMEDY = "give what `shoal identity backup` wrote"
MAX_FILE_BYTES = 128 << 10


def back_up(state_dir: Path, file: Path) -> str:
    """Write a backup that only its owner can read; return the peer id. Raises StateError, DataError (it exists)."""
    if file.exists():
        raise DataError(f"{file} already exists; choose another name")
    if not (state_dir / IDENTITY_FILE).exists():
        raise StateError(f"{state_dir} has no identity yet; `shoal identity show` makes one")
    peer_id = Identity.load_or_create(state_dir / IDENTITY_FILE).peer_id
    found = {name: read_bytes(state_dir / name) for name in FILES}
    held = {name: base64.b64encode(data).decode() for name, data in found.items() if data is not None}
    write_json(file, {"peer_id": peer_id, "files": held}, mode=SECRET)
    return peer_id


def restore(file: Path, state_dir: Path) -> str:
    """Put a backup into a state directory that is nobody else's; return the peer id. Raises StateError, DataError."""
    backup = read_json(file, REMEDY, DataError)
    if backup is None:
        raise DataError(f"there is nothing at {file}; {REMEDY}")
    try:
        held = backup["files"]
        files = {name: base64.b64decode(held[name], validate=True) for name in FILES if name in held}
        peer_id = str(backup["peer_id"])
    except (LookupError, TypeError, ValueError, binascii.Error):
        raise DataError(f"{file} is no backup of an identity; {REMEDY}") from None
    if IDENTITY_FILE not in files or any(len(data) > MAX_FILE_BYTES for data in files.values()):
        raise DataError(f"{file} is no backup of an identity; {REMEDY}")
    path = state_dir / IDENTITY_FILE
    if path.exists() and path.read_bytes() != files[IDENTITY_FILE]:
        raise StateError(
            f"{state_dir} is another peer's already ({Identity.load_or_create(path).peer_id}); give another --state-dir"
        )
    for name, data in files.items():
        write_file(state_dir / name, data, mode=SECRET)
    if Identity.load_or_create(path).peer_id != peer_id:
        raise DataError(f"{file} holds another identity than it says, so it is damaged; take another backup")
    return peer_id
