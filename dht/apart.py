"""Members whose protocol this version does not understand: they count for nothing here, but people should know why."""

from dataclasses import dataclass, field

from configs.errors import PeerError
from dht.records import open_envelope

MAX_APART = 64  # that are remembered, those told last


@dataclass
class Apart:
    """Who of the run speaks other protocols, by their last records. Times in wall-clock seconds."""

    _told: dict[str, tuple[str, float]] = field(default_factory=dict)  # peer → why it is apart, issued

    def note(self, peer_id: str, data: bytes, reason: str, latest: float) -> None:
        """Remember the record that a peer has signed, as `reason` says why it cannot be read; `latest`: not after."""
        try:
            signed = open_envelope(data)
        except PeerError:
            return
        _, before = self._told.get(peer_id, ("", 0.0))
        if signed.peer_id == peer_id and before <= signed.issued <= latest:
            self._told.pop(peer_id, None)
            self._told[peer_id] = reason, signed.issued
            if len(self._told) > MAX_APART:
                del self._told[next(iter(self._told))]

    def understood(self, peer_id: str, issued: float) -> None:
        """Forget about a peer that has written a record since which can be read: it has another version now."""
        if peer_id in self._told and issued >= self._told[peer_id][1]:
            del self._told[peer_id]

    def since(self, when: float) -> dict[str, str]:
        """Return the peers whose last record is of `when` or later, and why each of them is apart."""
        return {peer: reason for peer, (reason, issued) in self._told.items() if issued >= when}
