"""What must hold whatever goes wrong, as pure functions of what was seen from outside.

Each returns what is broken, a line for each; nothing when it holds. Rounds are of one tick here.
"""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dht.membership import ACT_TICKS, HOLD_TICKS
from peer.block.timing import CLOSE_SHARE, LIST_SHARE
from peer.chaos.daemons import Life, RoundLine, Sample
from peer.chaos.schedule import Fault
from peer.workers.supervisor import LEAST_ANSWER_S

GOES_ON_ROUNDS = 2  # after one fault, until those whom it leaves a majority seal again
LAPSE_ROUNDS = HOLD_TICKS + ACT_TICKS + 2  # until those whom it leaves no majority do: the others' records must lapse
AGREE_ROUNDS = 20  # after the last fault, until all have the same bits
AGREE_S = 45.0  # the same where so many rounds take less: a network's own waits are not shortened with them
CUT_SHARE = 0.4  # of a round, in the preset of these swarms: when gathering ends
LOST_ROUNDS = 2.0  # of a peer's work, that may go with one of its processes: the unfinished one, and what was not seen
KEPT_ROUNDS = 8  # of a block with one holder, that may go with it: those since it was fetched by its keepers
OPEN_ROUNDS = 6.0  # whose work is on its way when a play ends


@dataclass(frozen=True)
class Done:
    """A fault that was done: from when to when, in wall-clock seconds."""

    fault: Fault
    began: float
    ended: float


@dataclass
class Seen:
    """All that was seen of a play. Peers are numbers; times are wall-clock seconds."""

    genesis: float
    tick_s: float
    block: str
    lives: Mapping[int, Sequence[Life]]
    done: Sequence[Done]
    since: float = 0.0  # what was before is another's
    gone: frozenset[int] = frozenset()  # who is not there in the end

    def tick(self, at: float) -> float:
        """Return the tick, with its part that has passed, at a time."""
        return (at - self.genesis) / self.tick_s

    def rounds(self, peer: int) -> list[RoundLine]:
        """Return the rounds of a peer in the order of time."""
        lines = (line for life in self.lives[peer] for line in life.rounds)
        return [line for line in lines if line.block == self.block and line.at >= self.since]

    @property
    def present(self) -> list[int]:
        """Who is to be there in the end."""
        return sorted(self.lives.keys() - self.gone)


def goes_on(seen: Seen) -> list[str]:
    """After a single fault the others seal within `GOES_ON_ROUNDS`, without a majority within `LAPSE_ROUNDS`."""
    broken = []
    for done in _singles(seen):
        others = _bystanders(seen, done)
        before = len(seen.lives)
        within = GOES_ON_ROUNDS if 2 * _largest_side(done.fault, others) > before else LAPSE_ROUNDS
        began = math.ceil(seen.tick(done.began))
        for peer in others:
            steps = [line for line in seen.rounds(peer) if line.is_step and line.round >= began]
            if not steps:
                broken.append(f"peer {peer} sealed nothing after {done.fault.kind}")
            elif steps[0].round - began > within:
                late = steps[0].round - began
                broken.append(f"peer {peer} sealed again {late} rounds after {done.fault.kind}, not {within}")
            elif steps[-1].age <= steps[0].age and len(steps) > 1:
                broken.append(f"peer {peer} sealed after {done.fault.kind}, but the age stood at {steps[0].age}")
    return broken


def waits_for_nobody(seen: Seen) -> list[str]:
    """While the dead count, for `LAPSE_ROUNDS`, the others' rounds end when they should: the dead cost the cut at most.

    Of each of them the median counts: one round in which the machine itself stood still is none in which it waited.
    So does what was usual before: what became later by less than the cut and the lists waited for nobody.
    """
    broken = []
    for done in _singles(seen):
        began = math.ceil(seen.tick(done.began))
        for peer in _bystanders(seen, done):
            before_s = _usual_s(seen, peer, began - LAPSE_ROUNDS, began)
            after_s = _usual_s(seen, peer, began, began + LAPSE_ROUNDS)
            allowed_s = max(CLOSE_SHARE * seen.tick_s, before_s + (CUT_SHARE + LIST_SHARE) * seen.tick_s)
            if after_s > allowed_s:
                broken.append(
                    f"peer {peer}'s rounds took {after_s:.2f} s after {done.fault.kind}, {before_s:.2f} s before"
                )
    return broken


def _usual_s(seen: Seen, peer: int, first: int, last: int) -> float:
    """Return how long the rounds from `first` to before `last` took, by the median; 0 if there were none."""
    lines = [line for life in seen.lives[peer] for line in life.rounds if first <= line.round < last]
    return statistics.median([line.at - (seen.genesis + line.round * seen.tick_s) for line in lines] or [0.0])


def agreed_at(seen: Seen) -> RoundLine | None:
    """Return the first round after the last fault that all sealed together, to the same bits; None without one."""
    since = max((done.ended for done in seen.done), default=0.0)
    present = seen.present
    words = f"sealed {len(present)} of {len(present)}" if len(present) > 1 else "alone"
    by_peer = [
        {line.round: line for line in seen.rounds(peer) if line.round > seen.tick(since) and words in line.outcome}
        for peer in present
    ]
    for number in sorted(set.intersection(*map(set, by_peer)) if by_peer else ()):
        lines = [lines[number] for lines in by_peer]
        if len({(line.version, line.digest) for line in lines}) == 1:
            return lines[0]
    return None


