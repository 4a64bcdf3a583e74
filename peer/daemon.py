"""The daemon, from its first line to its last. Read `live` first, then `Daemon.train`.

    state directory → identity → workers (they import for seconds; meanwhile:) → network → the run → HTTP
    → services and DHT → a sub-model and its state → tick by tick: rounds, membership, turns → leave

Each step is a room of its own: `entry` (which run), `session` (the worker), `exchanges` (the rounds), `blocks` (what is
stored), `library` (text), `turns` (which sub-model), `standing` (what is told to the others). Here is only their order.
"""

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import uvloop

from configs.clock import Clock
from configs.errors import NetworkError, PeerError
from configs.files import write_json
from configs.kept import MACHINE_FILE, to_keep
from configs.load import Settings
from dht.address_book import AddressBook
from dht.identity import Identity
from dht.membership import Membership
from dht.network import Network, open_network
from peer import __version__
from peer.answers.speaker import Speaker
from peer.block.exchange import Swarm
from peer.block.store import BlockStore, initial_state
from peer.ending import first_cause, leave_on_signals
from peer.http.curves import open_curves
from peer.http.local import announce_daemon
from peer.http.status_page import Actions, open_http
from peer.member.announcer import Standing
from peer.member.chronicle import Chronicle
from peer.member.company import Company
from peer.member.crowds import Crowds
from peer.member.entry import Entry, enter
from peer.member.rounds import Exchanges
from peer.member.session import Session
from peer.member.turns import Turns
from peer.train.outer import OuterState
from peer.train.partition import COMMON, Strategy
from peer.workers.supervisor import Event, Workers, open_workers
from protocols.answer import Answers
from protocols.describe import Describe
from protocols.offers import Offers
from protocols.shards import Shards
from protocols.state import State
from protocols.traffic import Traffic

log = logging.getLogger(__name__)

TIMER_S = 0.002  # how early a timer may fire
FINISH_S = 12.0  # for the rounds under way, before their work is left for later
HAND_OVER_S = 20.0  # for the others to fetch what only this peer has, before it goes all the same


class Left(Exception):
    """This peer has left its run."""


def run(settings: Settings) -> None:
    """Run a daemon until it leaves; needs `local.hold_state_dir`.

    Raises ShoalError: one line that says what is wrong and what to do.
    """
    gc.freeze()  # what was imported stays: looking through it for garbage took a tenth of a round's CPU time
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(live(settings))
        except asyncio.CancelledError:
            log.info("left before training began")
        except BaseExceptionGroup as group:
            raise first_cause(group) from None


async def live(settings: Settings) -> None:
    """Found, join or resume a run, and take part in it until told to leave."""
    config = settings.peer
    key = config.state_dir / "identity.key"
    relays = config.initial_peers if config.use_relay else ()
    leaving = asyncio.Event()
    with leave_on_signals(leaving) as has_begun:
        identity = Identity.load_or_create(key)
        book = AddressBook(config.state_dir / "address_book.json")
        async with (
            open_workers(config) as workers,
            open_network(key, host=config.host, port=config.port, announce=config.announce, relays=relays) as network,
        ):
            entry = await enter(settings, identity, network, book)
            advised = entry.advised(settings)
            workers.configure(advised.peer)
            workers.check(entry.spec)
            daemon = Daemon(advised, entry, network, workers, book, leaving)
            workers.on_event = daemon.on_worker_event
            async with open_http(
                config, daemon.standing.status, Actions(daemon.leave, daemon.pause, daemon.resume)
            ) as url:
                await daemon.found()
                entry.save(config.state_dir)  # from here on the state directory is this run's
                write_json(config.state_dir / MACHINE_FILE, to_keep(settings))
                await daemon.open(url)
                announce_daemon(config.state_dir, url, identity.peer_id)
                with open_curves(config.tensorboard) as record_curves:
                    daemon.standing.on_tick = record_curves
                    await daemon.train(has_begun)
    log.info("left; everything is saved in %s", config.state_dir)


