"""The status: what there is to show of a peer and its swarm, as pure functions of the member's parts."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from configs.protocol import PROTOCOL_VERSION
from dht.admission import Admission
from dht.membership import Member, Membership
from dht.records import Report
from peer import __version__
from peer.answers.asker import Asker
from peer.block.store import BlockStore
from peer.http.status import SILENT, BlockStatus, DigestMark, MemberStatus, PeerStatus, Status
from peer.member.activity import Activity, State
from peer.member.chronicle import Chronicle
from peer.member.control import Control
from peer.member.disk import Disk
from peer.member.examiner import Examiner
from peer.member.exclusions import Exclusions
from peer.member.facts import Facts
from peer.member.learning import Learning
from peer.member.library import Library
from peer.member.newcomers import Newcomers
from peer.member.outlook import Outlook
from peer.member.prompts import Prompts
from peer.member.session import Session
from peer.member.timeline import Timeline
from peer.member.unseen import Trace, why_unseen
from peer.member.vitals import Looker
from peer.publish.publisher import Publisher
from peer.track.feed import Trackers
from peer.train.partition import COMMON
from protocols.offers import Offers
from protocols.sealing import Mark
from protocols.traffic import Traffic

SHOWN_DIGESTS = 5  # the last ones of each block that a record carries
INVITATION = "INVITATION"  # stands in the join line of a closed run for what `shoal invite` puts there


@dataclass
class Place:
    """Where this peer can be found, and since when; filled in as the daemon opens."""

    addresses: list[str] = field(default_factory=list)
    url: str = ""
    taken_tick: int = 0  # the last one that the daemon has gone through
    started_at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Parts:
    """What a member consists of, for those who speak of all of it."""

    facts: Facts
    activity: Activity
    control: Control
    membership: Membership
    store: BlockStore
    outlook: Outlook
    session: Session
    library: Library
    offers: Offers
    chronicle: Chronicle
    timeline: Timeline
    learning: Learning
    asker: Asker
    prompts: Prompts
    looker: Looker
    traffic: Traffic
    newcomers: Newcomers
    examiner: Examiner
    exclusions: Exclusions
    trackers: Trackers
    publisher: Publisher
    disk: Disk
    place: Place
    admission: Admission | None = None  # of a closed run

    def save(self) -> None:
        """Write what this peer has counted and recorded. Raises StateError."""
        self.chronicle.save()
        self.timeline.save()
        self.learning.save()
        self.prompts.save()


def status_of(parts: Parts, warnings: Sequence[str] = ()) -> Status:
    """Return everything there is to show, now."""
    facts, outlook, chronicle, place = parts.facts, parts.outlook, parts.chronicle, parts.place
    tick, age = facts.clock.tick(), outlook.swarm_age()
    peers = _peers(parts, tick)
    return Status(
        version=__version__,
        protocol=PROTOCOL_VERSION,
        peer_id=facts.me,
        run_id=facts.spec.run_id,
        run_name=facts.spec.name,
        strategy=facts.spec.strategy.kind,
        phase=outlook.phase(),
        state=state_of(parts),
        why=parts.activity.why_paused(),
        tick=tick,
        tick_seconds=facts.spec.rounds.tick_seconds,
        started_at=place.started_at,
        addresses=place.addresses,
        join=join_line(parts),
        url=place.url,
        sub_models={name: domain_of(parts, name) for name in (COMMON, *facts.strategy.sub_models)},
        blocks=[_block(parts, block, tick) for block in sorted(outlook.ages())],
        peers=peers,
        age=age,
        total_tokens=facts.spec.total_tokens,
        eta_s=eta_seconds(age, facts.spec.total_tokens, sum(peer.tokens_per_s for peer in peers)),
        dht_records=parts.membership.records(),
        warnings=list(warnings),
        skipped=dict(chronicle.skipped),
        faults=dict(chronicle.faults),
        privacy=parts.session.privacy.told() if parts.session.privacy else "",
        is_closed=facts.spec.admission is not None,
        members=members_of(parts.admission, facts.clock.now()),
        losses=chronicle.losses,
        held_out=chronicle.held_out,
        events=list(chronicle.events),
    )


def report_of(parts: Parts) -> Report:
    """Return what this peer tells the others of itself."""
    session, chronicle, state = parts.session, parts.chronicle, state_of(parts)
    progress, (examined, losses) = session.progress, parts.examiner.last
    return Report(
        state=state,
        sub_model=session.sub_model,
        domain=domain_of(parts, session.sub_model) if session.sub_model else "",
        rounds=chronicle.rounds,
        loss=progress.loss,
        tokens=chronicle.tokens,
        tokens_per_s=progress.tokens_per_s if state == State.TRAINING else 0.0,
        bytes_in=parts.traffic.bytes_in,
        bytes_out=parts.traffic.bytes_out,
        held_out=dict(losses) if examined == session.sub_model else {},
        digests=packed_digests({block: replica.marks for block, replica in session.replicas.items()}),
    )


def take_in(parts: Parts) -> None:
    """Add to the curves what every peer has told of its sub-model on held-out text."""
    now, ages = parts.facts.clock.now(), parts.outlook.ages()
    reports = [report_of(parts), *(member.record.report for member in parts.membership.known().values())]
    for report in reports:
        age = ages.get(report.sub_model)
        if age is not None and report.sub_model in (COMMON, *parts.facts.strategy.sub_models):
            parts.learning.examined(report.sub_model, age, now, report.held_out)
    parts.learning.summed_up(parts.outlook.swarm_age(), now)


def state_of(parts: Parts) -> str:
    """Return what this peer is doing; a worker that has not taken its first step yet is still starting."""
    state = State.LEAVING if parts.activity.leaving.is_set() else parts.activity.state
    is_starting = state is State.TRAINING and parts.session.progress.step_s is None
    return State.STARTING if is_starting else state


def domain_of(parts: Parts, sub_model: str) -> str:
    """Return the name of the domain that a sub-model trains on, `all` for a common one."""
    return parts.library.domain_name(parts.facts.strategy.domain(sub_model))


def join_line(parts: Parts) -> str:
    """Return the line that a new peer types."""
    address = parts.place.addresses[0] if parts.place.addresses else "ADDRESS"
    invitation = f" --invitation {INVITATION}" if parts.facts.spec.admission else ""
    return f"shoal join {address} --run {parts.facts.spec.run_id}{invitation}"


def members_of(admission: Admission | None, now: float) -> list[MemberStatus]:
    """Return whose invitations were seen; nobody's in an open run."""
    if admission is None:
        return []
    revoked = admission.revocations.revoked
    return [
        MemberStatus(
            peer_id=peer,
            rights=sorted(grant.rights),
            until=grant.until,
            invited_by=grant.invited_by,
            holds=grant.holds(now, revoked),
        )
        for peer, grant in sorted(admission.known().items())
    ]