def agree(seen: Seen) -> list[str]:
    """All have the same bits within `AGREE_ROUNDS` of the last fault."""
    line, rounds = agreed_at(seen), recovery_rounds(seen)
    if line is None:
        last = {peer: lines[-1].outcome if (lines := seen.rounds(peer)) else "nothing" for peer in seen.present}
        return [f"they did not agree after the last fault: {last}"]
    most = agree_rounds(seen)
    return [] if rounds <= most else [f"they agreed {rounds:.0f} rounds after the last fault, not {most:.0f}"]


def recovery_rounds(seen: Seen) -> float:
    """Return how many rounds lay between the end of the last fault and the first that all sealed to the same bits."""
    line = agreed_at(seen)
    since = max((done.ended for done in seen.done), default=seen.genesis)
    return math.inf if line is None else max(0.0, line.round - math.floor(seen.tick(since)))


def agree_rounds(seen: Seen) -> float:
    """Return the rounds that they have for that."""
    return max(AGREE_ROUNDS, math.ceil(AGREE_S / seen.tick_s)) + given_up_rounds(seen)


def given_up_rounds(seen: Seen) -> float:
    """Return the rounds in which a worker that hangs is waited for, until it is started again."""
    is_hung = any(done.fault.kind == "hang_worker" for done in seen.done)
    return math.ceil(1.2 * LEAST_ANSWER_S / seen.tick_s) if is_hung else 0


def loses_one_round(seen: Seen) -> list[str]:
    """Whoever was started again goes on, at the latest, from the round before the one in which it was ended."""
    damaged = {peer for done in seen.done if done.fault.kind == "damage" for peer in done.fault.peers}
    broken = []
    for peer in seen.lives.keys() - damaged:
        lives = [
            lines
            for life in seen.lives[peer]
            if (life.ended or math.inf) >= seen.since
            and (lines := [line for line in life.rounds if line.block == seen.block])
        ]
        for before, after in itertools.pairwise(lives):
            if after[0].version < before[-1].version - 1:
                broken.append(
                    f"peer {peer} had version {before[-1].version}, and {after[0].version} when started again"
                )
    return broken


def no_surprise(seen: Seen) -> list[str]:
    """No daemon met an error that nobody foresaw."""
    return [
        f"peer {peer} wrote {count} tracebacks"
        for peer, lives in seen.lives.items()
        if (count := sum(at >= seen.since for life in lives for at in life.tracebacks))
    ]


ALL = (goes_on, waits_for_nobody, agree, loses_one_round, no_surprise)


def check(seen: Seen) -> list[str]:
    """Return everything that is broken."""
    return [line for invariant in ALL for line in invariant(seen)]


@dataclass(frozen=True)
class Orphan:
    """A block whose last holder was killed, and how often it had stepped by the others' records."""

    block: str
    version: int
    at: float


def taken_up(orphan: Orphan, lines: Sequence[RoundLine]) -> bool:
    """Say whether a block whose last holder died goes on from what its keepers had; `lines` are of the others."""
    later = [line for line in lines if line.block == orphan.block and line.at > orphan.at and line.is_step]
    return any(line.version > max(0, orphan.version - KEPT_ROUNDS) for line in later)


def _singles(seen: Seen) -> list[Done]:
    """Return the faults beside which, and for `LAPSE_ROUNDS` before which, there was no other."""
    lapse_s = LAPSE_ROUNDS * seen.tick_s

    def is_alone(done: Done) -> bool:
        others = [other for other in seen.done if other is not done]
        return all(done.began > other.ended + lapse_s or other.began > done.ended + lapse_s for other in others)

    return [done for done in seen.done if is_alone(done)]


def _bystanders(seen: Seen, done: Done) -> list[int]:
    if done.fault.kind == "partition":
        return sorted(seen.lives)
    return sorted(seen.lives.keys() - done.fault.victims())


def _largest_side(fault: Fault, others: Sequence[int]) -> int:
    """Return how many of those who go on hear each other, at least."""
    if fault.kind != "partition":
        return len(others)
    named = {peer for side in fault.sides for peer in side}
    first = len(fault.sides[0]) + len(set(others) - named)
    return min(first, *(len(side) for side in fault.sides[1:]))


@dataclass(frozen=True)
class Work:
    """The work of one peer over all its lives."""

    peer: int
    lives: Sequence[Life]
    saved_tokens: Sequence[int]  # what its counter had at the start of each life
    counted: int  # tokens that the block's age has of it in the end
    ends: int  # of its workers, beside those of its lives
    is_damaged: bool  # files of it were, with what it had yet to send


def counts_what_was_trained(work: Work, tick_s: float) -> list[str]:
    """The tokens in the block's age are those that a peer has trained, but for the rounds that are on their way."""
    samples = [life.samples for life in work.lives]
    a_round = max((_per_round(each, tick_s) for each in samples), default=0.0)
    pairs = zip(samples, work.saved_tokens, strict=False)
    trained = sum(max(0, each[-1].tokens - saved) for each, saved in pairs if each)
    lost = (OPEN_ROUNDS + LOST_ROUNDS * (len(samples) + work.ends)) * a_round
    hidden_s = sum(
        life.ended - (life.samples[-1].at if life.samples else life.began) for life in work.lives if life.ended
    )
    most = trained + a_round * (2 * hidden_s / tick_s + 1)
    if work.counted > most:
        return [f"peer {work.peer} trained {most:,.0f} tokens at most, but {work.counted:,} were counted"]
    if work.counted < trained - lost and not work.is_damaged:
        return [f"peer {work.peer} trained {trained - lost:,.0f} tokens at least, but {work.counted:,} were counted"]
    return []


def _per_round(samples: Sequence[Sample], tick_s: float) -> float:
    pairs = itertools.pairwise(samples)
    rates = [(b.tokens - a.tokens) / (b.at - a.at) for a, b in pairs if b.at > a.at]
    return max(rates, default=0.0) * tick_s
