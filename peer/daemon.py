"""The daemon, from its first line to its last. Read `live` first, then `Daemon.train`.

    state directory → identity → workers (they import for seconds; meanwhile:) → network → the run → HTTP
    → services and DHT → a sub-model and its state → tick by tick: rounds, membership, turns → leave

Each step is a room of its own, in `peer/member`: `entry` (which run), `session` (the worker), `rounds`, `turns` and
`changes` (which sub-model), `library` (text), `announcer` (what the others are told), `keeper` (what is stored for
them), `report` (what is shown). Here is only their order.
"""

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from configs.allocator import keep_pages
from configs.files import write_json
from configs.kept import MACHINE_FILE, to_keep
from configs.load import Settings
from configs.temporary import NOTE, note_temporary
from dht.address_book import AddressBook
from dht.identity import Identity
from dht.network import Network
from peer import __version__
from peer.block.exchange import Swarm
from peer.block.store import initial_state
from peer.ending import first_cause, in_time, leave_on_signals
from peer.http.local import announce_daemon
from peer.http.status import Status
from peer.http.status_page import Actions, Shown, open_http
from peer.member.announcer import Announcer
from peer.member.arrival import open_way
from peer.member.assembly import assemble, caller
from peer.member.changes import Changes
from peer.member.crowds import Crowds
from peer.member.departure import depart
from peer.member.duties import Duties
from peer.member.entry import Entry, enter, saved_spec
from peer.member.facts import Facts
from peer.member.invited import IDENTITY_FILE, open_admission, take_up_revocations
from peer.member.keeper import Keeper
from peer.member.lookout import Lookout
from peer.member.report import greeting, take_in
from peer.member.rounds import RoundEnd, Rounds
from peer.member.shown import shown_of
from peer.member.turns import Turns
from peer.train.partition import COMMON
from peer.workers.supervisor import open_workers
from peer.workers.trainer import Trainer
from protocols.answer import Answers
from protocols.describe import Describe
from protocols.offers import Offers
from protocols.reach import Reach
from protocols.roll import Roll
from protocols.shards import Shards
from protocols.state import State
from protocols.traffic import Cause

log = logging.getLogger(__name__)

OnTick = Callable[[Status], None]
Come = Callable[[Settings, Identity, Network, AddressBook, str | None], Awaitable[Entry]]

TIMER_S = 0.002  # how early a timer may fire


class Left(Exception):
    """This peer has left its run."""


def run(settings: Settings) -> None:
    """Run a daemon until it leaves; needs `local.hold_state_dir`.

    Raises ShoalError: one line that says what is wrong and what to do.
    """
    keep_pages()
    gc.freeze()  # what was imported stays: looking through it for garbage took a tenth of a round's CPU time
    with in_time() as in_time_from, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(live(settings, in_time_from))
        except asyncio.CancelledError:
            log.info("left before training began")
        except BaseExceptionGroup as group:
            raise first_cause(group) from None


async def live(settings: Settings, on_leaving: Callable[[], object] = lambda: None) -> None:
    """Found, join or resume a run, and take part in it until told to leave; `on_leaving` is called when that begins."""
    config = settings.peer
    leaving = asyncio.Event()
    with leave_on_signals(leaving, on_leaving) as has_begun:
        async with open_daemon(settings, leaving) as daemon:
            print("\n".join(greeting(daemon.parts, daemon.entry.clock)), flush=True)
            with daemon.parts.trackers as trackers:
                await daemon.train(has_begun, trackers.record)
    log.info("left; everything is saved in %s", config.state_dir)


@contextlib.asynccontextmanager
async def open_daemon(
    settings: Settings,
    leaving: asyncio.Event,
    trainer: contextlib.AbstractAsyncContextManager[Trainer] | None = None,
    come: Come = enter,
) -> AsyncIterator["Daemon"]:
    """Found, join or resume a run, whose peers can reach this one when the daemon is yielded; then it is to `train`.

    Needs `local.hold_state_dir`. `leaving` makes it leave. Without a `trainer`, worker processes train; `come` says how
    it comes to its run.
    """
    config = settings.peer
    key = config.state_dir / IDENTITY_FILE
    identity = Identity.load_or_create(key)
    book = AddressBook(config.state_dir / "address_book.json")
    known = [address for addresses in book.peers().values() for address in addresses]
    admission = open_admission(config, identity, saved_spec(config.state_dir))
    async with trainer or open_workers(config) as workers, open_way(config, key, known, admission) as network:
        note_temporary(config.state_dir / NOTE, [*workers.temporary, *network.temporary])
        entry = await come(settings, identity, network, book, admission.key if admission else None)
        advised = entry.advised(settings)
        workers.configure(advised.peer)
        workers.check(entry.spec)
        facts = Facts.of(entry.spec, advised.peer, len(entry.library.domains), network.peer_id)
        daemon = Daemon(facts, entry, network, workers, book, leaving)
        workers.on_event = daemon.lookout.on_worker_event
        async with open_http(config, daemon.shown(), daemon.actions()) as url:
            await daemon.found()
            entry.save(config.state_dir)  # from here on the state directory is this run's
            write_json(config.state_dir / MACHINE_FILE, to_keep(settings))
            await daemon.open(url)
            announce_daemon(config.state_dir, url, identity.peer_id)
            yield daemon