def greeting(parts: Parts, clock: str) -> list[str]:
    """Return the first lines of a daemon: what it is, where it is, how to join; `clock` says why it ticks so."""
    spec, rounds = parts.facts.spec, parts.facts.spec.rounds
    first_s, last_s = (ticks * rounds.tick_seconds for ticks in (rounds.first_ticks, rounds.last_ticks))
    why = f": {clock}" if clock else ""
    return [
        f"shoal {__version__}",
        f"peer {parts.facts.me}",
        f"run {spec.run_id} ({spec.name})",
        *(f"listening on {address}" for address in parts.place.addresses),
        f"rounds of {first_s:g} s at first, {last_s:g} s in the end; a tick is {rounds.tick_seconds:g} s{why}",
        f"status {parts.place.url}",
        f"join with: {join_line(parts)}",
        *(["the run is closed: `shoal invite PEER_ID` prints that line for one peer"] if spec.admission else []),
        "ready",
    ]


def _peers(parts: Parts, tick: int) -> list[PeerStatus]:
    me, present, apart = parts.facts.me, parts.membership.members(tick), parts.membership.apart()
    others = []
    for peer, member in sorted(parts.membership.known().items()):
        if peer == me or member.record.is_leaving:
            continue
        is_present, (link, failure) = peer in present, parts.membership.link(peer)
        silent_s = parts.facts.clock.now() - member.issued
        trace = Trace(is_present, bool(link), bool(member.record.addresses), silent_s, failure, apart.get(peer, ""))
        why = why_unseen(trace)
        shown = peer_status(peer, member.record.report, member.issued_tick, is_present=is_present)
        protocol = member.record.protocol if peer not in apart else 0
        others.append(shown.model_copy(update={"why": why, "link": link, "protocol": protocol}))
    own = peer_status(me, report_of(parts), tick).model_copy(update={"protocol": PROTOCOL_VERSION})
    unread = [PeerStatus(peer_id=peer, state=SILENT, why=why) for peer, why in sorted(apart.items())]
    shown_already = {each.peer_id for each in others}
    return [own, *others, *(each for each in unread if each.peer_id not in shown_already)]


