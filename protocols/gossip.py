"""One round of one block between its holders: gather, cut, lists, seal. The arithmetic is the caller's.

    gather    fetch every member's offer, in parallel, until all are there or the cut
    list      say which offers are held; hear the others' lists, with the digests of where they stand
    seal      what more than half of the view names; fetch what is missing from whoever named it

Every wait has a deadline; a member that fails costs nothing but itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from configs.errors import PeerError
from protocols.offers import (
    MAX_WAIT_S,
    HistoryRequest,
    ListRequest,
    Offer,
    OfferList,
    OfferRequest,
    Offers,
    SealedRound,
    check_payload,
    open_envelope,
)
from protocols.sealing import Mark, Seal, seal
from protocols.wire import Frames, each_frame

log = logging.getLogger(__name__)

RETRY_S = 0.2
CALL_S = 10.0  # for a call that needs no waiting at the other end

Check = Callable[[Offer], Awaitable[None]]


@dataclass(frozen=True)
class Heard:
    """What a round came to: the seal, every member's history that was heard, and the sealed offers that are held."""

    seal: Seal
    histories: Mapping[str, Sequence[Mark]]
    offers: Mapping[str, Offer]
    state_bytes: Mapping[str, int]  # of each member's newest state

    @property
    def missing(self) -> list[str]:
        """Members whose sealed offer could not be had."""
        return [peer for peer in self.seal.offers if peer not in self.offers]


@dataclass(frozen=True)
class Group:
    """The members of one round of one block, and how to reach them.

    `check` raises PeerError for an offer that must not be held: wrong size, values that are not finite, a norm that
    is not the signed one.
    """

    run_id: str
    block: str
    round: int
    me: str
    view: Sequence[str]
    max_bytes: int  # of one payload
    stub: Callable[[str], Any]
    check: Check

    @property
    def others(self) -> list[str]:
        """The members but oneself."""
        return [peer for peer in self.view if peer != self.me]


@dataclass(frozen=True)
class Timing:
    """Seconds from now to the cut, and to the end of hearing lists."""

    cut_s: float
    end_s: float


@dataclass(frozen=True)
class Stand:
    """Where this peer's block stands, for its list."""

    marks: Sequence[Mark]
    state_bytes: int


async def exchange(group: Group, offers: Offers, stand: Stand, timing: Timing) -> Heard:
    """Run one round; this peer's own offer, if it has one, is in `offers` already.

    Cancellation drops the round without a trace.
    """
    loop = asyncio.get_running_loop()
    cut, end = loop.time() + timing.cut_s, loop.time() + timing.end_s
    await _each([_gather(group, offers, peer, cut) for peer in group.others], cut)
    own = await offers.publish(group.block, group.round, stand.marks, stand.state_bytes)
    lists: dict[str, OfferList] = {group.me: own}
    await _each([_hear(group, peer, end, lists) for peer in group.others], end)
    outcome = seal(group.view, {peer: heard.offers for peer, heard in lists.items() if heard.marks})
    histories = {peer: [Mark(v, d) for v, d in heard.marks] for peer, heard in lists.items() if heard.marks}
    namers = {
        peer: [m for m, heard in lists.items() if heard.offers.get(peer) == offer_id and m != group.me]
        for peer, offer_id in outcome.offers.items()
    }
    sealed = await fetch_sealed(group, offers, outcome.offers, namers, CALL_S)
    return Heard(outcome, histories, sealed, {peer: heard.state_bytes for peer, heard in lists.items()})


async def fetch_sealed(
    group: Group, offers: Offers, wanted: Mapping[str, str], sources: Mapping[str, Sequence[str]], timeout_s: float
) -> dict[str, Offer]:
    """Return those of the `wanted` offers (peer → offer id) that are held or could be fetched from their sources."""

    async def one(peer: str) -> None:
        for source in sources.get(peer, ()):
            try:
                await _fetch(group, offers, source, peer, 0.0, timeout_s, wanted[peer])
            except Exception as error:
                log.debug("offer of %s for %s round %d from %s: %s", peer, group.block, group.round, source, error)
            else:
                return

    def have() -> dict[str, Offer]:
        held = offers.held(group.block, group.round)
        return {
            peer: held[peer] for peer, wanted_id in wanted.items() if peer in held and held[peer].offer_id == wanted_id
        }

    lacking = [peer for peer in wanted if peer not in have()]
    await _each([one(peer) for peer in lacking], asyncio.get_running_loop().time() + timeout_s)
    return have()


