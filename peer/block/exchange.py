"""One exchange of one block, from the snapshot to the new anchor: offer, gather, seal, repair, step.

Network in `protocols/gossip.py`, arithmetic in `peer/block/replica.py` (in a thread); here is their order.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from configs.content import chunk_hashes, content_id
from configs.errors import NetworkError, PeerError, ShoalError
from dht.identity import Identity
from peer.block.codec_choice import COARSE
from peer.block.replica import Replica, read_offer
from peer.block.threads import unbroken
from peer.train.outer import Contribution, OuterState, merge, most_state_bytes, read_state
from protocols.fetching import Group
from protocols.gossip import Heard, Stand, Timing, close, fetch_sealed, gather, history
from protocols.grouping import draw
from protocols.offers import KEPT_ROUNDS, OfferList, Offers, SealedRound
from protocols.parcels import Offer, OfferHeader, sign_offer
from protocols.sealing import UNHEARD, Mark, Quorum, Standing, compare, quorum
from protocols.shards import download_bytes

log = logging.getLogger(__name__)

DOWNLOAD_S = 600.0
EXPECT_S = 600.0  # since its last step, after which a lone holder waits for no newcomer
GUESTS = 2  # groups of holders without a voice that take part in a round, of more
ASKED = 16  # peers that are asked for the rounds that lead to a state
TELLERS = 3  # of those who stand there, that are asked one after the other how to come there
FAILED = "could not follow the group"
UNFETCHED, BEHIND, RESTARTED = "unfetched", "behind", "restarted"  # why a sealed round is skipped here

Read = Callable[[Offer], None]
Lists = Mapping[str, OfferList]  # by the member that gave it


@dataclass(frozen=True)
class Swarm:
    """How rounds reach the other peers."""

    run_id: str
    identity: Identity
    offers: Offers
    offers_stub: Callable[[str], Any]
    shards_stub: Callable[[str], Any]
    folder: Path  # of this peer's checkpoints
    expects: Callable[[], bool] = lambda: False  # whether a newcomer is on the way, who downloads the state
    domains: Callable[[str], Collection[str]] = lambda block: ()  # that an offer of a block may name; none: any


@dataclass(frozen=True)
class Work:
    """What this peer brings to a round: θ at its end, (N,), its cumulative tokens, and its domain."""

    theta: Tensor
    tokens: int
    domain: str


@dataclass(frozen=True)
class Outcome:
    """What came of a round, in words, and whether the block took its step."""

    text: str
    is_step: bool
    cause: str = ""  # of a round that was skipped: UNHEARD, UNNAMED, or one of those below
    offer_s: float | None = None  # from the beginning of the round until the own offer was ready
    is_alone: bool = False  # there is nobody else, or nobody has been heard for long
    is_shared: bool = False  # the step has another peer's offer in it


async def run_round(
    swarm: Swarm, replica: Replica, round_: int, view: Sequence[str], work: Work, timing: Timing
) -> Outcome:
    """Exchange `replica`'s block at tick `round_` with its `view`.

    Afterwards the replica has the group's bits, or is what it was. Cancellation before the step drops the round: then
    the offer that was made is still owed.
    """
    swarm.offers.lineages[replica.block] = replica.lineage  # for others' repairs
    if list(view) == [replica.me]:
        if _is_awaiting(swarm, replica, round_) and round_ > replica.offered_round:
            await unbroken(replica.wait, round_, work.theta, work.tokens, swarm.folder)
            return Outcome("alone; no step while somebody downloads the state", False, is_alone=True)
        await _change(swarm, replica, replica.advance_alone, round_, work.theta, work.tokens)
        return Outcome("alone", True, is_alone=True)
    decoded: dict[str, Contribution] = {}
    is_new = round_ > replica.offered_round  # else this peer was restarted in mid-round: it listens, and replays later
    began, offer_s = time.monotonic(), None

    async def make() -> None:
        nonlocal offer_s
        offer = await make_offer(swarm, replica, round_, work)
        offer_s = time.monotonic() - began
        assert replica.pending is not None
        own = Contribution(replica.me, replica.pending.decoded, replica.tokens, offer.header.norm, work.domain)
        decoded[offer.offer_id] = own

    group = _group(swarm, replica, round_, view, decoded)
    stand = Stand(list(replica.marks), len(replica.state.blob))
    deciding = quorum_of(replica, view, round_, timing.silent_ticks)
    lists = await gather(group, swarm.offers, stand, timing, make() if is_new else None, deciding)
    replica.hearing.ended(round_, view, named_in(lists), deciding.voting)
    repaired = await _repair(swarm, replica, view, lists, timing.fetch_s)
    # By the history that counts: who was behind knows only now who decides.
    voting = quorum_of(replica, view, round_, timing.silent_ticks).voting
    heard = await close(group, swarm.offers, lists, timing.fetch_s, voting)
    reason, cause = heard.seal.reason, heard.seal.cause
    if heard.missing:
        reason, cause = f"skipped: could not fetch {len(heard.missing)} of {len(heard.seal.offers)} offers", UNFETCHED
    elif not is_new:
        reason, cause = "skipped: an offer was made before the restart", RESTARTED
    elif repaired == FAILED and not cause:
        cause = BEHIND
    elif (
        cause == UNHEARD
        and replica.hearing.is_left(round_, timing.silent_ticks)
        and not _is_awaiting(swarm, replica, round_)
    ):
        await _change(swarm, replica, replica.advance_alone, round_, work.theta, work.tokens)
        return Outcome(f"alone: none of {len(view) - 1} others is heard", True, "", offer_s, is_alone=True)
    is_step = not cause
    if is_step:
        contributions = await _contributions(replica, heard.offers, decoded)
        await _change(swarm, replica, replica.advance, round_, contributions, heard.seal.offers)
    else:
        replica.skip(round_)
    change = choose_codec(replica, heard) if is_new else ""
    text = "; ".join(part for part in (repaired, reason, change) if part)
    is_shared = is_step and heard.seal.offers.keys() != {replica.me}
    return Outcome(text, is_step, cause, offer_s, is_shared=is_shared)


def invited(replica: Replica, view: Sequence[str], round_: int, silent_ticks: int) -> list[str]:
    """Return with whom a round is exchanged: who has a voice or was heard, and of all others so many, in turn."""
    voting = quorum_of(replica, view, round_, silent_ticks).voting
    company = [peer for peer in view if peer == replica.me or peer in voting or replica.hearing.hears(peer)]
    others = [peer for peer in view if peer not in company]
    others.sort(key=lambda peer: draw(replica.spec.run_id, replica.block, round_, peer))
    return sorted([*company, *others[: GUESTS * replica.spec.rounds.group_size]])


def named_in(lists: Lists) -> dict[str, Collection[str]]:
    """Return whose offers each of the members names that were heard."""
    return {peer: heard.offers.keys() for peer, heard in lists.items()}


def _is_awaiting(swarm: Swarm, replica: Replica, round_: int) -> bool:
    """Say whether a lone holder takes no step, since a newcomer downloads the state."""
    since_s = (round_ - replica.state.round) * replica.spec.rounds.tick_seconds
    return swarm.expects() and since_s < EXPECT_S


def quorum_of(replica: Replica, view: Sequence[str], round_: int, silent_ticks: int) -> Quorum:
    """Return who decides a round of a block: by the history that all have who have its state."""
    sealed = [(each.round, each.offers.keys()) for each in replica.lineage]
    return quorum(view, sealed, round_, silent_ticks, replica.hearing.silence, replica.hearing.vouched)


async def rounds_before(swarm: Swarm, state: OuterState, peers: Sequence[str]) -> list[SealedRound]:
    """Return the last sealed rounds that lead to a state, by the first peer that knows them; none if nobody does.

    All are asked at the same time: many of them may be silent.
    """

    async def ask(peer: str) -> list[SealedRound]:
        try:
            rounds = await history(swarm.offers_stub(peer), state.block, max(0, state.version - KEPT_ROUNDS))
        except (ShoalError, TimeoutError) as error:
            log.debug("%s does not tell its rounds of %s: %s", peer, state.block, error)
            return []
        rounds = [each for each in rounds if each.version <= state.version]
        return rounds if rounds and rounds[-1].digest == state.digest else []

    if not state.version:
        return []
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(peer)) for peer in peers[:ASKED]]
        for answer in asyncio.as_completed(asked):
            if rounds := await answer:
                for task in asked:
                    task.cancel()
                return rounds
    return []


async def _change(swarm: Swarm, replica: Replica, function: Callable[..., None], *arguments: Any) -> None:
    """Change the replica in a thread; then, in the loop, let others have the history that it has now."""
    try:
        await unbroken(function, *arguments)
    finally:
        swarm.offers.lineages[replica.block] = replica.lineage


def choose_codec(replica: Replica, heard: Heard) -> str:
    """See whether the group had this peer's offer in time, and change its codec if need be; return that in words."""
    if heard.seal.is_skipped:
        return ""
    change = replica.choice.ended(is_sealed=replica.me in heard.seal.offers)
    if change:
        log.warning("%s: %s", replica.block, change)
    return change