class Daemon:
    """One peer of one run: the rooms that it consists of, and their order in time."""

    def __init__(
        self, facts: Facts, entry: Entry, network: Network, workers: Trainer, book: AddressBook, leaving: asyncio.Event
    ) -> None:
        self.entry, self.network, self.workers = entry, network, workers
        self.parts = parts = assemble(facts, entry, network, workers, book, leaving)
        spec, membership, store, activity = facts.spec, parts.membership, parts.store, parts.activity
        stubs, expects = (self._stub(Offers), self._stub(Shards)), parts.newcomers.are_expected
        swarm = Swarm(spec.run_id, network.identity, parts.offers, *stubs, store.folder, expects, self._domains)
        self.crowds = Crowds(facts, network, membership, store.replicas, self._takes_part, self._addresses)
        self.rounds = Rounds(facts, activity, parts.session, swarm, membership, self.crowds, self._on_round_end)
        turns = Turns(facts, activity, membership, parts.outlook, parts.session, parts.library)
        self.changes = Changes(parts, swarm, self.rounds, turns, self._is_alone, parts.offers.forget)
        self.announcer = Announcer(parts, self.crowds, self.rounds.held, self.rounds.strides)
        self.keeper = Keeper(facts, membership, store, parts.outlook, self._stub(State))
        self.lookout = Lookout(parts, caller(network, Describe))
        self.duties = Duties(parts.chronicle, activity.watch)

    async def found(self) -> None:
        """Store the state with which the run begins, if this peer has founded it: nobody else has it."""
        facts, store = self.parts.facts, self.parts.store
        if self.entry.is_founder and store.load(COMMON) is None:
            first = self.entry.first
            if first is None:
                first = await asyncio.to_thread(initial_state, facts.spec, facts.strategy, facts.config.init_from)
            await store.put(first)

    async def open(self, url: str) -> None:
        """Answer other peers, join the DHT, and say where this peer is."""
        parts, spec, library = self.parts, self.parts.facts.spec, self.parts.library
        tokenizer, records = (library.tokenizer_id, len(library.tokenizer_json)), self.entry.domain_records
        describe = Describe(
            spec,
            tokenizer,
            lambda: records,
            parts.outlook.members,
            __version__,
            self.entry.hints,
            parts.newcomers.asked,
        )
        describe.now = parts.facts.clock.now
        await self.network.serve(describe)
        await self.network.serve(Reach(self.network.seen_at))
        await self.network.serve(
            Shards(self._lookup, parts.traffic, parts.newcomers.fetched, self._cause_of), spec.run_id
        )
        await self.network.serve(State(parts.store), spec.run_id)
        await self.network.serve(parts.offers, spec.run_id)
        await self.network.serve(Roll(parts.membership.signed_records), spec.run_id)
        if parts.facts.config.answers:
            await self.network.serve(Answers(parts.asker.speaker), spec.run_id)
        await self.network.open_dht(self.entry.peers, spec.run_id, spec.rounds.tick_seconds)
        await parts.membership.refresh()
        parts.outlook.check_understood()
        parts.place.url, parts.place.addresses = url, await self.network.addresses()

    async def train(self, has_begun: Callable[[], object], on_tick: OnTick = lambda status: None) -> None:
        """Take a sub-model, say that it `has_begun`, and train it, tick by tick, until told to leave."""
        try:
            await self._train(has_begun, on_tick)
        except* Left:
            pass

    async def _train(self, has_begun: Callable[[], object], on_tick: OnTick) -> None:
        """Do what `train` does. Raises Left, in a group, so that whatever still runs in the background is cancelled."""
        parts, clock = self.parts, self.parts.facts.clock
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.network.broken())
            tasks.create_task(parts.control.heed())
            parts.activity.download()
            base = await parts.library.obtain_base(parts.outlook.nearest(parts.place.addresses))
            seed = parts.facts.data_seed
            tasks.create_task(self.workers.start(parts.facts.spec, seed, base))  # beside the state's download
            await self.changes.first(tasks)
            await self.announcer.publish(clock.tick())
            has_begun()
            while await self._next_tick():
                tick = clock.tick()
                self.rounds.begin(tick, tasks)
                self.lookout.look(tick)
                on_tick(self.lookout.status())
                self._keep_up(tick, tasks)
                self.changes.consider(tick, tasks)
                parts.place.taken_tick = tick
            await depart(parts, self.rounds, self.changes, self.keeper, self.announcer)
            raise Left

    def _keep_up(self, tick: int, tasks: asyncio.TaskGroup) -> None:
        """Begin the duties of this tick, each unless its last is still under way."""
        self.duties.begin("reading the members' records", self.parts.membership.refresh, tasks)
        self.duties.begin("leaving out who has two faces", partial(self._exclude, tick), tasks)
        self.duties.begin("counting holders", partial(self.crowds.keep_up, tick), tasks)
        if self.announcer.is_due(tick):
            self.duties.begin("writing this peer's record", partial(self._renew, tick), tasks)
        if self.parts.examiner.is_due():
            self.duties.begin("scoring held-out text", self.parts.examiner.examine, tasks)
        if self.parts.disk.is_due(tick):
            self.duties.begin("keeping within the disk's limit", partial(self.parts.disk.keep_within, tick), tasks)
        if self.parts.prompts.is_due(self.parts.facts.clock.now()) and self.parts.activity.takes_part():
            self.duties.begin("asking the fixed prompts", self.lookout.ask_prompts, tasks)
        if self.parts.looker.is_due():
            self.duties.begin("looking at this machine", self.lookout.look_at_machine, tasks)
        if self.lookout.clocks.is_due():
            self.duties.begin("comparing clocks", self.lookout.compare_clocks, tasks)
        self.parts.publisher.consider(time.time(), self.parts.traffic, tasks)
        if self.keeper.is_due(tick):
            self.duties.begin("keeping blocks for others", partial(self.keeper.keep, tick), tasks)

    async def _exclude(self, tick: int) -> None:
        parts = self.parts
        await parts.exclusions.keep_up(tick)
        if (why := parts.exclusions.of_this_peer(tick)) and not parts.activity.told:
            parts.chronicle.happened(f"paused by itself: {why}")
            log.error("%s; until then this peer pauses, for others leave it out", why)
            await self.parts.control.pause(f"paused by itself: {why}")

    async def _renew(self, tick: int) -> None:
        place = self.parts.place  # a laptop that moves from one network to another has another address
        place.addresses = await self.network.addresses() or place.addresses
        await self.announcer.publish(tick)
        take_in(self.parts)
        await asyncio.to_thread(self.parts.save)

    # What this machine may ask

    def shown(self) -> Shown:
        """Return what this machine may look at."""
        return shown_of(self.parts, self.lookout, lambda: self.network.gate.dht_bytes)

    def actions(self) -> Actions:
        """Return what this machine may ask."""
        control, admission, folder = self.parts.control, self.parts.admission, self.parts.facts.config.state_dir
        revoked, bounds = partial(take_up_revocations, admission, folder), control.bounds
        return Actions(control.leave, control.pause, control.resume, revoked, bounds.told, bounds.change)

    # What the above stands on

    async def _next_tick(self) -> bool:
        """Wait for the next tick; return False when it is time to leave."""
        clock, leaving = self.parts.facts.clock, self.parts.activity.leaving
        coming = clock.tick() + 1
        while clock.tick() < coming and not leaving.is_set():  # timers may fire a little early
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(clock.seconds_until(coming) + TIMER_S):
                    await leaving.wait()
        return not leaving.is_set()

    def _on_round_end(self, end: RoundEnd) -> None:
        self.lookout.ended(end)

    def _takes_part(self, block: str) -> bool:
        return self.parts.activity.takes_part() and not self.parts.store.replicas[block].state.is_final

    def _is_alone(self, block: str) -> bool:
        facts, membership = self.parts.facts, self.parts.membership
        return not self.crowds.is_crowd(block) and membership.view(block, facts.clock.tick()) == (facts.me,)

    def _addresses(self) -> Sequence[str]:
        return self.parts.place.addresses

    def _domains(self, block: str) -> set[str]:
        return set(map(self.parts.library.domain_name, self.parts.facts.strategy.domains(block)))

    def _lookup(self, content_id: str) -> Path | memoryview | None:
        found = self.parts.store.lookup(content_id)
        return self.parts.library.lookup(content_id) if found is None else found

    def _cause_of(self, content_id: str) -> Cause:
        return "text" if self.parts.store.lookup(content_id) is None else "states"

    def _stub(self, service: Any) -> Callable[[str], Any]:
        return caller(self.network, service, self.entry.spec.run_id)
