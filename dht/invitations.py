"""Who may take part in a closed run: invitations, which its admission key signs, and the list of those revoked.

An invitation names one peer id, what it may do, and until when. Who may `invite` signs for others with its own
identity, once: such a guest cannot invite. Any member may sign a pass of an hour with which its own commands read. What
is presented is the chain of those signatures, from the admission key down. All of it is pure; `dht/admission.py` keeps.
"""

import base64
import binascii
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs.errors import PeerError, UsageError
from configs.names import Count, Digest, PeerId, WallSeconds
from dht.identity import MAX_PUBLIC_KEY_BYTES, MAX_SIGNATURE_BYTES, Identity, verify

Right = Literal["invite", "read", "train"]

PASS_S = 3600.0  # how long a pass lasts at most
MAX_CHAIN = 3  # from the admission key, by one who may invite, to a pass
MAX_CHAIN_BYTES = 4096
MAX_REVOKED = 1024  # peers in one list
MAX_REVOCATIONS_BYTES = 96 << 10
EARLY_S = 300.0  # that an invitation may come from the future: the clock of whoever signed it may be ahead
PREFIX = "shoal-invitation-"  # of the line that people paste
_SIGNED_FOR, _REVOKED_FOR = b"shoal invitation 1\0", b"shoal revocations 1\0"


class Invitation(BaseModel):
    """One link of a chain."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    admission: Digest  # the run's public admission key, in hex
    peer_id: PeerId  # who is invited
    rights: Annotated[tuple[Right, ...], Field(min_length=1, max_length=3, strict=False)]
    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    issued: WallSeconds
    until: WallSeconds
    public_key: Annotated[bytes, Field(max_length=MAX_PUBLIC_KEY_BYTES)] = b""  # of who signs; empty: `admission`
    signature: Annotated[bytes, Field(max_length=MAX_SIGNATURE_BYTES)] = b""

    def signed_bytes(self) -> bytes:
        """Return what the signature is of."""
        said = [self.admission, self.peer_id, list(self.rights), self.nonce, self.issued, self.until, self.public_key]
        return _SIGNED_FOR + bytes(msgpack.packb(said))


Chain = tuple[Invitation, ...]


@dataclass(frozen=True)
class Grant:
    """What a chain whose signatures hold allows to the last peer that it names, from `issued` until `until`."""

    peer_id: str
    rights: frozenset[Right]
    issued: float  # wall-clock seconds, of the last link
    until: float  # of the link that ends first
    path: tuple[tuple[str, float], ...]  # each link's peer, and when it was issued
    nonce: str  # of the last link

    @property
    def invited_by(self) -> str:
        """The peer that signed the invitation; empty for the admission key itself."""
        return self.path[-2][0] if len(self.path) > 1 else ""

    def holds(self, now: float, revoked: Mapping[str, float]) -> bool:
        """Whether it counts at `now`: none of its links has ended or was revoked.

        Whoever was revoked comes back by an invitation of the admission key alone, and one that was issued later.
        """
        if not self.issued - EARLY_S <= now < self.until:
            return False
        for index, (peer, issued) in enumerate(self.path):
            acts = revoked.get(peer)
            if acts is not None and acts <= now and (index > 0 or issued <= acts):
                return False
        return True


class Revocations(BaseModel):
    """Who is out, from when on; a list replaces those with a lower version."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    admission: Digest
    version: Count = 0
    revoked: Annotated[dict[PeerId, WallSeconds], Field(max_length=MAX_REVOKED)] = {}
    signature: Annotated[bytes, Field(max_length=64)] = b""

    def signed_bytes(self) -> bytes:
        """Return what the signature is of."""
        return _REVOKED_FOR + bytes(msgpack.packb([self.admission, self.version, sorted(self.revoked.items())]))


def public_half(key: Ed25519PrivateKey) -> str:
    """Return what stands in the run description of the runs that an admission key closes."""
    return key.public_key().public_bytes_raw().hex()


def invite(
    signer: Ed25519PrivateKey | Identity,
    admission: str,
    peer_id: str,
    rights: Collection[Right],
    now: float,
    until: float,
    before: Chain = (),
) -> Chain:
    """Return the chain that invites a peer, signed by the admission key, or by the last peer that `before` names."""
    link = Invitation(
        admission=admission,
        peer_id=peer_id,
        rights=tuple(sorted(set(rights))),
        nonce=secrets.token_hex(8),
        issued=now,
        until=until,
        public_key=signer.public_key if isinstance(signer, Identity) else b"",
    )
    signature = signer.sign(link.signed_bytes())
    return (*before, link.model_copy(update={"signature": signature}))


