"""Who holds which block at which tick: member records, published and read, and the views that follow from them.

Nothing local changes a view, and a record acts `ACT_TICKS` after it was written, so that peers which read it at
different moments still agree. The rules are pure functions; `Membership` reads, writes and remembers.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from configs.clock import Clock
from configs.errors import NetworkError, PeerError, ProtocolError, StateError
from dht.acquaintances import MAX_ON_TRIAL, Acquaintances
from dht.address_book import AddressBook
from dht.addresses import addresses_of
from dht.apart import Apart
from dht.credible import believable
from dht.network import Network
from dht.records import MemberRecord, member_key, open_entry, open_record, sign_record, signer_of

log = logging.getLogger(__name__)

ACT_TICKS = 2  # between writing a record and its effect
HOLD_TICKS = 8  # how long a holding lasts without renewal
assert MemberRecord.lifetime_ticks >= HOLD_TICKS + ACT_TICKS  # so that no holding outlives what says it
RENEW_TICKS = 2  # between two renewals
LATE_TICKS = 2 * RENEW_TICKS  # since the last renewal that was read, after which a known member is asked itself
MAX_ASKED = 4  # members that are asked at one look
FORGET_TICKS = 20 * HOLD_TICKS  # after which a silent peer is no longer listed
EARLY_S = 10.0  # that a record may come from the future and still be believed
MAX_MEMBERS = 1024
TWIN = (
    "another process runs with this peer's identity, perhaps from a copy of its state directory: stop one of them; "
    "a peer of its own begins in an empty one (--state-dir)"
)
KEPT_RECORDS = 16  # of this peer's own, by which it knows them again
REDIAL_PEERS = 16  # of the address book, beside the members

Span = tuple[int, int]  # from_tick (included), until_tick (excluded)
Strides = tuple[tuple[int, int], ...]  # (from_tick, factor), oldest first
KEPT_STRIDES = 4  # changes of a stride that are remembered


@dataclass(frozen=True)
class Member:
    """The last good record of a peer and the holdings that act by it."""

    record: MemberRecord
    issued: float  # wall-clock seconds, by the peer's clock
    issued_tick: int
    holdings: Mapping[str, Span]
    strides: Mapping[str, Strides] = field(default_factory=dict)


def hold(previous: Mapping[str, Span], blocks: Iterable[str], tick: int) -> dict[str, Span]:
    """Return the holdings to publish at `tick` for a peer that holds `blocks` from now on.

    Blocks held without a break keep their first tick, new ones begin and dropped ones end `ACT_TICKS` from now.
    """
    acts = tick + ACT_TICKS
    held = {}
    for block in blocks:
        start, until = previous.get(block, (acts, acts))
        held[block] = (start if until > tick else acts, tick + HOLD_TICKS)
    ending = {block: (start, min(until, acts)) for block, (start, until) in previous.items() if block not in held}
    return held | {block: span for block, span in ending.items() if tick < span[1] and span[0] < span[1]}


def absorb(previous: Member | None, record: MemberRecord, issued: float, issued_tick: int) -> Member:
    """Return what a newer record of a peer makes of it.

    Whatever the record claims, a change acts `ACT_TICKS` after its issue, and nothing is held for longer than
    `HOLD_TICKS`. Only a holding that goes on without a break keeps an earlier beginning:

        before      first ━━━━━━━━━━━━━━━━━┥ last
        record             │ issued  ┝ acts ━━━━━━━━━┥ ends      goes on: first … ends
                           │ issued  ┥                           ends: first … acts, as a record without the block says
        record             │ issued        (a break)  ┝━━━━━┥    begins anew: starts … ends
    """
    acts = issued_tick + ACT_TICKS
    before = {} if previous is None else previous.holdings
    holdings = {}
    for block, (start, until) in record.holdings.items():
        starts = max(start, acts)
        ends = min(until, issued_tick + HOLD_TICKS)
        if block in before:
            first, last = before[block][0], min(before[block][1], acts)  # in effect: no later record changes it
            if before[block][1] >= starts:  # it goes on without a break
                starts, ends = first, max(ends, last)
            elif ends <= starts:  # it ends, and nothing new begins
                starts, ends = first, last
        holdings[block] = (starts, ends)
    for block, (start, until) in before.items():
        if block not in holdings and issued_tick < until:
            holdings[block] = (start, min(until, acts))
    known = {} if previous is None else previous.strides
    strides = {block: _changed(known.get(block, ()), told, acts) for block, told in record.strides.items()}
    return Member(record, issued, issued_tick, holdings, {**known, **strides})


def view_of(members: Mapping[str, Member], block: str, tick: int) -> tuple[str, ...]:
    """Return the peers that hold `block` at `tick`, sorted."""
    return tuple(sorted(p for p, member in members.items() if _covers(member.holdings.get(block), tick)))


def strides_of(members: Mapping[str, Member], block: str, tick: int) -> dict[str, int]:
    """Return the peers that hold `block` at `tick`, each with the number of rounds that make one of its own."""
    holders = view_of(members, block, tick)
    return {peer: _stride_at(members[peer].strides.get(block, ()), tick) for peer in holders}


def present(members: Mapping[str, Member], tick: int) -> tuple[str, ...]:
    """Return the peers that have been heard of lately and are not leaving, sorted."""
    return tuple(sorted(p for p, m in members.items() if not m.record.is_leaving and tick < m.issued_tick + HOLD_TICKS))


def credible(members: Mapping[str, Member]) -> dict[str, Member]:
    """Return the members with what one of them alone says beyond all measure cut down; see `dht/credible.py`."""
    believed = believable({peer: member.record for peer, member in members.items()})
    return {p: m if believed[p] is m.record else replace(m, record=believed[p]) for p, m in members.items()}


def _covers(span: Span | None, tick: int) -> bool:
    return span is not None and span[0] <= tick < span[1]


def _changed(known: Strides, told: tuple[int, int], acts: int) -> Strides:
    """Return the strides of a block after a record that tells one, which acts at `acts` at the earliest."""
    from_tick, factor = told
    is_power = factor & (factor - 1) == 0
    if not is_power or factor == _stride_at(known, max(from_tick, acts)):
        return known
    starts = max(from_tick, acts)
    return (*(change for change in known if change[0] < starts), (starts, factor))[-KEPT_STRIDES:]


def _stride_at(strides: Strides, tick: int) -> int:
    return next((factor for from_tick, factor in reversed(strides) if from_tick <= tick), 1)


class Membership:
    """The members of one run as this peer knows them; its own record is one of them."""

    def __init__(self, network: Network, run_id: str, clock: Clock, book: AddressBook) -> None:
        self._network = network
        self._run_id = run_id
        self._clock = clock
        self._book = book
        self._members: dict[str, Member] = {}
        self._believed: Mapping[str, Member] | None = None  # what is credible of them; None: to be reckoned anew
        self._last_expiration = 0.0
        self._first_issued = float("inf")  # of this peer's records, in this life
        self._own: deque[bytes] = deque(maxlen=KEPT_RECORDS)  # the last of them
        self._records: dict[str, bytes] = {}  # the last of others, as they were signed
        self._twin_tick: int | None = None  # at which somebody else's record with this peer's identity was seen last
        self._acquaintances = Acquaintances(network.peer_id)
        self._apart = Apart()
        network.knows = self.knows  # whose records its node keeps, when it cannot keep all
        self.took_part: Callable[[], Collection[str]] = frozenset  # who is in the state of a block here
        self.ask: Callable[[str], Awaitable[Sequence[bytes]]] | None = None  # a member for the records that it has
        self.excluded: Callable[[int], Collection[str]] = lambda tick: ()  # who is in no view at a tick

    async def publish(self, record: MemberRecord, *, is_listed: bool = True) -> bool:
        """Sign and store this peer's record, which counts here at once; return whether the DHT took it.

        One that need not be listed counts here alone: a list of all peers of a large swarm would grow with it.
        """
        own = self._network.peer_id
        now = self._clock.now()
        if own in self._members:  # a clock that was set back must not make this record older than the last
            now = max(now, self._members[own].issued + 1e-3)
        data = sign_record(self._network.identity, "member", record, now)
        self._take(own, record, now)
        self._first_issued = min(self._first_issued, now)
        self._own.append(data)
        if not is_listed:
            return False
        lifetime_s = record.lifetime_s(self._clock.tick_seconds)
        # A record replaces only one that expires earlier, even when it withdraws it.
        self._last_expiration = max(now + lifetime_s, self._last_expiration + 1e-3)
        return await self._network.store(record.key, own, data, self._last_expiration)

    async def refresh(self) -> None:
        """Read all members' records and see to a connection to each peer; a failed read leaves what is known."""
        connected = await self._network.connected()
        try:
            found = await self._network.fetch(member_key(self._run_id))
        except NetworkError as error:
            log.debug("membership was not read: %s", error)
            found = {}
        if self._is_of_a_twin(found.get(self._network.peer_id)):
            if not self.has_twin:
                log.warning("%s", TWIN)
            self._twin_tick = self._clock.tick()
        self._acquaintances.met(connected)
        self._acquaintances.took_part = self.took_part()
        in_turn = self._acquaintances.in_turn(found, self._clock.tick())
        has_news = [self._read_safely(peer_id, found[peer_id]) for peer_id in in_turn]
        has_news += await self._ask_for_late(connected)
        self._forget()
        # Also peers of the book that no record names: they may be the other half of a divided swarm.
        wanted = dict(list(self._book.peers().items())[:REDIAL_PEERS])
        self._acquaintances.met(wanted)
        wanted |= {p: m.record.addresses for p, m in self._members.items() if not m.record.is_leaving}
        # After a broken link a connection may come back of itself, when both have dropped the other as a neighbour.
        heard, neighbours = present(self._members, self._clock.tick()), self._network.neighbours()
        apart = wanted.keys() - connected.intersection({*heard} | neighbours) - {self._network.peer_id}
        for peer_id in self._acquaintances.to_dial(apart, time.monotonic()):
            try:
                await self._network.remember(peer_id, wanted[peer_id])
            except Exception:  # a mistake of ours, which what one stranger says must not turn into everybody's
                log.exception("the addresses of %s cannot be used", peer_id)
        if any(has_news):
            try:
                await asyncio.to_thread(self._book.save)
            except StateError as error:
                log.warning("%s", error)

    async def _ask_for_late(self, connected: Collection[str]) -> list[bool]:
        """Ask known members themselves whose records the DHT does not give; return which news were told."""
        tick, ask = self._clock.tick(), self.ask
        late = [
            peer
            for peer in self.known_members(tick)
            if peer in connected and tick >= self._members[peer].issued_tick + LATE_TICKS
        ]
        if ask is None or not late:
            return []
        due = self._acquaintances.in_turn(late, tick)[:MAX_ASKED]
        answers = await asyncio.gather(*map(ask, due), return_exceptions=True)
        told = [data for answer in answers if not isinstance(answer, BaseException) for data in answer]
        return [self._read_safely(signer, data) for data in told if (signer := signer_of(data))]

    def signed_records(self) -> list[bytes]:
        """Return the signed records of the members that are known, for who asks: this peer's own first."""
        here = [data for peer, data in self._records.items() if peer in self._members and self.knows(peer)]
        return [*list(self._own)[-1:], *here]

    def view(self, block: str, tick: int) -> tuple[str, ...]:
        """Return the holders of `block` that count at `tick`, sorted."""
        return view_of(self._admitted(tick), block, tick)

    def strides(self, block: str, tick: int) -> dict[str, int]:
        """Return the holders of `block` that count at `tick`, each with its stride; see `strides_of`."""
        return strides_of(self._admitted(tick), block, tick)

    def members(self, tick: int) -> tuple[str, ...]:
        """Return the peers that are present at `tick`, sorted; this one too, once it has published."""
        return present(self._admitted(tick), tick)

    def records(self) -> int:
        """Return how many records this peer keeps for the DHT, of all peers."""
        return self._network.records()

    def known_members(self, tick: int) -> tuple[str, ...]:
        """Return those of the members that are known."""
        return tuple(filter(self.knows, self.members(tick)))

    def holders(self, block: str, tick: int) -> tuple[str, ...]:
        """Return those of the view that are known: a record alone is no reason to leave work to its writer."""
        return tuple(filter(self.knows, self.view(block, tick)))

    def knows(self, peer_id: str) -> bool:
        """Return whether there is more of a peer than its records: it was connected, or took part in a block here."""
        return self._acquaintances.knows(peer_id)

    @property
    def has_twin(self) -> bool:
        """Whether another process has written records with this peer's identity lately."""
        return self._twin_tick is not None and self._clock.tick() < self._twin_tick + HOLD_TICKS

    def apart(self) -> dict[str, str]:
        """Return the peers of the run that speak other protocols, and why that keeps them and this one apart."""
        return self._apart.since(self._clock.now() - MemberRecord.lifetime_s(self._clock.tick_seconds))

    def link(self, peer_id: str) -> tuple[str, str]:
        """Return how a peer was connected at the last look, if it was, and why it could not be dialled, if so."""
        return self._network.links.get(peer_id, ""), self._network.failures.get(peer_id, "")

    def _admitted(self, tick: int) -> Mapping[str, Member]:
        excluded = self.excluded(tick)
        return {p: m for p, m in self._members.items() if p not in excluded} if excluded else self._members

    def record(self, peer_id: str) -> MemberRecord | None:
        """Return the last good record of a peer, as far as it is `credible`."""
        member = self._credible().get(peer_id)
        return None if member is None else member.record

    def stores(self, peer_id: str, block: str) -> bool:
        """Return whether a peer says that it stores a block."""
        record = self.record(peer_id)
        return record is not None and block in record.keeps

    def known(self) -> dict[str, Member]:
        """Return all peers of which anything is remembered, with the tick of their last record, if `credible`."""
        return dict(self._credible())

    def _credible(self) -> Mapping[str, Member]:
        """Return what is credible of the members, reckoned anew when one of them has changed."""
        if self._believed is None:
            self._believed = credible(self._members)
        return self._believed

    def holdings(self) -> Mapping[str, Span]:
        """Return what this peer holds by its last published record: the `previous` of `hold`."""
        own = self._members.get(self._network.peer_id)
        return {} if own is None else own.holdings

    def _is_of_a_twin(self, data: bytes | None) -> bool:
        """Return whether a record under this peer's id was written by another process with its identity."""
        if data is None or data in self._own:
            return False
        try:
            record, signer, issued = open_record(data, "member", MemberRecord)
        except PeerError:
            return False
        return signer == self._network.peer_id and not record.is_leaving and issued > self._first_issued

    def _read_safely(self, peer_id: str, data: bytes) -> bool:
        """Take in one entry as `_read` does; a mistake of ours costs this entry and no other."""
        try:
            return self._read(peer_id, data)
        except Exception:
            log.exception("the member record of %s cannot be used", peer_id)
            return False

    def _read(self, peer_id: str, data: bytes) -> bool:
        """Take in one entry of the DHT; return whether a peer or an address is new."""
        if peer_id == self._network.peer_id:
            return False
        admission = self._network.admission
        if admission is not None and not admission.allows(peer_id, "train"):
            return False  # told by another member, whose word lets nobody in
        latest = self._clock.now() + EARLY_S
        try:
            record, _, issued = open_entry(peer_id, data, "member", MemberRecord, member_key(self._run_id), latest)
        except PeerError as error:
            log.debug("a member record was refused: %s", error)
            if isinstance(error, ProtocolError):
                self._apart.note(peer_id, data, str(error), latest)
            return False
        self._apart.understood(peer_id, issued)
        known = self._members.get(peer_id)
        if known is None and not self._makes_room(peer_id):
            return False
        if known is not None and issued <= known.issued:
            return False
        self._take(peer_id, record, issued)
        self._records[peer_id] = data
        addresses = addresses_of(peer_id, record.addresses) if self._acquaintances.knows(peer_id) else []
        return bool(addresses) and self._book.note(peer_id, addresses, issued)

    def _makes_room(self, peer_id: str) -> bool:
        """Say whether one more peer is believed: whoever is known, at the cost of one that is not, and some others."""
        on_trial = [peer for peer in self._members if not self._acquaintances.knows(peer)]
        if not self._acquaintances.knows(peer_id):
            is_welcome = not self._acquaintances.has_given_up(peer_id) and len(self._members) < MAX_MEMBERS
            return is_welcome and len(on_trial) < MAX_ON_TRIAL
        if len(self._members) >= MAX_MEMBERS and on_trial:
            del self._members[on_trial[0]], self._records[on_trial[0]]
        return len(self._members) < MAX_MEMBERS

    def _take(self, peer_id: str, record: MemberRecord, issued: float) -> None:
        tick = max(0, int((issued - self._clock.genesis) // self._clock.tick_seconds))
        self._members[peer_id] = absorb(self._members.get(peer_id), record, issued, tick)
        self._believed = None

    def _forget(self) -> None:
        tick = self._clock.tick()
        gone = [p for p, m in self._members.items() if tick >= m.issued_tick + FORGET_TICKS]
        for peer_id in {*gone, *filter(self._acquaintances.has_given_up, self._members)}:
            del self._members[peer_id]
            self._records.pop(peer_id, None)
            self._believed = None