async def history(stub: Any, block: str, after_version: int) -> list[SealedRound]:
    """Ask a member for the sealed rounds that followed `after_version`. Raises PeerError if they do not follow."""
    answer = await stub.rpc_history(HistoryRequest(block=block, after_version=after_version), timeout=CALL_S)
    versions = [r.version for r in answer.rounds]
    if versions and versions != list(range(versions[0], versions[0] + len(versions))):
        raise PeerError(f"history of {block} has gaps")
    return list(answer.rounds)


async def _gather(group: Group, offers: Offers, peer: str, cut: float) -> None:
    await _until(cut, lambda left: _fetch(group, offers, peer, peer, left, left + RETRY_S, None))


async def _hear(group: Group, peer: str, end: float, lists: dict[str, OfferList]) -> None:
    async def ask(left: float) -> bool:
        request = ListRequest(block=group.block, round=group.round, wait_s=min(left, MAX_WAIT_S))
        answer = await group.stub(peer).rpc_list(request, timeout=left + RETRY_S)
        if answer.marks:
            lists[peer] = answer
        return bool(answer.marks)

    await _until(end, ask)


async def _until(deadline: float, attempt: Callable[[float], Awaitable[bool]]) -> None:
    """Try until it succeeds or the deadline has passed: a member may restart or be dialled meanwhile."""
    loop = asyncio.get_running_loop()
    while (left := deadline - loop.time()) > 0:
        try:
            if await attempt(left):
                return
        except PeerError as error:
            log.warning("%s", error)
            return
        except Exception as error:  # libp2p's own errors have no common root
            log.debug("will try again: %s", error)
        await asyncio.sleep(min(RETRY_S, max(0.0, deadline - loop.time())))


async def _fetch(
    group: Group, offers: Offers, source: str, peer: str, wait_s: float, timeout_s: float, offer_id: str | None
) -> bool:
    request = OfferRequest(block=group.block, round=group.round, peer=peer, wait_s=min(wait_s, MAX_WAIT_S))
    async with asyncio.timeout(timeout_s):
        stream = await group.stub(source).rpc_offer(request)
        offer = await _read_offer(group, request, stream)
    if offer is None:
        return False
    if offer_id is not None and offer.offer_id != offer_id:
        raise PeerError(f"{source} sent another offer of {peer} for {group.block} round {group.round} than was sealed")
    offers.traffic.received(len(offer.payload))
    await group.check(offer)
    await offers.put(offer)
    return True


async def _read_offer(group: Group, request: OfferRequest, stream: Frames) -> Offer | None:
    header, offer_id, envelope = None, "", b""
    payload = bytearray()
    async with aclosing(each_frame(stream, MAX_WAIT_S)) as frames:  # type: ignore[type-var]  # the caller has a deadline
        async for frame in frames:
            if header is None:
                envelope = bytes(frame.data)
                header, offer_id = open_envelope(envelope, request, group.run_id)
                if header.size_bytes > group.max_bytes:
                    raise PeerError(f"offer of {request.peer} for {group.block}: {header.size_bytes} bytes")
                continue
            payload += frame.data
            if len(payload) > header.size_bytes:
                raise PeerError(f"offer of {request.peer} for {group.block}: longer than signed")
    if header is None:
        return None
    data = bytes(payload)
    await asyncio.to_thread(check_payload, header, data)
    return Offer(header, envelope, data, offer_id)


async def _each(jobs: Sequence[Any], deadline: float) -> None:
    """Run the jobs side by side until all are done or the deadline has passed."""
    try:
        async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)
    except TimeoutError:
        pass