def granted(chain: Sequence[Invitation], admission: str) -> Grant:
    """Return what a chain allows by its signatures; whether it still `holds` is asked of the grant.

    Raises PeerError: another run's, a signature that is wrong, more than whoever signed it may give.
    """
    if not 0 < len(chain) <= MAX_CHAIN:
        raise PeerError(f"an invitation of {len(chain)} links")
    before: Invitation | None = None
    for link in chain:
        if link.admission != admission:
            raise PeerError("the invitation is for another run")
        if before is None:
            is_signed = not link.public_key and _holds(admission, link.signature, link.signed_bytes())
        else:
            is_signed = verify(before.peer_id, link.public_key, link.signed_bytes(), link.signature)
        if not is_signed:
            raise PeerError(f"the invitation of {link.peer_id} bears a wrong signature")
        if before is not None and not _may_give(before, link):
            raise PeerError(f"{before.peer_id} may not give {link.peer_id} what the invitation says")
        before = link
    last = chain[-1]
    until = min(link.until for link in chain)
    path = tuple((link.peer_id, link.issued) for link in chain)
    return Grant(last.peer_id, frozenset(last.rights), last.issued, until, path, last.nonce)


def _may_give(giver: Invitation, link: Invitation) -> bool:
    given = set(link.rights)
    if "invite" in giver.rights and given <= set(giver.rights) - {"invite"}:
        return True
    return given == {"read"} and link.until - link.issued <= PASS_S and "read" in giver.rights


def revoke(key: Ed25519PrivateKey, before: Revocations, acts: Mapping[str, float]) -> Revocations:
    """Return the list that follows `before`, with these peers out, each from its time on (wall-clock seconds).

    Raises UsageError when there are more than one list may have: found a new run then.
    """
    admission = public_half(key)
    revoked = {**before.revoked, **acts}
    if len(revoked) > MAX_REVOKED:
        raise UsageError(f"a run can revoke {MAX_REVOKED} peers; found a new one, with an admission key of its own")
    unsigned = Revocations(admission=admission, version=before.version + 1, revoked=revoked)
    return unsigned.model_copy(update={"signature": key.sign(unsigned.signed_bytes())})


def packed_chain(chain: Chain) -> bytes:
    """Return a chain as bytes."""
    return bytes(msgpack.packb([link.model_dump() for link in chain]))


def read_chain(data: bytes) -> Chain:
    """Return the chain in `data`, of which nothing is checked but its form. Raises PeerError, whatever they are."""
    links = _unpacked(data, MAX_CHAIN_BYTES)
    if not isinstance(links, list) or not 0 < len(links) <= MAX_CHAIN:
        raise PeerError("that is no invitation")
    try:
        return tuple(Invitation.model_validate(link) for link in links)
    except ValidationError:
        raise PeerError("that is no invitation") from None


def packed_revocations(revocations: Revocations) -> bytes:
    """Return a list as bytes."""
    return bytes(msgpack.packb(revocations.model_dump()))


def read_revocations(data: bytes, admission: str) -> Revocations:
    """Return the list in `data`. Raises PeerError: it is none, or not signed by this admission key."""
    try:
        found = Revocations.model_validate(_unpacked(data, MAX_REVOCATIONS_BYTES))
    except ValidationError:
        raise PeerError("that is no list of revocations") from None
    if found.admission != admission or not _holds(admission, found.signature, found.signed_bytes()):
        raise PeerError("a list of revocations bears a wrong signature")
    return found


def spelled(chain: Chain) -> str:
    """Return a chain as one word that can be pasted."""
    return PREFIX + base64.urlsafe_b64encode(packed_chain(chain)).decode().rstrip("=")


def parse_invitation(text: str) -> Chain:
    """Return the chain that somebody pasted. Raises UsageError."""
    word = text.strip()
    try:
        data = base64.b64decode(word.removeprefix(PREFIX) + "=" * (-len(word.removeprefix(PREFIX)) % 4), "-_", True)
        if not word.startswith(PREFIX):
            raise PeerError("that is no invitation")
        return read_chain(data)
    except (binascii.Error, ValueError, PeerError):
        begins = ascii(word[:32])[1:-1]
        raise UsageError(
            f"'{begins}…' is no invitation: it begins with {PREFIX} and is one word; paste the whole of it"
        ) from None


def _holds(admission: str, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(admission)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _unpacked(data: bytes, max_bytes: int) -> Any:
    if len(data) > max_bytes:
        raise PeerError(f"{len(data)} bytes, of which {max_bytes} are allowed")
    try:
        return msgpack.unpackb(data, strict_map_key=True, max_ext_len=0)
    except Exception as error:  # msgpack raises half a dozen kinds, down to RecursionError
        raise PeerError(f"not msgpack: {type(error).__name__}") from None
