"""Who is admitted to a closed run, as this peer knows it: by its own invitation, those of others, who is revoked.

Invitations reach a peer in two ways: whoever calls it presents his own (`dht/presenting.py`), and with each record in
the DHT travels that of its signer (`vouch`, `vouched`). The list of revocations is passed on with every presentation.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgpack

from configs.errors import PeerError
from dht.invitations import (
    MAX_CHAIN_BYTES,
    MAX_REVOCATIONS_BYTES,
    Chain,
    Grant,
    Revocations,
    Right,
    granted,
    packed_chain,
    packed_revocations,
    read_chain,
    read_revocations,
)
from dht.records import MAX_RECORD_BYTES

log = logging.getLogger(__name__)

MAX_PRESENTATION_BYTES = MAX_CHAIN_BYTES + MAX_REVOCATIONS_BYTES + 16  # an invitation, and a list of revocations
MAX_VALUE_BYTES = MAX_CHAIN_BYTES + MAX_RECORD_BYTES + 16  # a record, and the invitation of who signs it
MAX_KNOWN = 4096  # admitted peers that are remembered; passes are forgotten first
HOW_TO_JOIN = (
    "this run is closed: send your peer id, which `shoal identity show` prints, to somebody who may invite; "
    "`shoal invite` there prints the line to paste here"
)
HAS_ENDED = "this peer was revoked, or its invitation has ended: ask for a new one"


class Admission:
    """The door of one closed run. `key` is the run's public admission key, in hex; `own` this peer's invitation."""

    def __init__(
        self,
        key: str,
        own: Chain,
        revocations: Revocations | None = None,
        keep: Callable[[bytes], None] = lambda data: None,
        *,
        is_visiting: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take what the state directory has; `keep` writes a newer list of revocations into it.

        Who `is_visiting` also talks to peers that present nothing: those of an open run.
        """
        self.key, self.own, self.own_bytes = key, own, packed_chain(own)
        self.grant = granted(own, key)
        self.is_visiting = is_visiting
        self.revocations = revocations or Revocations(admission=key)
        self._keep, self._now = keep, now
        self.on_newer: Callable[[], None] = lambda: None  # called when a newer list of revocations has come
        self._known: dict[str, Grant] = {self.grant.peer_id: self.grant}

    def allows(self, peer_id: str, right: Right) -> bool:
        """Whether a peer whose invitation is known may do this now."""
        grant = self._known.get(peer_id)
        return grant is not None and right in grant.rights and grant.holds(self._now(), self.revocations.revoked)

    def known(self) -> dict[str, Grant]:
        """Return everybody whose invitation was seen, also those that ended."""
        return dict(self._known)

    def nonce(self, peer_id: str) -> str:
        """Return what its invitation adds to a peer's draws, so that nobody tries out identities for a good one."""
        grant = self._known.get(peer_id)
        return "" if grant is None else grant.nonce

    def left_out(self, now: float) -> set[str]:
        """Return who, of all that are known, may not train at `now` (wall-clock seconds): all peers say the same."""
        revoked = self.revocations.revoked
        return {p for p, grant in self._known.items() if "train" not in grant.rights or not grant.holds(now, revoked)}

    def take(self, peer_id: str, data: bytes) -> Grant:
        """Take in the invitation of a peer, which it or its record has brought.

        Raises PeerError: it is none, another's or another run's, has ended, or was revoked.
        """
        grant = _checked(data, self.key)
        if grant.peer_id != peer_id:
            raise PeerError(f"{peer_id} brings the invitation of {grant.peer_id}")
        if not grant.holds(self._now(), self.revocations.revoked):
            raise PeerError(HAS_ENDED)
        known = self._known.get(peer_id)
        if known is None or known.until <= grant.until or not known.holds(self._now(), self.revocations.revoked):
            self._known[peer_id] = grant
            self._make_room()
        return grant

    def take_revocations(self, data: bytes) -> None:
        """Take in a list of revocations, if it is newer; it is kept, and passed on. Raises PeerError."""
        found = read_revocations(data, self.key)
        if found.version > self.revocations.version:
            self.revocations = found
            log.info("revocations: version %d, %d peers", found.version, len(found.revoked))
            self._keep(data)
            self.on_newer()

    def presentation(self) -> bytes:
        """Return what this peer shows to another: its invitation, and the list of revocations."""
        version = self.revocations.version
        return bytes(msgpack.packb([self.own_bytes, packed_revocations(self.revocations) if version else b""]))

    def meet(self, peer_id: str, presented: bytes) -> None:
        """Take in what another peer has shown. Raises PeerError."""
        chain, revocations = _pair(presented, MAX_PRESENTATION_BYTES)
        if revocations:
            self.take_revocations(revocations)
        self.take(peer_id, chain)

    def vouch(self, record: bytes) -> bytes:
        """Return a record of this peer's as it lies in the DHT of a closed run: with the invitation of its signer."""
        return bytes(msgpack.packb([self.own_bytes, record]))

    def vouched(self, peer_id: str, value: bytes) -> bytes:
        """Return the record of a peer that may train, of what lies in the DHT. Raises PeerError."""
        chain, _, record = _opened(value, self.key)
        self.take(peer_id, chain)
        return record

    def all_vouched(self, values: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the records, by peer, of those who may train; a bad one costs itself and no other."""
        records = {}
        for peer_id, value in values.items():
            try:
                records[peer_id] = self.vouched(peer_id, value)
            except PeerError as error:
                log.debug("a record was refused: %s", error)
        return records

    def _make_room(self) -> None:
        if len(self._known) <= MAX_KNOWN:
            return
        now = self._now()
        for peer in sorted(self._known, key=lambda p: (self._known[p].until > now, self._known[p].until)):
            if peer != self.grant.peer_id and len(self._known) > MAX_KNOWN:
                del self._known[peer]


def unvouched(value: bytes, key: str) -> tuple[str, bytes]:
    """Return whose invitation lies with a record of a closed run, and the record. Asks no clock, so all nodes agree.

    Raises PeerError.
    """
    _, grant, record = _opened(value, key)
    return grant.peer_id, record


def _opened(value: bytes, key: str) -> tuple[bytes, Grant, bytes]:
    """Return the invitation that lies with a record, what it grants, and the record. Raises PeerError."""
    chain, record = _pair(value, MAX_VALUE_BYTES)
    grant = _checked(chain, key)
    if "train" not in grant.rights:
        raise PeerError(f"{grant.peer_id} may read, and writes a record")
    return chain, grant, record


@lru_cache(maxsize=4096)  # a member's invitation lies with each of its records
def _checked(data: bytes, key: str) -> Grant:
    return granted(read_chain(data), key)


def _pair(data: bytes, max_bytes: int) -> tuple[bytes, bytes]:
    if len(data) > max_bytes:
        raise PeerError(f"{len(data)} bytes, of which {max_bytes} are allowed")
    try:
        pair: Any = msgpack.unpackb(data, max_ext_len=0, max_map_len=0, max_array_len=2)
    except Exception as error:  # msgpack raises half a dozen kinds
        raise PeerError(f"not msgpack: {type(error).__name__}") from None
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(each, bytes) for each in pair):
        raise PeerError("neither an invitation nor what goes with it")
    return pair[0], pair[1]
