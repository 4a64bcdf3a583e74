"""What this peer tells the others and shows to people: its member record, its duties as a keeper, its status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from configs.errors import ShoalError
from dht.addresses import MAX_ADDRESSES
from dht.leases import keepers
from dht.membership import ACT_TICKS, RENEW_TICKS, hold
from dht.records import MemberRecord, Report
from peer import __version__
from peer.block.timing import eta_seconds, group_stride, round_seconds
from peer.http.status import PeerStatus, Status
from peer.member.chronicle import block_status, packed_digests, peer_status
from peer.member.company import Circumstances
from peer.train.inner import Schedule
from peer.train.partition import COMMON, TRUNK
from protocols.state import State, ask_keep

if TYPE_CHECKING:
    from peer.daemon import Daemon

log = logging.getLogger(__name__)

KEEP_S = 60.0  # for one block that is fetched for keeping


class Standing:
    """Speaks for a daemon; decides nothing but what to store for others."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._schedule = Schedule(daemon.spec, daemon.strategy)
        self._published_at = -RENEW_TICKS
        self._kept_at = 0
        self._duties: dict[str, asyncio.Task[Any]] = {}
        self._warning = ""
        self._started_at = time.time()
        self.addresses: list[str] = []
        self._url = ""
        self.state = "starting"
        self.on_tick: Callable[[Status], None] = lambda status: None

    async def greet(self, url: str) -> None:
        """Print the first lines of a daemon: what it is, where it is, and how others join."""
        self._url, self.addresses = url, await self._daemon.network.addresses()
        spec = self._daemon.spec
        print(f"shoal {__version__}", f"peer {self._daemon.me}", f"run {spec.run_id} ({spec.name})", sep="\n")
        for address in self.addresses:
            print(f"listening on {address}")
        rounds = spec.rounds
        first_s, last_s = (ticks * rounds.tick_seconds for ticks in (rounds.first_ticks, rounds.last_ticks))
        why = f": {self._daemon.entry.clock}" if self._daemon.entry.clock else ""
        print(f"rounds of {first_s:g} s at first, {last_s:g} s in the end; a tick is {rounds.tick_seconds:g} s{why}")
        print(f"status {url}", f"join with: {self._join_line()}", "ready", sep="\n", flush=True)

    def members(self) -> Mapping[str, list[str]]:
        """Return where the members are, for those who join."""
        known = self._daemon.membership.known()
        return {peer: list(m.record.addresses) for peer, m in known.items() if not m.record.is_leaving}

    # Membership and duties

    def keep_up(self, tick: int) -> None:
        """Begin this tick's duties, each unless its last is still under way: none of them waits for another."""
        daemon, progress = self._daemon, self._daemon.workers.progress
        if progress.tokens and not daemon.chronicle.losses:
            log.info("training %s; loss %.3f", daemon.session.sub_model, progress.loss or 0.0)
        daemon.chronicle.trained(progress.tokens, progress.loss)
        self._warn(tick)
        self.on_tick(self.status())
        self._begin("read", daemon.membership.refresh)
        if tick - self._published_at >= RENEW_TICKS:
            self._begin("renew", partial(self._renew, tick))
        if tick - self._kept_at >= daemon.config.keep_ticks and self._begin("keep", partial(self._keep_blocks, tick)):
            self._kept_at = tick

    def _begin(self, duty: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """Begin a duty; return False if the last time of it is still under way."""
        task = self._duties.get(duty)
        if task is not None and not task.done():
            return False
        self._duties[duty] = self._daemon.tasks.create_task(work())
        return True

    async def _renew(self, tick: int) -> None:
        await self.publish(tick)
        await asyncio.to_thread(self._daemon.chronicle.save)

    async def publish_again(self) -> None:
        """Write this peer's member record anew, if it has been written before."""
        if self._published_at >= 0:
            await self.publish(self._daemon.clock.tick())

    async def publish(self, tick: int, *, is_leaving: bool = False) -> None:
        """Write this peer's member record."""
        daemon = self._daemon
        is_holding = not (is_leaving or daemon.is_paused)
        record = MemberRecord(
            run_id=daemon.spec.run_id,
            addresses=self.addresses[:MAX_ADDRESSES],
            holdings=hold(daemon.membership.holdings(), daemon.exchanges.held() if is_holding else [], tick),
            strides=daemon.exchanges.strides() if is_holding else {},
            sub_model=daemon.session.sub_model,
            keeps=daemon.store.versions(),
            ages=daemon.store.ages(),
            leases=self._leases() if is_holding else [],
            crowds=daemon.crowds.told() if is_holding else {},
            report=self._report(),
            is_leaving=is_leaving,
        )
        self._published_at = tick
        await daemon.membership.publish(record, is_listed=is_leaving or daemon.crowds.is_listed())

    def _leases(self) -> list[str]:
        sub_model = self._daemon.session.sub_model
        return self._daemon.library.leases(self._daemon.strategy, sub_model) if sub_model else []

    async def _keep_blocks(self, tick: int) -> None:
        """Fetch the newest state of the blocks that this peer keeps for others."""
        daemon = self._daemon
        members = daemon.membership.members(tick)
        for block in sorted(self.ages()):
            holders = daemon.membership.view(block, tick)
            if daemon.me in holders or daemon.me not in keepers(block, holders, members, daemon.config.copies):
                continue
            sources = [peer for peer in members if peer != daemon.me and self._stores(peer, block)]
            try:
                async with asyncio.timeout(KEEP_S):
                    if found := await daemon.store.newest(block, sources):
                        await daemon.store.keep(found[0], found[1][0])
            except (ShoalError, TimeoutError) as error:
                log.info("%s is not kept yet: %s", block, error)

    async def hand_over(self) -> None:
        """Let others fetch what would have too few copies without this peer; returns when they have stored it."""
        daemon, tick = self._daemon, self._daemon.clock.tick()
        others = [peer for peer in daemon.membership.members(tick) if peer != daemon.me]

        async def one(peer: str, index: int) -> None:
            state = states[index]
            try:
                await ask_keep(daemon.network.stub(State, peer, daemon.spec.run_id), state)
                log.info("handed %s version %d over to %s", state.block, state.version, peer)
            except ShoalError as error:
                log.warning("could not hand %s over to %s: %s", state.block, peer, error)

        states = daemon.store.block_states()
        async with asyncio.TaskGroup() as group:
            for index, state in enumerate(states):
                holders = [peer for peer in daemon.membership.view(state.block, tick) if peer != daemon.me]
                for peer in keepers(state.block, holders, others, daemon.config.copies):
                    group.create_task(one(peer, index))

    # What is known

    def acting_tick(self) -> int:
        """Return the tick at which what is published now will act."""
        return self._daemon.clock.tick() + ACT_TICKS

    def ages(self) -> dict[str, int]:
        """Return the age of every block that anybody stores."""
        ages = self._daemon.store.ages()
        for member in self._daemon.membership.known().values():
            for block, age in member.record.ages.items():
                ages[block] = max(age, ages.get(block, 0))
        return ages

    def leased(self) -> Mapping[str, int]:
        """Return how many other peers train on each data shard, by its content id."""
        known = self._daemon.membership.known().items()
        return Counter(shard for peer, member in known if peer != self._daemon.me for shard in member.record.leases)

    def is_done(self, sub_model: str) -> bool:
        """Return whether a sub-model has had all its tokens."""
        return self.ages().get(sub_model, 0) >= self._schedule.last_age(sub_model)

    def status(self) -> Status:
        """Return everything there is to show, now."""
        daemon, tick = self._daemon, self._daemon.clock.tick()
        known, ages, versions = daemon.membership.known(), daemon.store.ages(), daemon.store.versions()
        peers = [self._own_status(tick)] + [
            peer_status(peer, member.record.report, member.issued_tick)
            for peer, member in sorted(known.items())
            if peer != daemon.me and not member.record.is_leaving
        ]
        blocks = []
        for block in sorted(self.ages()):
            own = (versions[block], ages[block]) if block in versions else None
            status = block_status(block, known, daemon.membership.view(block, tick), tick, own)
            last_round, outcome = daemon.chronicle.outcomes.get(block, (0, ""))
            length = daemon.spec.rounds.length(status.age) * daemon.membership.strides(block, tick).get(daemon.me, 1)
            blocks.append(
                status.model_copy(update={"last_round": last_round, "outcome": outcome, "round_ticks": length})
            )
        age = self._swarm_age()
        return Status(
            version=__version__,
            peer_id=daemon.me,
            run_id=daemon.spec.run_id,
            run_name=daemon.spec.name,
            strategy=daemon.spec.strategy.kind,
            phase=self._phase(),
            state=self._state(),
            tick=tick,
            tick_seconds=daemon.spec.rounds.tick_seconds,
            started_at=self._started_at,
            addresses=self.addresses,
            join=self._join_line(),
            url=self._url,
            sub_models={name: self._domain(name) for name in (COMMON, *daemon.strategy.sub_models)},
            blocks=blocks,
            peers=peers,
            age=age,
            total_tokens=daemon.spec.total_tokens,
            eta_s=eta_seconds(age, daemon.spec.total_tokens, sum(peer.tokens_per_s for peer in peers)),
            warnings=[self._warning] if self._warning else [],
            skipped=dict(daemon.chronicle.skipped),
            losses=daemon.chronicle.losses,
            events=list(daemon.chronicle.events),
        )

    def _warn(self, tick: int) -> None:
        """See whether this peer trains alone although there are others; say so once, and once when it is over."""
        daemon = self._daemon
        blocks = [block for block in daemon.session.replicas if daemon.exchanges.takes_part(block)]
        others = max((len(daemon.membership.view(block, tick)) - 1 for block in blocks), default=0)
        if self._state() != "training" or others < 1:
            daemon.company.begin()
            self._warning = ""
            return
        strides = daemon.membership.strides(blocks[0], tick)
        age = daemon.session.replicas[blocks[0]].state.age
        stride = max(strides.get(daemon.me, 1), group_stride(strides))
        met = Circumstances(others, round_seconds(daemon.spec, age, stride), daemon.workers.progress.step_s)
        before, self._warning = self._warning, daemon.company.warning(met)
        if self._warning and not before:
            log.warning("%s", self._warning)
            daemon.chronicle.happened(self._warning)
        elif before and not self._warning:
            log.info("a round was sealed with others again")

    def _own_status(self, tick: int) -> PeerStatus:
        return peer_status(self._daemon.me, self._report(), tick)

    def _report(self) -> Report:
        daemon, progress = self._daemon, self._daemon.workers.progress
        is_training = self._state() == "training"
        return Report(
            state=self._state(),
            sub_model=daemon.session.sub_model,
            domain=self._domain(daemon.session.sub_model) if daemon.session.sub_model else "",
            rounds=daemon.chronicle.rounds,
            loss=progress.loss,
            tokens=daemon.chronicle.tokens,
            tokens_per_s=progress.tokens_per_s if is_training else 0.0,
            bytes_in=daemon.traffic.bytes_in,
            bytes_out=daemon.traffic.bytes_out,
            digests=packed_digests({block: replica.marks for block, replica in daemon.session.replicas.items()}),
        )

    def _state(self) -> str:
        if self.state == "training":
            if self._daemon.is_paused:
                return "paused"
            if not self._daemon.session.sub_model:
                return "serving"
        return self.state

    def _phase(self) -> str:
        daemon = self._daemon
        if all(self.is_done(name) for name in daemon.strategy.sub_models):
            return "done"
        is_parted = any(name in self.ages() for name in daemon.strategy.sub_models if name != COMMON)
        return "parted" if is_parted else "common"

    def _swarm_age(self) -> int:
        """Return the tokens that all blocks together have absorbed, the common ones counted once."""
        ages = self.ages()
        common = ages.get(COMMON, 0)
        parted = [max(0, ages.get(name, 0) - common) for name in self._daemon.strategy.sub_models if name != COMMON]
        return max(common + sum(parted), ages.get(TRUNK, 0))

    def _stores(self, peer: str, block: str) -> bool:
        record = self._daemon.membership.record(peer)
        return record is not None and block in record.keeps

    def _domain(self, sub_model: str) -> str:
        index = self._daemon.strategy.domain(sub_model)
        return "all" if index is None else self._daemon.library.domains[index].name

    def _join_line(self) -> str:
        address = self.addresses[0] if self.addresses else "ADDRESS"
        return f"shoal join {address} --run {self._daemon.spec.run_id}"
