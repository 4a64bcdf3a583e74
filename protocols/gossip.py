"""One round of one block between its holders: gather, cut, lists, seal. The arithmetic is the caller's.

    gather    fetch every member's offer, in parallel, until all are there or the cut
    list      say which offers are held; hear the others' lists, with the digests of where they stand
    seal      what more than half of the voters name; fetch what is missing from whoever named it

Every wait has a deadline; a member that fails costs nothing but itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from configs.errors import NetworkError, PeerError
from protocols.fetching import RETRY_S, Fetch, Group, look_at
from protocols.offers import MAX_WAIT_S, HistoryRequest, ListRequest, OfferList, Offers, SealedRound
from protocols.parcels import Offer
from protocols.sealing import Mark, Quorum, Seal, is_decided, seal
from protocols.wire import call

log = logging.getLogger(__name__)

CALL_S = 10.0  # for a call that needs no waiting at the other end
LOOK_S = 0.5  # for the other face of a liar: a round does not wait long for who names what there is not
SILENT_SHARE = 0.25  # of the time until the cut, that members get for whom nobody waits


@dataclass(frozen=True)
class Heard:
    """What a round came to: the seal, the lists by which it was made, and the sealed offers that are held."""

    seal: Seal
    lists: Mapping[str, Mapping[str, str]]  # member → what it holds: peer → offer id
    offers: Mapping[str, Offer]

    @property
    def missing(self) -> list[str]:
        """Members whose sealed offer could not be had."""
        return [peer for peer in self.seal.offers if peer not in self.offers]


@dataclass(frozen=True)
class Timing:
    """Seconds from now to the cut, and to the end of hearing lists; and how long a missing offer may take then."""

    cut_s: float
    end_s: float
    fetch_s: float = CALL_S
    silent_ticks: int = 1 << 30  # without a sealed round, after which those decide who are heard


@dataclass(frozen=True)
class Patience:
    """For whom a member waits as long as it may, and for how long, in seconds, for all others."""

    awaited: Collection[str]
    others_s: float


@dataclass(frozen=True)
class Stand:
    """Where this peer's block stands, for its list."""

    marks: Sequence[Mark]
    state_bytes: int


async def gather(
    group: Group,
    offers: Offers,
    stand: Stand,
    timing: Timing,
    making: Coroutine[Any, Any, None] | None = None,
    quorum: Quorum | None = None,  # as it is known before the lists; None: all of the view
) -> Mapping[str, OfferList]:
    """Gather the offers of a round until the cut, and return the lists that are heard, the own one among them.

    `making` puts this peer's own offer into `offers`, while those of the others are asked for. Cancellation drops the
    round without a trace.
    """
    loop = asyncio.get_running_loop()
    cut, end = loop.time() + timing.cut_s, loop.time() + timing.end_s
    named, awaited = (quorum.named, quorum.awaited) if quorum else (group.view, group.view)
    wait = Patience(awaited, SILENT_SHARE * timing.cut_s)
    async with asyncio.TaskGroup() as tasks:
        made = tasks.create_task(making) if making is not None else None
        await _gather(group, offers, cut, wait)
        if made is not None and not made.done():  # others wait for this peer's word, so it comes without the own offer
            await asyncio.wait([made], timeout=max(0.0, cut - loop.time()))
        book = offers.book(group.block, group.round)
        book.phases["gathered"] = loop.time()
        own = await offers.publish(group.block, group.round, stand.marks, stand.state_bytes, {*named, group.me})
        lists = await _hear_all(group, offers, own, end, wait, quorum.voting if quorum else ())
        book.phases["heard"] = loop.time()
    return {peer: heard for peer, heard in lists.items() if heard.marks}


async def close(
    group: Group, offers: Offers, lists: Mapping[str, OfferList], fetch_s: float, voting: Collection[str] | None = None
) -> Heard:
    """Seal a round by its lists, and fetch what is missing; `voting` is as in `seal`."""
    held = {peer: heard.offers for peer, heard in lists.items()}
    outcome = seal(group.view, held, voting)
    namers = {
        peer: [m for m, heard in lists.items() if heard.offers.get(peer) == offer_id and m != group.me]
        for peer, offer_id in outcome.offers.items()
    }
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_expose(group, offers, held, fetch_s))
        sealed = await fetch_sealed(group, offers, outcome.offers, namers, fetch_s)
    book = offers.book(group.block, group.round)
    book.sealed, book.phases["sealed"] = tuple(outcome.offers), asyncio.get_running_loop().time()
    return Heard(outcome, held, sealed)


async def _expose(group: Group, offers: Offers, lists: Mapping[str, Mapping[str, str]], timeout_s: float) -> None:
    """Ask those who name another offer than is held here for its signed header: two such headers are the proof.

    Where a liar's two faces are seen by as many members each, nothing of his is sealed, and nobody would meet both.
    """
    mine = offers.held(group.block, group.round)
    faces = {
        peer: next((m for m, named in lists.items() if named.get(peer, offer.offer_id) != offer.offer_id), None)
        for peer, offer in mine.items()
    }
    look_s = min(timeout_s, LOOK_S)
    jobs = {p: look_at(group, offers, mine[p], namer, look_s) for p, namer in faces.items() if namer is not None}
    await _each(jobs, asyncio.get_running_loop().time() + look_s)


