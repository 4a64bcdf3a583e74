"""Sees how a member fares, tick by tick: what it has learnt, whether rounds are sealed with others, what is wrong.

It remembers what only time shows; what follows from all of it is decided in `diagnosis.py`, and shown by `report.py`.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dht.membership import TWIN
from peer.block.timing import group_stride, round_seconds
from peer.http.health import Pulse
from peer.http.status import Coverage, Finding, Status
from peer.member import clocks, diagnosis
from peer.member.clocks import Clocks
from peer.member.company import Company, circumstances
from peer.member.diagnosis import SubModel, Trouble
from peer.member.examiner import warning
from peer.member.invited import end_of_invitation
from peer.member.report import Parts, status_of
from peer.member.rounds import RoundEnd
from peer.member.share import repeats
from peer.member.turns import TURN_TICKS
from peer.member.vitals import LEAST_MEMORY_BYTES, STATE_VALUES, free_of, needed_disk_bytes
from peer.member.watch import FREE_S
from peer.workers.trainer import Event
from protocols.sealing import UNHEARD, UNNAMED

log = logging.getLogger(__name__)

KEPT_TROUBLES = 20
STUCK = f"it is ended and begun anew after {FREE_S / 60:.0f} min; sooner if you leave and start again"
MOST_SHARDS = 256  # of a domain, of which it is told how many peers train on them


class Lookout:
    """What one member sees of itself. `describe` reaches a peer's `Describe`, to compare clocks."""

    def __init__(self, parts: Parts, describe: Callable[[str], Any]) -> None:
        self._parts = parts
        self.company = Company()
        self.clocks = Clocks(parts.facts.clock.now, describe)
        self._troubles: deque[Trouble] = deque(maxlen=KEPT_TROUBLES)
        self._heard_at: int | None = None  # the last tick at which somebody else was present
        self._held_at: dict[str, int] = {}  # sub-model → the last tick at which somebody trained it

    def look(self, tick: int) -> None:
        """Take in how the training goes, whether rounds are sealed with others, and whether anything is stuck."""
        parts, progress = self._parts, self._parts.session.progress
        if progress.tokens and not parts.chronicle.losses:
            log.info("training %s; loss %.3f", parts.session.sub_model, progress.loss or 0.0)
        parts.chronicle.trained(progress)
        if progress.loss is not None:
            step = progress.loss, progress.learning_rate, progress.gradient_norm
            parts.learning.trained(parts.chronicle.tokens, parts.facts.clock.now(), *step)
        for name in parts.facts.strategy.sub_models:
            if parts.membership.view(name, tick):
                self._held_at[name] = tick
        met = circumstances(parts, tick, next(iter(self._causes(tick)), None))
        if self._heard_at is None or any(peer != parts.facts.me for peer in parts.membership.members(tick)):
            self._heard_at = tick
        for news in (*parts.activity.watch.look(), self.company.see(met)):
            if news:
                log.warning("%s", news)
                parts.chronicle.happened(news)

    def ended(self, end: RoundEnd) -> None:
        """Remember what came of a round."""
        chronicle = self._parts.chronicle
        if end.record is not None:
            self._parts.timeline.ended(end.record)
        chronicle.round_ended(end.block, end.tick, end.outcome, self._parts.session.sub_model)
        if end.event:
            chronicle.happened(end.event)
        if end.trial is not None:
            self.company.ended(end.trial, end.outcome.cause or (UNHEARD if end.outcome.is_alone else UNNAMED))

    def on_worker_event(self, event: Event) -> None:
        """Remember what happened to the workers; they mend it themselves. A last failure ends the daemon elsewhere."""
        self._troubles.append(Trouble(event.kind, event.reason, time.monotonic()))
        self._parts.chronicle.happened(f"worker {event.kind}: {event.reason}")

    async def look_at_machine(self) -> None:
        """Look at the disk and the memory."""
        await asyncio.to_thread(self._parts.looker.look)

    async def compare_clocks(self) -> None:
        """Ask some others what their clocks show."""
        await self.clocks.compare(self._parts.outlook.others())

    async def ask_prompts(self) -> None:
        """Let the swarm answer the fixed prompts."""
        parts, clock = self._parts, self._parts.facts.clock
        await parts.prompts.ask(clock.now(), clock.tick(), parts.outlook.swarm_age())

    def status(self) -> Status:
        """Return everything there is to show, now."""
        findings = self.findings()
        status = status_of(self._parts, [finding.line() for finding in findings])
        return status.model_copy(update={"findings": findings, "coverage": self._coverage()})

    async def pulse(self) -> Pulse:
        """Return what this peer's health depends on beside its status."""
        parts = self._parts
        values = sum(replica.state.phi.numel() for replica in parts.session.replicas.values())
        alone = self.company.present
        text = parts.library.stream
        troubles = (
            alone.line() if alone else "",
            *parts.activity.watch.present,
            parts.facts.clock.warning(),
            text.warning if text is not None and text.is_waiting else "",
        )
        return Pulse(
            taken_tick=parts.place.taken_tick,
            is_worker_up=parts.session.workers.is_up,
            silent_s=parts.session.workers.silent_s if self._should_step() else 0.0,
            step_s=parts.session.progress.usual_step_s,
            free_bytes=await asyncio.to_thread(free_of, parts.facts.config.state_dir),
            needed_bytes=STATE_VALUES * values,
            troubles=tuple(text for text in troubles if text),
        )

    def findings(self) -> list[Finding]:
        """Return what is wrong, the severe things first."""
        parts, tick = self._parts, self._parts.facts.clock.tick()
        spec, vitals = parts.facts.spec, parts.looker.vitals
        me, step_s = parts.facts.me, parts.session.progress.usual_step_s
        records = [each for each in parts.timeline.records if each.block in parts.session.replicas]
        known = [m for peer, m in parts.membership.known().items() if peer != me and not m.record.is_leaving]
        failures = {parts.membership.link(peer)[1] for peer in parts.membership.known() if peer != me} - {""}
        alone, causes, tick_s = self.company.present, self._causes(tick), spec.rounds.tick_seconds
        slow = diagnosis.of_lateness(records, me, step_s, tick_s) or self._of_long_steps(tick)
        slow = alone or next(iter(causes), None) or slow  # one reason is enough
        busy = diagnosis.of_busy_cores(vitals.taken_share)
        found = [
            alone,
            *self._told(tick),
            *(each for each in causes if alone is None or each.code != alone.code),
            None if slow is alone or slow in causes else slow,
            None if slow is not None and slow.code == "busy-processor" else busy,
            *diagnosis.of_worker(self._troubles, time.monotonic(), spec.inner.learning_rate),
            diagnosis.of_disk(vitals.disk_free_bytes, needed_disk_bytes(spec), str(parts.facts.config.state_dir)),
            diagnosis.of_memory(vitals.memory_free_bytes, LEAST_MEMORY_BYTES),
            *diagnosis.of_sub_models(self._sub_models(tick)),
            diagnosis.of_skew({domain.name: domain.tokens for domain in parts.library.domains}),
            diagnosis.of_silence(len(known), 0 if self._heard_at is None else tick - self._heard_at, failures),
        ]
        return sorted((finding for finding in found if finding is not None), key=lambda each: not each.is_severe)

    def _causes(self, tick: int) -> list[Finding]:
        """Return what is wrong here that is reason enough for rounds which come to nothing."""
        parts, step_s = self._parts, self._parts.session.progress.usual_step_s
        lengths = [length for length, _ in self._rounds(tick)]
        cut_s = parts.facts.spec.rounds.cut_share * min(lengths, default=math.inf)
        silent_s = parts.session.workers.silent_s if self._should_step() else 0.0
        found = clocks.verdict(self.clocks.offsets, cut_s), diagnosis.of_silent_worker(silent_s, step_s)
        return [each for each in found if each is not None]

    def _should_step(self) -> bool:
        """Return whether the worker should take steps now: one that waits for text does not hang."""
        stream = self._parts.library.stream
        return self._parts.activity.takes_part() and not (stream is not None and stream.is_waiting)

    def _of_long_steps(self, tick: int) -> Finding | None:
        parts = self._parts
        length_s, stride = max(self._rounds(tick), default=(math.inf, 1), key=lambda each: each[1])
        tick_s = parts.facts.spec.rounds.tick_seconds
        return diagnosis.of_long_steps(parts.session.progress.usual_step_s, length_s / stride, stride, tick_s)

    def _rounds(self, tick: int) -> list[tuple[float, int]]:
        """Return how long the rounds of each block of this peer are, in seconds, and their group's stride."""
        spec, replicas, membership = self._parts.facts.spec, self._parts.session.replicas, self._parts.membership
        strides = {block: group_stride(membership.strides(block, tick)) for block in replicas}
        return [(round_seconds(spec, replicas[block].state.age, stride), stride) for block, stride in strides.items()]

    def _told(self, tick: int) -> list[Finding]:
        """Return what other rooms say in one line, in its parts."""
        parts = self._parts
        rise = warning(parts.chronicle.held_out, parts.examiner.folder)
        ending = end_of_invitation(parts.admission, parts.facts.clock.now()) if parts.admission else ""
        twin = TWIN if parts.membership.has_twin else ""
        jump = parts.facts.clock.warning()
        said = [
            ("clock", "ticks, as this machine counts them", jump, ". ", True),
            ("twin", "all rounds of this peer", twin, ": ", True),
            ("held-out-rises", "the model that this peer trains", rise, ". ", False),
            ("invitation", "this peer: it is left out when its invitation ends", ending, ": ", False),
            *(("stuck", "what is under way", f"{text}; {STUCK}", "; ", True) for text in parts.activity.watch.present),
            ("disk-limit", "what is kept for others", parts.disk.present, "; ", False),
            self._of_text(),
            *(("outlet", "what leaves this machine; training goes on", text, "; ", False) for text in self._outward()),
            *(("excluded", "that peer", text, ": ", False) for text in parts.exclusions.told(tick)),
        ]
        return [diagnosis.told(*each) for each in said if each[2]]

    def _of_text(self) -> tuple[str, str, str, str, bool]:
        """Return what is wrong with the store that this peer's text comes from."""
        stream = self._parts.library.stream
        text, is_late = ("", False) if stream is None else (stream.warning, stream.is_waiting)
        return ("text-store", "this peer's training" if is_late else "the text to come", text, "; ", is_late)

    def _outward(self) -> list[str]:
        """Return what is wrong with what leaves this machine: curves, checkpoints."""
        return [text for text in (self._parts.publisher.warning, *self._parts.trackers.warnings()) if text]

    def _sub_models(self, tick: int) -> list[SubModel]:
        parts, spec = self._parts, self._parts.facts.spec
        ages, strategy = parts.outlook.ages(), parts.facts.strategy
        found = []
        for name in strategy.sub_models:
            if name not in ages:
                continue
            turn_ticks = len(strategy.sub_models) * max(TURN_TICKS, spec.rounds.length(ages[name]))
            keepers = [m for m in parts.membership.known().values() if name in m.record.keeps]
            found.append(
                SubModel(
                    name=name,
                    domain=parts.library.domain_name(strategy.domain(name)),
                    holders=len(parts.membership.view(name, tick)),
                    keepers=len(keepers),
                    unheld_turns=(tick - self._held_at.setdefault(name, tick)) / turn_ticks,
                    repeats=repeats(parts, name),
                    is_done=parts.outlook.is_done(name),
                )
            )
        return found

    def _coverage(self) -> list[Coverage]:
        """Return how many peers train on each data shard."""
        parts, strategy = self._parts, self._parts.facts.strategy
        leased = dict(parts.outlook.leased())
        for shard in parts.library.leases(strategy, parts.session.sub_model) if parts.session.sub_model else ():
            leased[shard] = leased.get(shard, 0) + 1
        return [
            Coverage(
                domain=domain.name,
                sub_model=strategy.sub_models[min(index, len(strategy.sub_models) - 1)],
                tokens=domain.tokens,
                holders=[leased.get(shard.content_id, 0) for shard in domain.shards[:MOST_SHARDS]],
            )
            for index, domain in enumerate(parts.library.domains)
        ]