async def make_offer(
    swarm: Swarm, replica: Replica, round_: int, work: Work, anchor: bytes = b"", told: Mapping[str, int] | None = None
) -> Offer:
    """Encode what was learnt, sign it, write it down, and serve it from now on.

    In random groups an encoded fragment of the `anchor` follows the values, and the header has what is `told` beside.
    """
    payload, norm = await unbroken(replica.offer, round_, work.theta, work.tokens)
    if anchor:
        payload = await asyncio.to_thread(bytes.__add__, payload, anchor)
    hashes = await asyncio.to_thread(chunk_hashes, payload)
    header = OfferHeader(
        run_id=swarm.run_id,
        block=replica.block,
        round=round_,
        peer=replica.me,
        codec=replica.choice.codec,
        size_bytes=len(payload),
        content_id=content_id(hashes, len(payload)),
        tokens=replica.tokens,
        norm=norm,
        domain=work.domain,
        **(told or {}),
    )
    # Written before anybody sees it: after a kill it is known what may have counted.
    await unbroken(replica.save_offered, swarm.folder)
    offer = sign_offer(swarm.identity, header, payload, hashes)
    await swarm.offers.put(offer)
    return offer


def open_group(swarm: Swarm, replica: Replica, round_: int, view: Sequence[str], read: Read) -> Group:
    """Return the group of a round; `read` decodes an offer of it in a thread, and raises PeerError for a bad one."""

    async def check(offer: Offer) -> None:
        header = offer.header
        if header.codec not in (replica.spec.outer.codec, COARSE):
            raise PeerError(f"offer of {header.peer} for {replica.block}: codec {header.codec}")
        known = swarm.domains(replica.block)
        if known and header.domain not in known:  # domains weigh alike: a new word would be half of the block
            raise PeerError(f"offer of {header.peer} for {replica.block}: domain {header.domain[:64]!a}")
        await asyncio.to_thread(read, offer)

    max_bytes = 9 * replica.size + 4096  # no codec needs more than float32, and the anchor no more than that again
    return Group(swarm.run_id, replica.block, round_, replica.me, view, max_bytes, swarm.offers_stub, check)


