"""Who is left out of every view: who has signed two offers for one round and, in a closed run, who is not admitted.

A proof is two signed headers. Whoever meets one writes it into the DHT, whoever reads it checks the signatures, and it
acts two ticks after it was written, as all membership does. Nobody is believed: only the accused can have signed both.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from configs.clock import Clock
from configs.errors import NetworkError, PeerError
from dht.membership import ACT_TICKS, EARLY_S
from dht.network import Network
from dht.records import MAX_PROOFS, ExclusionRecord, exclusion_key, open_entries, sign_record
from protocols.offers import Offers
from protocols.parcels import convicted

log = logging.getLogger(__name__)

EXCLUDED_TICKS = 720  # from the round of the two offers on: an identity that was started twice by mistake comes back
READ_TICKS = 2  # between two looks at what others have written
RENEW_TICKS = 4  # between two writings of what this peer knows
MAX_FOUND = 64  # peers whose proofs are looked at
MAX_OF_PEER = 2  # proofs against one peer that are kept, the latest

Envelopes = tuple[bytes, bytes]


@dataclass(frozen=True)
class Exclusion:
    """One peer that is left out from the tick `acts` on, for two offers for one round of a block."""

    peer: str
    block: str
    round: int
    acts: int  # tick
    envelopes: Envelopes

    @property
    def until(self) -> int:
        """The tick at which it counts again: told by the offers, so it is the same for everybody."""
        return self.round + EXCLUDED_TICKS


class Exclusions:
    """What is known of who signed two offers for one round, found here or read in the DHT."""

    def __init__(self, network: Network, run_id: str, clock: Clock, offers: Offers) -> None:
        self._network, self._run_id, self._clock, self._offers = network, run_id, clock, offers
        self._known: dict[tuple[str, str, int], Exclusion] = {}  # by peer, block and round
        self._written: set[tuple[str, str, int]] = set()  # of which this peer has told others
        self._renewal = 0  # tick at which it tells them again

    def at(self, tick: int) -> frozenset[str]:
        """Return the peers that are in no view at `tick`.

        It follows from the proofs, whoever has told them, and from the invitations and the list of revocations.
        """
        admission = self._network.admission
        not_admitted = () if admission is None else admission.left_out(self._clock.time_of(tick))
        return self._two_faced(tick).union(not_admitted)

    def of_this_peer(self, tick: int) -> str:
        """Say why this peer itself is left out at `tick`, and what to do; nothing if it is not."""
        me = self._network.peer_id
        if ends := [each.until for each in self._acting(tick) if each.peer == me]:
            return (
                "this peer has signed two offers for one round: is it running twice, from copies of one state "
                f"directory? End one of them, and run shoal resume after tick {max(ends)}"
            )
        if me in self.at(tick):
            return "this peer was revoked, or its invitation has ended: ask for a new one, start with --invitation"
        return ""

    def _two_faced(self, tick: int) -> frozenset[str]:
        return frozenset(each.peer for each in self._acting(tick))

    def _acting(self, tick: int) -> list[Exclusion]:
        return [each for each in self._known.values() if each.acts <= tick < each.until]

    def told(self, tick: int) -> list[str]:
        """Say of each peer that is or will be left out, for how long and why."""
        return [describe(each) for _, each in sorted(self._known.items()) if tick < each.until]

    async def keep_up(self, tick: int) -> None:
        """Take in what was met in rounds and, every second tick, what others have written; write what is new."""
        self._known = {about: each for about, each in self._known.items() if tick < each.until}
        for proof in self._offers.proofs.values():
            self._take(proof.envelopes, tick, tick)
        if tick % READ_TICKS == 0:
            await self._read(tick)
        latest = dict(sorted(self._known.items(), key=lambda known: -known[1].round)[:MAX_PROOFS])
        if latest.keys() - self._written or (latest and tick >= self._renewal):
            self._written, self._renewal = set(latest), tick + RENEW_TICKS
            await self._write([each.envelopes for each in latest.values()])

    async def _read(self, tick: int) -> None:
        key, latest = exclusion_key(self._run_id), self._clock.now() + EARLY_S
        try:
            found = await self._network.fetch(key)
        except NetworkError as error:
            log.debug("exclusions were not read: %s", error)
            return
        for entry in open_entries(found, MAX_FOUND, "exclusion", ExclusionRecord, key, latest).values():
            written = max(0, int((entry.issued - self._clock.genesis) // self._clock.tick_seconds))
            for one, other in entry.record.proofs:
                self._take((bytes.fromhex(one), bytes.fromhex(other)), written, tick)

    def _take(self, envelopes: Envelopes, written: int, tick: int) -> None:
        """Take in a proof that was written at a tick, unless it is known, proves nothing, or acts no more."""
        try:
            header = convicted(*envelopes, self._run_id)
        except PeerError as error:
            log.debug("a proof was refused: %s", error)
            return
        about = header.peer, header.block, header.round
        each = Exclusion(*about, max(written, header.round) + ACT_TICKS, envelopes)
        known = self._known.get(about)
        if tick >= each.until or (known is not None and known.acts <= each.acts):
            return
        if known is None:
            log.warning("%s", describe(each))
        self._known[about] = each
        of_peer = sorted((other for other in self._known if other[0] == header.peer), key=lambda other: other[2])
        for least in of_peer[:-MAX_OF_PEER]:  # who accuses himself without end crowds out nobody
            del self._known[least]

    async def _write(self, proofs: Sequence[Envelopes]) -> None:
        now = self._clock.now()
        record = ExclusionRecord(run_id=self._run_id, proofs=[(one.hex(), other.hex()) for one, other in proofs])
        data = sign_record(self._network.identity, "exclusion", record, now)
        expires = now + record.lifetime_s(self._clock.tick_seconds)
        await self._network.store(record.key, self._network.peer_id, data, expires)


def describe(each: Exclusion) -> str:
    """Say who is left out, why and for how long."""
    return (
        f"{each.peer} is left out from tick {each.acts} to {each.until}: it has signed two offers for round "
        f"{each.round} of {each.block}"
    )
