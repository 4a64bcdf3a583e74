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
from collections.abc import Callable, Sequence
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
from dht.membership import TWIN, Membership
from dht.network import Network
from peer import __version__
from peer.answers.speaker import Speaker
from peer.block.exchange import Swarm
from peer.block.store import BlockStore, initial_state
from peer.ending import first_cause, in_time, leave_on_signals
from peer.http.curves import open_curves
from peer.http.local import announce_daemon
from peer.http.status import Status
from peer.http.status_page import Actions, open_http
from peer.member.activity import Activity
from peer.member.announcer import Announcer
from peer.member.arrival import open_way
from peer.member.best import FOLDER as BEST
from peer.member.bounds import Bounds
from peer.member.changes import Changes
from peer.member.chronicle import Chronicle
from peer.member.company import Company, circumstances
from peer.member.control import Control
from peer.member.crowds import Crowds
from peer.member.departure import depart
from peer.member.disk import Disk
from peer.member.duties import Duties
from peer.member.entry import Entry, enter, saved_spec
from peer.member.examiner import Examiner, warning
from peer.member.exclusions import Exclusions
from peer.member.facts import Facts
from peer.member.invited import IDENTITY_FILE, end_of_invitation, open_admission, take_up_revocations
from peer.member.keeper import Keeper, rules_of
from peer.member.newcomers import Newcomers
from peer.member.outlook import Outlook
from peer.member.owner import Owner
from peer.member.report import Parts, Place, greeting, status_of
from peer.member.rounds import RoundEnd, Rounds
from peer.member.session import Session
from peer.member.turns import Turns
from peer.train.launch import devices_of
from peer.train.partition import COMMON
from peer.train.private import Privacy
from peer.workers.supervisor import Event, Workers, open_workers
from protocols.answer import Answers
from protocols.describe import Describe
from protocols.offers import Offers
from protocols.reach import Reach
from protocols.roll import Roll, ask_roll
from protocols.sealing import UNHEARD, UNNAMED
from protocols.shards import Shards
from protocols.state import State
from protocols.traffic import Traffic

log = logging.getLogger(__name__)

OnTick = Callable[[Status], None]

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
    key = config.state_dir / IDENTITY_FILE
    leaving = asyncio.Event()
    with leave_on_signals(leaving, on_leaving) as has_begun:
        identity = Identity.load_or_create(key)
        book = AddressBook(config.state_dir / "address_book.json")
        known = [address for addresses in book.peers().values() for address in addresses]
        admission = open_admission(config, identity, saved_spec(config.state_dir))
        async with open_workers(config) as workers, open_way(config, key, known, admission) as network:
            note_temporary(config.state_dir / NOTE, [*workers.temporary, *network.temporary])
            entry = await enter(settings, identity, network, book, admission.key if admission else None)
            advised = entry.advised(settings)
            workers.configure(advised.peer)
            workers.check(entry.spec)
            facts = Facts.of(entry.spec, advised.peer, len(entry.library.domains), network.peer_id)
            daemon = Daemon(facts, entry, network, workers, book, leaving)
            workers.on_event = daemon.on_worker_event
            async with open_http(config, daemon.status, daemon.actions()) as url:
                await daemon.found()
                entry.save(config.state_dir)  # from here on the state directory is this run's
                write_json(config.state_dir / MACHINE_FILE, to_keep(settings))
                await daemon.open(url)
                print("\n".join(greeting(daemon.parts, entry.clock)), flush=True)
                announce_daemon(config.state_dir, url, identity.peer_id)
                with open_curves(config.tensorboard) as record_curves:
                    await daemon.train(has_begun, record_curves)
    log.info("left; everything is saved in %s", config.state_dir)