def _group(swarm: Swarm, replica: Replica, round_: int, view: Sequence[str], decoded: dict[str, Contribution]) -> Group:
    def read(offer: Offer) -> None:
        decoded[offer.offer_id] = read_offer(offer, replica.size)

    return open_group(swarm, replica, round_, view, read)


async def _contributions(
    replica: Replica, offers: Mapping[str, Offer], decoded: Mapping[str, Contribution]
) -> list[Contribution]:
    """Return what the offers hold; those that were made or checked just now are decoded already."""
    found = []
    for offer in offers.values():
        held = decoded.get(offer.offer_id)
        found.append(held if held is not None else await asyncio.to_thread(read_offer, offer, replica.size))
    return found


async def _repair(swarm: Swarm, replica: Replica, view: Sequence[str], lists: Lists, fetch_s: float) -> str:
    """Bring the replica to where the group stands; return how, nothing if it stood there, `FAILED` if it cannot.

    Who never took part in the block has no history of it to be waited for.
    """
    took_part = [peer for peer in view if peer in replica.state.ages]
    told = {peer: heard.past for peer, heard in lists.items() if peer in took_part or peer == replica.me}
    if len(told) < 2:  # this peer knows none of them: it was away for long, or nothing was sealed yet
        told = {peer: heard.past for peer, heard in lists.items()}
    standing = compare(replica.me, took_part, told)
    try:
        if standing.follow is not None:
            return await _follow(swarm, replica, standing, lists, fetch_s)
        if standing.merge:
            return await _merge(swarm, replica, standing, lists)
    except (ShoalError, TimeoutError, OSError) as error:
        log.warning("%s: cannot reach the group's state yet: %s", replica.block, error)
        return FAILED
    return ""


