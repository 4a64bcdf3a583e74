"""Whether this peer's rounds are sealed together with others, and, if not, what a person should know about it."""

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from configs.cores import usable_cores
from peer.block.exchange import BEHIND, UNFETCHED
from peer.block.stride import Trial
from peer.block.timing import group_stride, round_seconds
from peer.http.status import Finding
from peer.member.report import Parts
from protocols.sealing import UNHEARD, UNNAMED

log = logging.getLogger(__name__)

ALONE_S, ALONE_ROUNDS = 60.0, 5  # without a round that was sealed with others; then it is said
ROUNDS_OF_ALONE_S = 2  # that must fit into these seconds
BUSY_LOAD = 1.25  # programs that want a core, for each core
KEPT = 20  # causes of failed rounds


@dataclass(frozen=True)
class Circumstances:
    """What a round of this peer meets, now."""

    others: int  # peers that hold the same block
    round_s: float
    step_s: float | None
    # Programs that wanted a core in the last minute; None where that is not known.
    load: float | None = field(default_factory=lambda: os.getloadavg()[0] if hasattr(os, "getloadavg") else None)
    because: Finding | None = None  # what is known to be wrong here, and reason enough
    cores: Callable[[], float] = usable_cores  # asked only when something is wrong: it reads many files


class Company:
    """Remembers how the rounds with others ended since the last that was sealed. `now` in monotonic seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since = now()
        self._failed: deque[str] = deque(maxlen=KEPT)  # causes
        self._count = 0
        self._last: Trial | None = None
        self.present: Finding | None = None  # as long as it holds

    def ended(self, trial: Trial, cause: str) -> None:
        """Take in how a round with others ended: `cause` is empty if it was sealed."""
        self._last = trial
        if trial.is_sealed:
            self.begin()
        else:
            self._failed.append(cause)
            self._count += 1

    def begin(self) -> None:
        """Count from now on: a round was sealed, or there is nobody to seal one with."""
        self._since, self._count = self._now(), 0
        self._failed.clear()

    def see(self, met: Circumstances | None) -> str:
        """Look at what rounds meet now, None for a peer that has none; return a warning when it is new, else nothing.

        `present` stays what is wrong until it is over.
        """
        before = self.present
        if met is None or met.others < 1:
            self.begin()
            self.present = None
            return ""
        self.present = self.finding(met)
        if before is not None and self.present is None:
            log.info("a round was sealed with others again")
        return "" if before is not None or self.present is None else self.present.line()

    def finding(self, met: Circumstances) -> Finding | None:
        """Say that this peer trains alone although there are others, why, and what helps; None if it does not."""
        seconds = self._now() - self._since
        is_long = seconds >= max(ALONE_S, ROUNDS_OF_ALONE_S * met.round_s)
        if not met.others or not (is_long or self._count >= ALONE_ROUNDS):
            return None
        who = "the other peer" if met.others == 1 else f"any of the {met.others} other peers"
        rounds = f"{self._count} round{'' if self._count == 1 else 's'}"
        alone = f"this peer trains alone: nothing sealed with {who} for {seconds:.0f} s, {rounds}"
        code, cause, cure = self._cause(met)
        affects = "this peer's work: the others do not have it"
        return Finding(code=code, affects=affects, cause=f"{alone}: {cause}", cure=cure, is_severe=True)

    def _cause(self, met: Circumstances) -> tuple[str, str, str]:
        """Return the code of what is wrong, why it is so, and what helps."""
        if met.because is not None:
            return met.because.code, met.because.cause, met.because.cure
        if met.step_s is not None and met.step_s > met.round_s:
            return (
                "long-steps",
                f"a step takes {met.step_s:.2g} s here, and a round {met.round_s:.2g} s",
                "rounds are being made longer; a run that is founded with "
                f"SHOAL_RUN__ROUNDS__TICK_SECONDS={4 * met.step_s:.0f} begins with long ones",
            )
        is_busy = met.load is not None and met.load > BUSY_LOAD * met.cores()
        if self._last is not None and self._last.is_late:
            ready = "never" if self._last.offer_s is None else f"{self._last.offer_s:.2g} s after the tick"
            why = f"this machine's cores are busy, {met.load:.1f} programs want {met.cores():g}" if is_busy else "slow"
            cure = "end other programs" if is_busy else "rounds are being made longer"
            return (
                "busy-processor" if is_busy else "slow-machine",
                f"the own offer is ready {ready}, the cut is after {self._last.cut_s:.2g} s ({why})",
                cure,
            )
        match Counter(self._failed).most_common(1):
            case [(cause, _)] if cause == UNHEARD:
                hint = "; this machine's cores are busy, too" if is_busy else ""
                return (
                    "unheard",
                    "the others were not heard: they are gone, too busy, or cannot be reached on the port that their "
                    f"address names{hint}",
                    "see what `shoal status` says of each of them, and `shoal doctor ADDR`",
                )
            case [(cause, _)] if cause in (UNNAMED, UNFETCHED):
                return (
                    "slow-link",
                    "offers do not arrive in time: a link is too slow for these rounds",
                    "free it, or say `--up-mbit` where it is; rounds are being made longer",
                )
            case [(cause, _)] if cause == BEHIND:
                return "behind", "the others' state could not be fetched", "the log says why"
        return "alone", "no round has ended yet", ""


def circumstances(parts: Parts, tick: int, because: Finding | None = None) -> Circumstances | None:
    """Return what the rounds of this peer meet at `tick`, and why, if known; None while it takes part in none."""
    facts, membership, replicas = parts.facts, parts.membership, parts.session.replicas
    blocks = [block for block, replica in replicas.items() if not replica.state.is_final]
    if not blocks or not parts.activity.takes_part():
        return None
    strides = membership.strides(blocks[0], tick)
    stride = max(strides.get(facts.me, 1), group_stride(strides))
    return Circumstances(
        others=max(len(membership.view(block, tick)) - 1 for block in blocks),
        round_s=round_seconds(facts.spec, replicas[blocks[0]].state.age, stride),
        step_s=parts.session.progress.usual_step_s,
        because=because,
    )
