"""The addresses of peers seen, on disk: a swarm that was all off overnight finds itself in the morning."""

import json
import logging
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from configs.files import write_file
from configs.names import MAX_ADDRESSES, Address, PeerId
from dht.addresses import addresses_of

log = logging.getLogger(__name__)

MAX_PEERS = 512


class Entry(BaseModel):
    """Where a peer was when it was last heard of."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    addresses: Annotated[tuple[Address, ...], Field(max_length=MAX_ADDRESSES)]
    seen: float  # wall-clock seconds


class _Book(BaseModel):
    model_config = ConfigDict(extra="forbid")

    peers: dict[PeerId, Entry]


class AddressBook:
    """The last known addresses of at most `MAX_PEERS` peers, those seen last."""

    def __init__(self, path: Path) -> None:
        """Read the book at `path`; a missing or damaged one is empty (initial peers can refill it)."""
        self._path = path
        self._peers: dict[str, Entry] = {}
        try:
            self._peers = _Book.model_validate_json(path.read_bytes()).peers
        except FileNotFoundError:
            pass
        except (OSError, ValidationError):
            log.warning("the address book %s is damaged and begins anew", path)

    def peers(self) -> dict[str, list[str]]:
        """Return the addresses of each peer, the one seen last first; all of them can be parsed."""
        latest_first = sorted(self._peers.items(), key=lambda item: -item[1].seen)
        found = {peer_id: addresses_of(peer_id, entry.addresses) for peer_id, entry in latest_first}
        return {peer_id: addresses for peer_id, addresses in found.items() if addresses}

    def note(self, peer_id: str, addresses: list[str], now: float) -> bool:
        """Write down where a peer is; return whether that is news worth a `save`."""
        entry = Entry(addresses=tuple(addresses[:MAX_ADDRESSES]), seen=now)
        known = self._peers.get(peer_id)
        self._peers[peer_id] = entry
        if len(self._peers) > MAX_PEERS:
            del self._peers[min(self._peers, key=lambda peer: self._peers[peer].seen)]
        return known is None or known.addresses != entry.addresses

    def save(self) -> None:
        """Write the book: complete, or not at all. Raises StateError when the disk refuses."""
        data = json.dumps({"peers": {peer: entry.model_dump() for peer, entry in self._peers.items()}}, indent=1)
        write_file(self._path, data.encode())
