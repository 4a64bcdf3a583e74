"""Fetches one offer: from its maker and, when that takes too long or fails, from whoever else has pieces of it.

Members begin at different places of a payload, so what a slow uplink sends to one of them the others can have from
there: it sends its own offer little more than once. Nobody is believed: every chunk is checked against the signature.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from configs.content import HASH_BYTES
from configs.errors import NetworkError, PeerError
from protocols.offers import COUNT_BYTES, MAX_WAIT_S, OfferRequest, Offers
from protocols.parcels import Equivocation, Offer, Parcel, describe, in_order, open_parcel, packed, unpacked
from protocols.wire import Frames, call, each_frame

log = logging.getLogger(__name__)

RETRY_S = 0.2
PATIENCE_SHARE = 0.3  # the share of the time after which one sees whether the first source will be done in time
# Relays join only while more than this is missing (seconds at the present rate; chunks): near the end both sources
# would send the same chunks.
WORTH_S, WORTH_CHUNKS = 1.0, 4
ATTEMPTS = 3  # times that a source is asked which should have what is wanted

Check = Callable[[Offer], Awaitable[None]]


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

    def start(self, peer: str) -> float:
        """Return the share of that member's payload at which this peer begins: another one for every member."""
        fetching = sorted({*self.view, self.me} - {peer} | {self.me})  # its own it fetches when it was restarted
        return fetching.index(self.me) / len(fetching)


async def look_at(group: Group, offers: Offers, held: Offer, source: str, timeout_s: float) -> None:
    """Ask a member for the signed header of the offer that it has of a peer, and accuse who has signed another one."""
    header, count = held.header, len(held.hashes)
    request = OfferRequest(
        block=group.block, round=group.round, peer=header.peer, wait_s=0.0, held=packed(range(count), count)
    )
    try:
        stream = await call(group.stub(source).rpc_offer, request, timeout_s)
        async with aclosing(each_frame(stream, timeout_s)) as frames:  # type: ignore[type-var]
            envelope, manifest = await anext(frames, None), await anext(frames, None)
        if envelope is None or manifest is None or bytes(envelope.data) == held.envelope:
            return
        hashes, _ = _split(bytes(manifest.data))
        about = group.block, group.round, header.peer
        other = open_parcel(bytes(envelope.data), hashes, group.run_id, about, group.max_bytes)
    except (NetworkError, PeerError) as error:
        log.debug("%s does not show the offer of %s that it names: %s", source, header.peer, error)
        return
    except Exception:  # a mistake of ours: it costs this look
        log.exception("%s could not be asked for the other offer of %s", source, header.peer)
        return
    if other.offer_id != held.offer_id:
        offers.accuse(Equivocation(held, other))


def _split(manifest: bytes) -> tuple[bytes, bytes]:
    """Return the chunks' hashes that an offer's second frame has, and the bitmap of those that follow."""
    end = COUNT_BYTES + int.from_bytes(manifest[:COUNT_BYTES], "big") * HASH_BYTES
    return manifest[COUNT_BYTES:end], manifest[end:]


