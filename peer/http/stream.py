"""What changes, pushed: one view, built and encoded once for all who read it, as server-sent events.

Nothing is built while nobody reads. All readers wake at the same moment; the first of them builds, the others find it
built. A reader that is slow misses frames and gets the newest; one that takes nothing for long is closed.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from peer.http.server import refuse
from peer.http.status import Status
from peer.http.view import view

PERIOD_S = 1.0  # at least, between two frames
BEAT_S = 3.0  # of silence, before an event that says nothing but that the daemon lives
SEND_S = 30.0  # for a reader to take a frame
MAX_STREAMS = 64  # a page is one for all tabs of a browser


class Stream:
    """The frames of one daemon, for as many as read them."""

    def __init__(self, get_status: Callable[[], Status]) -> None:
        self.readers = 0
        self.frames_built = 0
        self._get_status = get_status
        self._status: Status | None = None
        self._frame = b""
        self._looked_s = float("-inf")
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams: a server that closes would wait for them."""
        self._closing.set()

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send frames until the reader goes, or takes nothing for `SEND_S`, or the daemon ends."""
        if self.readers >= MAX_STREAMS:
            reason = f"{MAX_STREAMS} pages or programs read this stream already; close one, or ask /view instead"
            await refuse(503, reason)(scope, receive, send)
            return

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_S):
                await send(message)

        self.readers += 1
        try:
            with contextlib.suppress(TimeoutError):
                await StreamingResponse(self.frames(), media_type="text/event-stream")(scope, receive, send_in_time)
        finally:
            self.readers -= 1

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the newest frame, then each new one, and a beat after `BEAT_S` without any; ends with `close`."""
        clock = asyncio.get_running_loop().time
        seen, sent_s = 0, clock()
        while not self._closing.is_set():
            self._look(clock())
            if self.frames_built != seen:
                seen, sent_s = self.frames_built, clock()
                yield self._frame
            elif clock() - sent_s >= BEAT_S:
                sent_s = clock()
                yield b'event: beat\ndata: {"at":%.3f}\n\n' % time.time()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._looked_s + PERIOD_S):
                    await self._closing.wait()

    def _look(self, now_s: float) -> None:
        """Build and encode a frame, unless the last look was a moment ago or nothing has changed since."""
        if now_s < self._looked_s + PERIOD_S:
            return
        self._looked_s = now_s
        status = self._get_status()
        if status != self._status:
            self._status = status
            body = view(status, time.time()).model_dump_json()  # one line: JSON escapes those in texts
            self._frame = f"event: view\ndata: {body}\n\n".encode()
            self.frames_built += 1