class Daemon:
    """One peer of one run: what it trains, when it exchanges, and when it changes over."""

    def __init__(
        self,
        settings: Settings,
        entry: Entry,
        network: Network,
        workers: Workers,
        book: AddressBook,
        leaving: asyncio.Event,
    ) -> None:
        self.config, self.entry, self.network, self.workers = settings.peer, entry, network, workers
        self.spec, self.library, self.me = entry.spec, entry.library, network.peer_id
        self.leaving = leaving
        self.clock = Clock(self.spec.genesis, self.spec.rounds.tick_seconds)
        self.strategy = Strategy.of(self.spec.strategy, len(self.library.domains))
        self.traffic = Traffic(self.config.up_mbit, self.config.down_mbit)
        self.library.on_bytes = self.traffic.received
        self.offers = Offers(self.traffic)
        folder = self.config.state_dir / "blocks"
        states, shards = self._stub(State), self._stub(Shards)
        self.store = BlockStore(folder, self.spec, self.strategy, states, shards, self.traffic.received)
        self.swarm = Swarm(self.spec.run_id, network.identity, self.offers, self._stub(Offers), shards, folder)
        self.membership = Membership(network, self.spec.run_id, self.clock, book)
        self.session = Session(self.spec, self.me, workers, self.store)
        self.chronicle = Chronicle(self.config.state_dir)
        self.company = Company()
        self.standing = Standing(self)
        self.turns = Turns(self)
        self.crowds = Crowds(self)
        self.library.leased = self.standing.leased
        self.exchanges = Exchanges(self)
        self.changing: asyncio.Task[None] | None = None  # the change to another sub-model, under way
        self.is_switching = False
        self.is_paused = False

    async def found(self) -> None:
        """Store the state with which the run begins, if this peer has founded it: nobody else has it."""
        if self.entry.is_founder and self.store.load(COMMON) is None:
            first = await asyncio.to_thread(initial_state, self.spec, self.strategy, self.config.init_from)
            await asyncio.to_thread(self.store.put, first)

    async def open(self, url: str) -> None:
        """Answer other peers, join the DHT, and say where this peer is."""
        run_id = self.spec.run_id
        tokenizer = self.library.tokenizer_id, len(self.library.tokenizer_json)
        records = self.entry.domain_records
        describe = Describe(self.spec, tokenizer, lambda: records, self.standing.members, __version__, self.entry.hints)
        await self.network.serve(describe)
        await self.network.serve(Shards(self._lookup, self.traffic), run_id)
        await self.network.serve(State(self.store), run_id)
        await self.network.serve(self.offers, run_id)
        if self.config.answers:
            await self.network.serve(Answers(Speaker(self)), run_id)
        await self.network.open_dht(self.entry.peers, run_id)
        await self.membership.refresh()
        await self.standing.greet(url)

    async def train(self, has_begun: Callable[[], object]) -> None:
        """Take a sub-model, say that it `has_begun`, and train it, tick by tick, until told to leave."""
        try:
            await self._train(has_begun)
        except* Left:
            pass

    async def _train(self, has_begun: Callable[[], object]) -> None:
        """Do what `train` does. Raises Left, in a group, so that whatever still runs in the background is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self.tasks = tasks
            tasks.create_task(self._watch_network())
            self.standing.state = "downloading"
            base = await self.library.obtain_base(self._others())
            tasks.create_task(self.workers.start(self.spec, data_seed(self.me), base))  # beside the state's download
            await self._take(*await self._first())
            has_begun()
            while await self._next_tick():
                tick = self.clock.tick()
                await self.exchanges.begin(tick)
                self.standing.keep_up(tick)
                self.tasks.create_task(self.crowds.keep_up(tick))
                self._consider_change(tick)
            await self._go()
            raise Left

    async def leave(self) -> None:
        """Hand over, save and go, soon."""
        self.leaving.set()

    async def pause(self) -> None:
        """Stop training, but go on serving."""
        self.is_paused = True
        await self.session.pause()
        await self.standing.publish_again()

    async def resume(self) -> None:
        """Train again."""
        self.is_paused = False
        await self.session.resume()
        await self.standing.publish_again()

    # Which sub-model

    async def _first(self) -> tuple[str, list[OuterState]]:
        """Return what this peer trains first, what it trained before or what needs it most, and its states."""
        others = self._others()
        common = await self.store.obtain(COMMON, others)
        if not common.is_final:  # not asked for once more: behind a slow link it would be a newer one, and come again
            await self.library.fetch_first(self.strategy, COMMON, self.me, others)
            return COMMON, [common]
        known = self.chronicle.sub_model in self.strategy.sub_models
        sub_model = self.chronicle.sub_model if known else self.turns.lease()
        return sub_model, await self._obtain(sub_model)

    def _consider_change(self, tick: int) -> None:
        """Begin to change over when the sub-models part, when this one is done, or when another's turn has come."""
        if self.changing is not None and not self.changing.done():
            return
        self.changing = None
        target = self.turns.target(tick)
        if target != self.session.sub_model:
            self.changing = self.tasks.create_task(self._change(target))

    async def _change(self, target: str) -> None:
        """Get what `target` needs; then finish the rounds under way, put the present sub-model away, and begin it."""
        try:
            states = await self._obtain(target)
        except (NetworkError, PeerError, TimeoutError) as error:
            log.warning("cannot change to %s yet: %s", target, error)
            self.turns.put_off(target)
            return
        self.is_switching = True
        await self.exchanges.settle()
        log.info("changing from %s to %s", self.session.sub_model, target or "serving only: all tokens are trained")
        self.chronicle.happened(f"changed from {self.session.sub_model} to {target or 'serving only'}")
        await self.session.stop()
        kept = self.strategy.blocks(target) if target else ()
        leaving = [block for block in self.session.replicas if block not in kept]
        await self._finish_alone(leaving)
        await self.session.drop(leaving)
        for block in leaving:
            self.offers.forget(block)
        await self._take(target, states)
        self.is_switching = False

    async def _obtain(self, sub_model: str) -> list[OuterState]:
        """Return the states of the blocks of `sub_model` that are not in training here, and see to some of its text."""
        if not sub_model:
            return []
        others = self._others()
        blocks = self.strategy.blocks(sub_model)
        states = [await self.store.obtain(block, others) for block in blocks if block not in self.session.replicas]
        await self.library.fetch_first(self.strategy, sub_model, self.me, others)
        return states

    async def _take(self, sub_model: str, states: Sequence[OuterState]) -> None:
        """Begin to train `sub_model`; nothing when its name is empty."""
        self.chronicle.sub_model = sub_model
        self.chronicle.restarted_counter()
        self.turns.began = self.clock.tick()
        self.standing.state = "training"
        if sub_model:
            await self.session.start(self.strategy, sub_model, states, self.library)
            fetching = self.library.fetch_in_background(
                self.strategy, sub_model, self.me, self._others(), self.session.refresh_sources
            )
            self.tasks.create_task(fetching)
        else:
            self.session.sub_model = ""
        await self.standing.publish(self.turns.began)

    # The end

    async def _go(self) -> None:
        """Finish the round, hand over what only this peer has, save, and write the leaving record."""
        self.standing.state = "leaving"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISH_S):
                if self.changing is not None:
                    await self.changing
                await self.exchanges.settle()
        await self.exchanges.drop()
        if self.session.sub_model:
            await self.session.stop()
            await self._finish_alone(list(self.session.replicas))
        await self.session.drop(list(self.session.replicas))
        self.chronicle.save()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                await self.standing.hand_over()
                await self.standing.publish(self.clock.tick(), is_leaving=True)

    async def _finish_alone(self, blocks: Sequence[str]) -> None:
        """Take the last step of the blocks that nobody else trains, so that their state has all of the work."""
        tick = self.clock.tick()
        for block in blocks:
            replica = self.session.replicas[block]
            is_alone = not self.crowds.is_crowd(block) and self.membership.view(block, tick) == (self.me,)
            if is_alone and tick > replica.state.round:
                await asyncio.to_thread(replica.advance_alone, tick, replica.state.phi, replica.tokens)

    # What the above stands on

    async def _next_tick(self) -> bool:
        """Wait for the next tick; return False when it is time to leave."""
        coming = self.clock.tick() + 1
        while self.clock.tick() < coming and not self.leaving.is_set():  # timers may fire a little early
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.clock.seconds_until(coming) + TIMER_S):
                    await self.leaving.wait()
        return not self.leaving.is_set()

    async def _watch_network(self) -> None:
        await self.network.broken()

    def on_worker_event(self, event: Event) -> None:
        """Remember what happened to the workers; they mend it themselves. A last failure ends the daemon elsewhere."""
        self.chronicle.happened(f"worker {event.kind}: {event.reason}")

    def _others(self) -> list[str]:
        """Return the other peers that are present, or, before their records were read, those that were dialled."""
        present = [peer for peer in self.membership.members(self.clock.tick()) if peer != self.me]
        return list(dict.fromkeys([*present, *self.entry.peers]))

    def _lookup(self, content_id: str) -> Path | memoryview | None:
        found = self.store.lookup(content_id)
        return found if found is not None else self.library.lookup(content_id)

    def _stub(self, service: Any) -> Callable[[str], Any]:
        return lambda peer_id: self.network.stub(service, peer_id, self.spec.run_id)


def data_seed(peer_id: str) -> int:
    """Return what orders a peer's data: another order for every peer."""
    return int.from_bytes(sha256(peer_id.encode()).digest()[:4], "big")