def _block(parts: Parts, block: str, tick: int) -> BlockStatus:
    facts, membership, versions = parts.facts, parts.membership, parts.store.versions()
    own = (versions[block], parts.store.ages()[block]) if block in versions else None
    status = block_status(block, membership.known(), membership.view(block, tick), tick, own)
    last_round, outcome = parts.chronicle.outcomes.get(block, (0, ""))
    length = facts.spec.rounds.length(status.age) * membership.strides(block, tick).get(facts.me, 1)
    record = parts.timeline.last(block)
    told = {"last_round": last_round, "outcome": outcome, "round_ticks": length}
    if record is not None:
        told |= {"group": [part.peer for part in record.parts], "fates": {p.peer: p.fate for p in record.parts}}
    return status.model_copy(update=told)


def packed_digests(marks: Mapping[str, Sequence[Mark]]) -> dict[str, list[tuple[int, str]]]:
    """Return the last digests of each block, as a member record carries them."""
    return {block: [(m.version, m.digest) for m in list(past)[-SHOWN_DIGESTS:]] for block, past in marks.items()}


def peer_status(peer_id: str, report: Report, seen_tick: int, *, is_present: bool = True) -> PeerStatus:
    """Return what a peer has published of itself; of one that is heard no more, no state and no speed of long ago."""
    digests = {
        block: [DigestMark(version=version, digest=digest) for version, digest in marks]
        for block, marks in report.digests.items()
    }
    facts = report.model_dump() | {"digests": digests} | ({} if is_present else {"state": SILENT, "tokens_per_s": 0.0})
    return PeerStatus(peer_id=peer_id, seen_tick=seen_tick, **facts)


def block_status(
    block: str, members: Mapping[str, Member], holders: Sequence[str], tick: int, own: tuple[int, int] | None
) -> BlockStatus:
    """Return how a block stands by the members' records; `own` is this peer's version and age of it."""
    keeping = {peer: m.record for peer, m in members.items() if block in m.record.keeps and not m.record.is_leaving}
    histories = {peer: m.record.report.digests.get(block, []) for peer, m in members.items()}
    version, age = own or (0, 0)
    return BlockStatus(
        block=block,
        holders=list(holders),
        keepers=sorted(peer for peer in keeping if peer not in holders),
        version=max([version, *(record.keeps[block] for record in keeping.values())]),
        age=max([age, *(record.ages.get(block, 0) for record in keeping.values())]),
        agreement=agreement(histories, holders),
    )


def eta_seconds(age: int, total: int, tokens_per_s: float) -> float | None:
    """Return how long the swarm still needs; None while that cannot be known."""
    return max(0.0, total - age) / tokens_per_s if tokens_per_s > 0 else None


def agreement(histories: Mapping[str, Sequence[tuple[int, str]]], holders: Collection[str]) -> float:
    """Return the share of the holders who have the majority's digest at the newest version that most of them know.

    `histories` maps a peer to its last (version, digest) marks of the block. One when nothing contradicts.
    """
    known = {peer: dict(marks) for peer, marks in histories.items() if peer in holders and marks}
    versions = sorted({version for marks in known.values() for version in marks}, reverse=True)
    for version in versions:
        digests = [marks[version] for marks in known.values() if version in marks]
        if 2 * len(digests) > len(known):
            return max(digests.count(digest) for digest in set(digests)) / len(digests)
    return 1.0