async def _follow(swarm: Swarm, replica: Replica, standing: Standing, lists: Lists, fetch_s: float) -> str:
    """Replay the rounds that lead to where the group stands, or download its state if that is not possible."""
    target = standing.follow
    assert target is not None
    sources = [peer for peer in standing.sources if peer != replica.me]
    rounds: list[SealedRound] = []
    for source in sources[:TELLERS]:
        past = lists[source].past
        marks = past[: past.index(target) + 1]
        base = replica.base_in(marks)
        try:
            rounds = await history(swarm.offers_stub(source), replica.block, 0 if base is None else base.version)
            rounds = [r for r in rounds if r.version <= target.version]
            if not rounds or rounds[-1].digest != target.digest:
                rounds = []
            if base is not None and (states := await _replay(swarm, replica, base, rounds, sources, fetch_s)):
                await _change(swarm, replica, replica.adopt, states, rounds, marks, base)
                return f"replayed {len(rounds)}"
        except (NetworkError, PeerError) as error:  # what one tells is no reason not to ask the next
            log.warning("%s: %s does not tell how to come to the group's state: %s", replica.block, source, error)
            rounds = []
        if rounds:
            break
    state = await _fetch_state(swarm, replica, target, sources, lists)
    await _change(swarm, replica, replica.adopt, [state], rounds, marks, base)
    return "downloaded the state"


async def _fetch_state(swarm: Swarm, replica: Replica, mark: Mark, sources: Sequence[str], lists: Lists) -> OuterState:
    size_bytes = max(lists[source].state_bytes for source in sources)
    if size_bytes > most_state_bytes(replica.size):
        raise PeerError(f"state of {replica.block}: {size_bytes} bytes are too many for {replica.size} parameters")
    received = swarm.offers.traffic.receiver("states")
    data = await download_bytes(
        swarm.shards_stub, sources, mark.digest, size_bytes, deadline_s=DOWNLOAD_S, on_bytes=received
    )
    return await asyncio.to_thread(read_state, data, replica.block, replica.size)


async def _replay(
    swarm: Swarm,
    replica: Replica,
    base: OuterState,
    rounds: Sequence[SealedRound],
    sources: Sequence[str],
    fetch_s: float,
) -> list[OuterState]:
    """Return the states after each of the rounds; none if they do not follow or an offer is lost."""
    if not rounds or rounds[0].version != base.version + 1:
        return []
    states = [base]
    for sealed in rounds:
        decoded: dict[str, Contribution] = {}
        group = _group(swarm, replica, sealed.round, list(sealed.offers), decoded)
        from_all = {peer: [s for s in sources if s != replica.me] for peer in sealed.offers}
        offers = await fetch_sealed(group, swarm.offers, sealed.offers, from_all, fetch_s)
        if not sealed.offers or len(offers) < len(sealed.offers):
            return []
        contributions = await _contributions(replica, offers, decoded)
        states.append(await asyncio.to_thread(replica.replayed, states[-1], sealed, contributions))
    return states


async def _merge(swarm: Swarm, replica: Replica, standing: Standing, lists: Lists) -> str:
    """Compute, like everybody, the mean of the histories that parted with no majority."""
    states = []
    for mark, members in standing.merge:
        if mark == Mark(replica.state.version, replica.state.digest):
            states.append(replica.state)
        else:
            states.append(await _fetch_state(swarm, replica, mark, members, lists))
    merged = await asyncio.to_thread(merge, states)
    parents = [*replica.marks, *(mark for mark, _ in standing.merge)]
    await _change(swarm, replica, replica.merged, merged, parents)
    return f"merged {len(states)} histories"
