"""What people are shown of a status: one pure function, from which both the terminal and the page are drawn."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Literal

from pydantic import BaseModel

from peer.http.status import BlockStatus, Coverage, Finding, MemberStatus, PeerStatus, Status

DAY_S = 86_400.0
COMMON = "model"  # once sub-models have parted nobody trains it, and nothing is amiss
PHASES = {"common": "common phase", "parted": "sub-models parted", "done": "training done, serving"}
_version = attrgetter("version")
WORST_FIRST = ("left out", "absent", "late", "sealed")  # what may become of an offer

Role = Literal["holder", "keeper", "reader"]


class Headline(BaseModel):
    """Which run and which peer, and what they are doing."""

    version: str
    peer_id: str
    run_id: str
    run_name: str
    strategy: str
    phase: str  # in words
    state: str
    why: str  # it does not train
    tick: int
    tick_seconds: float
    up_s: float
    url: str
    join: str
    is_closed: bool
    privacy: str


class Progress(BaseModel):
    """How far the run is, by what was sealed."""

    age: int
    total_tokens: int
    share: float
    tokens_per_s: float
    ends: str  # such as "done in 13.3 days, on 13 December at 10:26"; empty: not known, or over
    ends_at: float | None  # wall-clock seconds


class Dot(BaseModel):
    """One peer."""

    peer_id: str
    name: str  # the last six characters of its id
    is_me: bool
    role: Role
    sub_model: str
    domain: str
    state: str
    rounds: int
    loss: float | None
    tokens: int
    tokens_per_s: float
    bytes_in: int
    bytes_out: int
    link: str
    why: str  # it is not seen, or cannot be talked to
    excluded: str
    fate: str  # in this peer's last round: sealed, late, absent, left out; empty: it was not in it
    agrees: bool | None  # with the majority's digests; None: there is nothing to compare
    digest: str  # version and digest of the block that it shares with most
    held_out: dict[str, float]


class Sector(BaseModel):
    """One block, and who has it."""

    block: str
    domain: str
    holders: list[str]  # peer ids
    keepers: list[str]
    age: int
    version: int
    round_s: float
    last_round: int
    outcome: str
    agreement: float
    group: list[str]
    gap: str  # what is missing: "nobody trains it", "only one peer has it"; empty: nothing


class View(BaseModel):
    """Everything that is drawn at one moment."""

    at: float  # wall-clock seconds of the daemon
    headline: Headline
    progress: Progress
    findings: list[Finding]
    sectors: list[Sector]
    dots: list[Dot]
    coverage: list[Coverage]
    members: list[MemberStatus]
    losses: list[tuple[int, float]]
    held_out: dict[str, list[tuple[int, float]]]
    events: list[str]


def view(status: Status, now: float) -> View:
    """Return what there is to draw of `status` at `now`, in wall-clock seconds."""
    speed = sum(peer.tokens_per_s for peer in status.peers)
    is_over = status.phase == "done"
    return View(
        at=now,
        headline=Headline(
            version=status.version,
            peer_id=status.peer_id,
            run_id=status.run_id,
            run_name=status.run_name,
            strategy=status.strategy,
            phase=PHASES.get(status.phase, status.phase),
            state=status.state,
            why=status.why,
            tick=status.tick,
            tick_seconds=status.tick_seconds,
            up_s=max(0.0, now - status.started_at),
            url=status.url,
            join=status.join,
            is_closed=status.is_closed,
            privacy=status.privacy,
        ),
        progress=Progress(
            age=status.age,
            total_tokens=status.total_tokens,
            share=min(1.0, status.age / status.total_tokens) if status.total_tokens else 0.0,
            tokens_per_s=speed,
            ends="" if is_over or status.eta_s is None else ending(status.eta_s, now),
            ends_at=None if is_over or status.eta_s is None else now + status.eta_s,
        ),
        findings=status.findings,
        sectors=[_sector(status, block) for block in status.blocks],
        dots=_dots(status),
        coverage=status.coverage,
        members=status.members,
        losses=status.losses,
        held_out=status.held_out,
        events=status.events,
    )


def ending(eta_s: float, now: float) -> str:
    """Say when something ends, with its date where the hour alone would mislead."""
    at = time.localtime(now + eta_s)
    is_today = time.localtime(now)[:3] == at[:3]
    year = "" if time.localtime(now).tm_year == at.tm_year else f" {at.tm_year}"
    day = "" if is_today else f"on {at.tm_mday} {time.strftime('%B', at)}{year} "
    return f"done in {duration(eta_s)}, {day}at {time.strftime('%H:%M', at)}"


def duration(seconds: float) -> str:
    """Write a duration with one unit that matters: 45 s, 12 min, 3.5 h, 2.1 days."""
    for limit, divisor, unit in ((100, 1, "s"), (100 * 60, 60, "min"), (72 * 3600, 3600, "h")):
        if seconds < limit:
            return f"{seconds / divisor:.1f} {unit}" if unit == "h" else f"{seconds / divisor:.0f} {unit}"
    return f"{seconds / DAY_S:.1f} days"


Votes = Mapping[tuple[str, int], Mapping[str, int]]  # (block, version) → digest → how many peers have published it


def tally(peers: Sequence[PeerStatus]) -> Votes:
    """Count the digests that `peers` have published, each peer once for a version of a block."""
    votes: dict[tuple[str, int], dict[str, int]] = {}
    for peer in peers:
        for block, marks in peer.digests.items():
            counted = set()
            for mark in marks:
                if mark.version not in counted:
                    counted.add(mark.version)
                    cast = votes.setdefault((block, mark.version), {})
                    cast[mark.digest] = cast.get(mark.digest, 0) + 1
    return votes


def agreement(peer: PeerStatus, votes: Votes) -> bool | None:
    """Say whether `peer` has the majority's digest of each block that it shares; None: there is nothing to compare.

    A block is compared at the newest version for which another peer has published a digest too.
    """
    verdicts = []
    for block, marks in peer.digests.items():
        shared = [mark for mark in marks if sum(votes[block, mark.version].values()) > 1]
        if shared:
            mark = max(shared, key=_version)
            cast = votes[block, mark.version]
            verdicts.append(cast[mark.digest] == max(cast.values()))
    return all(verdicts) if verdicts else None


def newest_digest(peer: PeerStatus, sharers: Mapping[str, int]) -> str:
    """Return version and digest of the block that `peer` shares with the most others; of its own one in a tie.

    `sharers`: block → how many peers have published a digest of it.
    """
    if not any(peer.digests.values()):
        return ""
    block = max((b for b, marks in peer.digests.items() if marks), key=lambda b: (sharers[b], b == peer.sub_model))
    mark = max(peer.digests[block], key=_version)
    return f"{mark.version}:{mark.digest[:6]}"


def gap(block: BlockStatus, *, is_over: bool) -> str:
    """Say what a block lacks: somebody who trains it, or a second one who has it; nothing if it lacks nothing."""
    if not block.holders and not block.keepers:
        return "nobody has it"
    if not block.holders and not is_over:
        return "nobody trains it now"
    if len({*block.holders, *block.keepers}) == 1:
        return "only one peer has it"
    return ""


def _dots(status: Status) -> list[Dot]:
    """Return all peers; what they are compared with is counted once, for there may be hundreds."""
    votes = tally(status.peers)
    sharers = Counter(block for peer in status.peers for block, marks in peer.digests.items() if marks)
    holders = {peer for block in status.blocks for peer in block.holders}
    keepers = {peer for block in status.blocks for peer in block.keepers}
    fates: dict[str, Counter[str]] = {}
    for block in status.blocks:
        for peer_id, fate in block.fates.items():
            fates.setdefault(peer_id, Counter())[fate] += 1
    return [
        Dot(
            peer_id=peer.peer_id,
            name=peer.peer_id[-6:],
            is_me=peer.peer_id == status.peer_id,
            role="holder" if peer.peer_id in holders else "keeper" if peer.peer_id in keepers else "reader",
            sub_model=peer.sub_model,
            domain=peer.domain,
            state=peer.state,
            rounds=peer.rounds,
            loss=peer.loss,
            tokens=peer.tokens,
            tokens_per_s=peer.tokens_per_s,
            bytes_in=peer.bytes_in,
            bytes_out=peer.bytes_out,
            link=peer.link,
            why=peer.why,
            excluded=peer.excluded,
            fate=next((fate for fate in WORST_FIRST if fate in fates.get(peer.peer_id, ())), ""),
            agrees=agreement(peer, votes),
            digest=newest_digest(peer, sharers),
            held_out=peer.held_out,
        )
        for peer in status.peers
    ]


def _sector(status: Status, block: BlockStatus) -> Sector:
    return Sector(
        block=block.block,
        domain=status.sub_models.get(block.block, ""),
        holders=block.holders,
        keepers=block.keepers,
        age=block.age,
        version=block.version,
        round_s=block.round_ticks * status.tick_seconds,
        last_round=block.last_round,
        outcome=block.outcome,
        agreement=block.agreement,
        group=block.group,
        gap=gap(block, is_over=status.phase == "done" or (status.phase == "parted" and block.block == COMMON)),
    )