class Fetch:
    """One offer on its way to this peer; `wanted` is its id where only that one will do."""

    def __init__(self, group: Group, offers: Offers, peer: str, wanted: str | None = None) -> None:
        self._group, self._offers, self._peer, self._wanted = group, offers, peer, wanted
        self._start = group.start(peer)
        # Set when the maker alone will not be done by the cut, or has failed: relays may start.
        self._needs_help = asyncio.Event()
        self._finishing = asyncio.Lock()
        self._lanes: list[asyncio.Task[None]] = []
        self._began = 0.0

    async def run(self, sources: Sequence[str], deadline: float) -> None:
        """Fetch until the offer is held or the deadline (of the loop's clock) has passed; the first source first.

        What has arrived by then stays in the book, and another fetch goes on from it.
        """
        self._began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as lanes:
                for index, source in enumerate(sources):
                    work = self._draw(source, deadline) if index == 0 else self._relay(source, deadline)
                    self._lanes.append(lanes.create_task(work))
        except TimeoutError:
            pass
        finally:
            self._lanes.clear()  # a cancelled task's traceback holds this object, and that all of the round's values

    def help(self) -> None:
        """Let the others join in if much is left: lines have become free.

        A flow that others have crowded takes seconds to grow when they end; a second one fills the line at once.
        """
        parcel = self._parcel()
        if parcel is None or not parcel.held:
            return
        pace = len(parcel.held) / (asyncio.get_running_loop().time() - self._began)
        if len(parcel.hashes) - len(parcel.held) > max(WORTH_CHUNKS, WORTH_S * pace):
            self._needs_help.set()

    async def _relay(self, source: str, deadline: float) -> None:
        """Join in when the first source has failed, will not be done in time at its pace so far, or lines are free.

        Not before: what is on its way from two sources when the last chunk arrives was sent for nothing.
        """
        while not self._needs_help.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SHARE * (deadline - self._began)):
                    await self._needs_help.wait()
            if not self._is_on_track(deadline):
                break
        await self._draw(source, deadline, is_relay=True)

    def _is_on_track(self, deadline: float) -> bool:
        parcel = self._parcel()
        if parcel is None:
            return False
        spent_s = asyncio.get_running_loop().time() - self._began
        return spent_s * len(parcel.hashes) <= (deadline - self._began) * len(parcel.held)

    async def _draw(self, source: str, deadline: float, *, is_relay: bool = False) -> None:
        """Take from one source until all is there; give it up when it lies. A member may restart or be dialled yet."""
        loop = asyncio.get_running_loop()
        for attempt in itertools.count():
            left = deadline - loop.time()
            if left <= 0 or (self._wanted is not None and attempt >= ATTEMPTS):
                break
            try:
                if await self._stream(source, left, is_relay=is_relay):
                    self._end()
                    return
            except PeerError as error:
                log.warning("from %s: %s", source, error)
                if source == self._peer:  # who lies about its own offer has none
                    self._offers.book(self._group.block, self._group.round).refused[source] = str(error)
                    self._end()
                return
            except NetworkError as error:
                log.debug("will ask %s again: %s", source, error)
                self._needs_help.set()
            except Exception:  # a mistake of ours: it costs this source, and asking again would not mend it
                log.exception("%s could not be asked for the offer of %s", source, self._peer)
                break
            await asyncio.sleep(min(RETRY_S, max(0.0, deadline - loop.time())))
        self._needs_help.set()

    def _end(self) -> None:
        for lane in self._lanes:
            lane.cancel()

    async def _stream(self, source: str, left_s: float, *, is_relay: bool) -> bool:
        """Take what the source has of what is lacking; return whether all is there now."""
        request = self._request(left_s, is_relay=is_relay)
        stream = await call(self._group.stub(source).rpc_offer, request, left_s + RETRY_S)
        async with aclosing(each_frame(stream, MAX_WAIT_S)) as frames:  # type: ignore[type-var]  # run has a deadline
            envelope, manifest = await anext(frames, None), await anext(frames, None)
            if envelope is None:
                return False
            if manifest is None:
                raise PeerError(f"an offer of {self._peer} without its chunks' hashes")
            parcel, coming = self._open(bytes(envelope.data), bytes(manifest.data))
            claims = coming - parcel.held if is_relay else set()
            parcel.claimed |= claims
            try:
                order = in_order(coming, len(parcel.hashes), self._start, is_backwards=is_relay)
                await self._take(parcel, order, frames)
            finally:
                parcel.claimed -= claims
        return parcel.is_complete and await self._finish(parcel)

    def _request(self, left_s: float, *, is_relay: bool) -> OfferRequest:
        """Ask for what is not here; of a relay only what no other relay is bringing."""
        parcel = self._parcel()
        bitmap = b""
        if parcel is not None:
            bitmap = packed(parcel.held | (parcel.claimed if is_relay else set()), len(parcel.hashes))
        return OfferRequest(
            block=self._group.block,
            round=self._group.round,
            peer=self._peer,
            wait_s=0.0 if self._wanted is not None else min(left_s, MAX_WAIT_S),  # what is wanted exists already
            held=bitmap,
            start=self._start,
            is_backwards=is_relay,
        )

    def _open(self, envelope: bytes, manifest: bytes) -> tuple[Parcel, set[int]]:
        """Return the parcel that the source is about to add to, and the chunks that follow."""
        hashes, bitmap = _split(manifest)
        parcel, group = self._parcel(), self._group
        if parcel is None or parcel.envelope != envelope:
            about = (group.block, group.round, self._peer)
            opened = open_parcel(envelope, hashes, group.run_id, about, group.max_bytes)
            known = parcel or self._offers.held(group.block, group.round).get(self._peer)
            if known is not None and known.offer_id != opened.offer_id:
                proof = Equivocation(known, opened)
                self._offers.accuse(proof)
                if self._wanted is None:
                    raise proof
            if self._wanted not in (None, opened.offer_id):
                raise PeerError(f"{describe(opened.header)} is another one than was sealed")
            if parcel is None or parcel.offer_id != opened.offer_id:
                parcel = opened
                self._offers.book(group.block, group.round).parcels[self._peer] = parcel
        return parcel, unpacked(bitmap, len(parcel.hashes))

    async def _take(self, parcel: Parcel, order: Any, frames: Frames) -> None:
        for index in order:
            frame = await anext(frames, None)
            if frame is None:
                raise PeerError(f"{describe(parcel.header)}: chunk {index} was left out")
            await self._offers.traffic.received(len(frame.data), "offers")
            if index not in parcel.held:
                parcel.add(index, frame.data)
                await self._offers.wake()
            if parcel.is_complete:
                return

    async def _finish(self, parcel: Parcel) -> bool:
        """Hold the offer if its values will do. Raises PeerError; nothing of it is kept then.

        Several lanes may see it complete: one checks it, the others wait for that. Returns whether it is held.
        """
        book = self._offers.book(self._group.block, self._group.round)
        async with self._finishing:
            if book.parcels.get(self._peer) is not parcel:
                return self._peer in book.offers
            offer = parcel.offer()
            try:
                await self._group.check(offer)
            except PeerError:
                book.parcels.pop(self._peer, None)
                raise
            await self._offers.put(offer, is_sealed=self._wanted is not None)
            return True

    def _parcel(self) -> Parcel | None:
        return self._offers.book(self._group.block, self._group.round).parcels.get(self._peer)