class Daemon:
    """One peer of one run: the rooms that it consists of, and their order in time."""

    def __init__(
        self,
        facts: Facts,
        entry: Entry,
        network: Network,
        workers: Workers,
        book: AddressBook,
        leaving: asyncio.Event,
    ) -> None:
        config, spec, strategy, library = facts.config, facts.spec, facts.strategy, entry.library
        self.entry, self.network, self.workers = entry, network, workers
        traffic, folder = Traffic(config.up_mbit, config.down_mbit), config.state_dir / "blocks"
        states, shards = self._stub(State), self._stub(Shards)
        membership = Membership(network, spec.run_id, facts.clock, book)
        roll = self._stub(Roll)
        membership.ask = lambda peer: ask_roll(roll(peer))
        store = BlockStore(folder, spec, strategy, states, shards, traffic, rules_of(facts, membership))
        privacy = Privacy.of(config.clip_norm, config.noise, config.state_dir)
        outlook = Outlook(facts, membership, store, entry.peers)
        activity, session = Activity(leaving), Session(spec, facts.me, workers, store, privacy)
        chronicle = Chronicle(config.state_dir)
        newcomers = Newcomers(facts.clock.now, spec.rounds.tick_seconds, self._is_member)
        # Of experts' common trunk no moment is best for all of them.
        best = None if strategy.kind == "experts" else config.state_dir / BEST
        disk = Disk(facts, membership, store, session, library)
        bounds = Bounds(facts, traffic, workers, disk)
        control = Control(activity, session, chronicle, bounds, Owner(devices_of(config)))
        examiner = Examiner(activity, session, chronicle, facts.clock.now, best, control.pause)
        self.offers = Offers(traffic)
        exclusions = Exclusions(network, spec.run_id, facts.clock, self.offers)
        membership.excluded, membership.took_part = exclusions.at, store.took_part
        seen = chronicle, traffic, newcomers, examiner, exclusions, disk, Place()
        self.parts = Parts(
            facts, activity, control, membership, store, outlook, session, library, *seen, network.admission
        )
        library.on_bytes, library.leased, library.down_mbit = (
            traffic.received,
            outlook.leased,
            lambda: traffic.down_mbit,
        )
        expects = newcomers.are_expected
        stubs = self._stub(Offers), shards
        swarm = Swarm(spec.run_id, network.identity, self.offers, *stubs, folder, expects, self._domains)
        self.crowds = Crowds(facts, network, membership, store.replicas, self._takes_part, self._addresses)
        self.rounds = Rounds(facts, activity, session, swarm, membership, self.crowds, self._on_round_end)
        turns = Turns(facts, activity, membership, outlook, session, library)
        self.changes = Changes(self.parts, swarm, self.rounds, turns, self._is_alone, self.offers.forget)
        self.announcer = Announcer(self.parts, self.crowds, self.rounds.held, self.rounds.strides)
        self.keeper = Keeper(facts, membership, store, outlook, states)
        self.company, self.duties = Company(), Duties(chronicle, activity.watch)

    async def found(self) -> None:
        """Store the state with which the run begins, if this peer has founded it: nobody else has it."""
        facts, store = self.parts.facts, self.parts.store
        if self.entry.is_founder and store.load(COMMON) is None:
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
        await self.network.serve(describe)
        await self.network.serve(Reach(self.network.seen_at))
        await self.network.serve(Shards(self._lookup, parts.traffic, parts.newcomers.fetched), spec.run_id)
        await self.network.serve(State(parts.store), spec.run_id)
        await self.network.serve(self.offers, spec.run_id)
        await self.network.serve(Roll(parts.membership.signed_records), spec.run_id)
        if parts.facts.config.answers:
            activity = parts.activity
            speaker = Speaker(parts.facts, parts.store, library, activity.declines, activity.takes_part)
            await self.network.serve(Answers(speaker), spec.run_id)
        await self.network.open_dht(self.entry.peers, spec.run_id, spec.rounds.tick_seconds)
        await parts.membership.refresh()
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
                self._look(tick)
                on_tick(self.status())
                self._keep_up(tick, tasks)
                self.changes.consider(tick, tasks)
            await depart(parts, self.rounds, self.changes, self.keeper, self.announcer)
            raise Left

    def _look(self, tick: int) -> None:
        """Take in how the training goes, whether rounds are sealed with others, and whether anything is stuck."""
        parts, progress = self.parts, self.parts.session.progress
        if progress.tokens and not parts.chronicle.losses:
            log.info("training %s; loss %.3f", parts.session.sub_model, progress.loss or 0.0)
        parts.chronicle.trained(progress.tokens, progress.loss)
        for news in (*parts.activity.watch.look(), self.company.see(circumstances(parts, tick))):
            if news:
                log.warning("%s", news)
                parts.chronicle.happened(news)

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
        await asyncio.to_thread(self.parts.chronicle.save)

    # What this machine may ask

    def status(self) -> Status:
        """Return everything there is to show, now."""
        parts = self.parts
        rise = warning(parts.chronicle.held_out, parts.examiner.folder)
        left_out = parts.exclusions.told(parts.facts.clock.tick())
        twin = TWIN if parts.membership.has_twin else ""
        ending = end_of_invitation(parts.admission, parts.facts.clock.now()) if parts.admission else ""
        stuck, clock = parts.activity.watch.present, parts.facts.clock.warning()
        warnings = self.company.present, *stuck, clock, twin, rise, ending, parts.disk.present, *left_out
        return status_of(self.parts, [text for text in warnings if text])

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

    def on_worker_event(self, event: Event) -> None:
        """Remember what happened to the workers; they mend it themselves. A last failure ends the daemon elsewhere."""
        self.parts.chronicle.happened(f"worker {event.kind}: {event.reason}")

    def _on_round_end(self, end: RoundEnd) -> None:
        self.parts.chronicle.round_ended(end.block, end.tick, end.outcome, self.parts.session.sub_model)
        if end.event:
            self.parts.chronicle.happened(end.event)
        if end.trial is not None:
            self.company.ended(end.trial, end.outcome.cause or (UNHEARD if end.outcome.is_alone else UNNAMED))

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

    def _is_member(self, peer_id: str) -> bool:
        admission = self.parts.admission
        is_guest = admission is not None and not admission.allows(peer_id, "train")  # reads, and is never one
        return is_guest or peer_id in self.parts.membership.members(self.parts.facts.clock.tick())

    def _stub(self, service: Any) -> Callable[[str], Any]:
        return lambda peer_id: self.network.stub(service, peer_id, self.entry.spec.run_id)