async def fetch_sealed(
    group: Group, offers: Offers, wanted: Mapping[str, str], sources: Mapping[str, Sequence[str]], timeout_s: float
) -> dict[str, Offer]:
    """Return those of the `wanted` offers (peer → offer id) that are held or could be fetched from their sources."""

    def have() -> dict[str, Offer]:
        held = offers.held(group.block, group.round)
        return {peer: held[peer] for peer in wanted if peer in held and held[peer].offer_id == wanted[peer]}

    deadline = asyncio.get_running_loop().time() + timeout_s
    lacking = [peer for peer in wanted if peer not in have()]
    await _each({p: Fetch(group, offers, p, wanted[p]).run(sources.get(p, ()), deadline) for p in lacking}, deadline)
    return have()


async def history(stub: Any, block: str, after_version: int) -> list[SealedRound]:
    """Ask a member for the sealed rounds that followed `after_version`.

    Raises PeerError if they do not follow, NetworkError if it does not answer.
    """
    try:
        answer = await call(stub.rpc_history, HistoryRequest(block=block, after_version=after_version), CALL_S)
    except NetworkError as error:
        raise NetworkError(f"a member does not tell the history of {block}: {error}") from None
    versions = [r.version for r in answer.rounds]
    if versions and versions != list(range(versions[0], versions[0] + len(versions))):
        raise PeerError(f"history of {block} has gaps")
    return list(answer.rounds)


async def _gather(group: Group, offers: Offers, cut: float, wait: Patience) -> None:
    """Fetch every member's offer; when one has come, its lines are free for what is left of the others."""
    fetches = {peer: Fetch(group, offers, peer) for peer in group.others}

    async def fetch(peer: str) -> None:
        await fetches[peer].run([peer, *(member for member in group.others if member != peer)], cut)
        for each in fetches.values():
            each.help()

    await _each({peer: fetch(peer) for peer in fetches}, cut, wait)


async def _hear_all(
    group: Group, offers: Offers, own: OfferList, end: float, wait: Patience, voting: Collection[str]
) -> dict[str, OfferList]:
    """Hear the others' lists until all are there or the end.

    Once no list can change any more what is sealed, only those are waited for, not for long, whose offers are held:
    who has died before its offer could be had costs nobody more than the cut.
    """
    lists = {group.me: own}
    limits: dict[str, asyncio.Timeout] = {}

    async def hear(peer: str) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(end) as limits[peer]:
                await _hear(group, offers, peer, end, lists)
        del limits[peer]
        held = {member: heard.offers for member, heard in lists.items()}
        newest = {heard.past[-1] for heard in lists.values() if heard.marks}
        if len(newest) != 1 or not is_decided(group.view, held, voting):
            return
        soon = asyncio.get_running_loop().time()
        late = soon + wait.others_s
        there = offers.held(group.block, group.round)
        for other, limit in limits.items():
            if not limit.expired():
                limit.reschedule(min(end, limit.when() or end, late if other in there else soon))

    await _each({peer: hear(peer) for peer in group.others}, end, wait)
    return lists


async def _hear(group: Group, offers: Offers, peer: str, end: float, lists: dict[str, OfferList]) -> None:
    async def ask(left: float) -> bool:
        request = ListRequest(block=group.block, round=group.round, wait_s=min(left, MAX_WAIT_S))
        answer = await call(group.stub(peer).rpc_list, request, left + RETRY_S)
        if answer.marks:
            lists[peer] = answer
            offers.book(group.block, group.round).heard[peer] = asyncio.get_running_loop().time()
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
        except NetworkError as error:
            log.debug("will try again: %s", error)
        except Exception:  # a mistake of ours: it costs one member, and trying again would not mend it
            log.exception("a member could not be asked")
            return
        await asyncio.sleep(min(RETRY_S, max(0.0, deadline - loop.time())))


async def _each(jobs: Mapping[str, Coroutine[Any, Any, None]], deadline: float, wait: Patience | None = None) -> None:
    """Run the members' jobs side by side until all are done, but for who is not waited for, or the deadline is over."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
            tasks = {peer: group.create_task(job) for peer, job in jobs.items()}
            if wait is not None and tasks.keys() - wait.awaited:
                least = loop.time() + wait.others_s
                await _all_of([task for peer, task in tasks.items() if peer in wait.awaited], None)
                await _all_of(list(tasks.values()), max(0.0, least - loop.time()))
                for task in tasks.values():
                    task.cancel()
    except TimeoutError:
        pass


async def _all_of(tasks: Sequence[asyncio.Task[None]], timeout_s: float | None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout_s)
