import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from page_server import with_page
from status_example import example

from benchmarks.page_swarm import PageSwarm
from benchmarks.patience import HANG_S
from configs.machine import PeerConfig
from peer.http.status import Status
from peer.http.status_page import open_http
from peer.http.stream import BEAT_S, MAX_STREAMS, PERIOD_S, Stream
from peer.http.view import View


class Counting:
    """A status that counts how often it is looked at, and changes when it is told to."""

    def __init__(self) -> None:
        self.looks = 0
        self.tick = 1

    def __call__(self) -> Status:
        self.looks += 1
        return example().model_copy(update={"tick": self.tick})


async def first(frames: AsyncIterator[bytes]) -> bytes:
    return await asyncio.wait_for(anext(frames), HANG_S)


def test_a_frame_is_built_once_for_all_and_none_while_nobody_reads() -> None:
    async def main() -> None:
        status = Counting()
        stream = Stream(status)
        assert status.looks == 0
        readers = [stream.frames() for _ in range(20)]
        frames = [await first(reader) for reader in readers]
        assert all(frame is frames[0] for frame in frames)  # the very same bytes
        assert (status.looks, stream.frames_built) == (1, 1)
        status.tick = 2
        later = await asyncio.gather(*map(first, readers))
        assert all(frame is later[0] for frame in later)
        assert stream.frames_built == 2
        assert json.loads(later[0].split(b"data: ")[1])["headline"]["tick"] == 2
        for reader in readers:
            await reader.aclose()  # type: ignore[attr-defined]
        looks = status.looks
        await asyncio.sleep(2 * PERIOD_S)  # time in which nothing must happen
        assert status.looks == looks

    asyncio.run(main())


def test_frames_are_a_second_apart_and_a_beat_says_that_the_daemon_lives() -> None:
    async def main() -> None:
        status = Counting()
        frames = Stream(status).frames()
        assert (await first(frames)).startswith(b"event: view\n")
        status.tick, began = 2, time.monotonic()
        assert (await first(frames)).startswith(b"event: view\n")
        assert time.monotonic() - began >= PERIOD_S - 0.05
        began = time.monotonic()
        beat = await first(frames)  # nothing has changed
        assert beat.startswith(b"event: beat\n")
        assert time.monotonic() - began >= BEAT_S - 0.05

    asyncio.run(main())


def test_a_frame_is_a_view() -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        async with client.stream("GET", "/stream") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            lines = answer.aiter_lines()
            assert await anext(lines) == "event: view"
            shown = View.model_validate_json((await anext(lines)).removeprefix("data: "))
            assert await anext(lines) == ""
        assert len(shown.dots) == 5

    with_page(check)


@pytest.mark.parametrize(("others", "code"), [(MAX_STREAMS - 1, 200), (MAX_STREAMS, 503)])
def test_so_many_streams_and_no_more(others: int, code: int) -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        async with contextlib.AsyncExitStack() as stack:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
            many = await stack.enter_async_context(
                httpx.AsyncClient(base_url=client.base_url, limits=limits, trust_env=False, timeout=HANG_S)
            )
            for _ in range(others):
                await stack.enter_async_context(many.stream("GET", "/stream"))
            async with client.stream("GET", "/stream") as answer:
                assert answer.status_code == code
                if code == 503:
                    assert "close one, or ask /view" in json.loads(await answer.aread())["error"]
            assert (await client.get("/view")).status_code == 200

    with_page(check)


def test_a_reader_that_goes_makes_room() -> None:
    async def main() -> None:
        swarm = PageSwarm(2)
        stream = Stream(swarm.status)
        arrived, gone = asyncio.Event(), asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            arrived.set()

        scope = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "GET"}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stream.answer(scope, receive, send))  # type: ignore[arg-type]
            await arrived.wait()
            assert stream.readers == 1
            gone.set()
        assert stream.readers == 0

    asyncio.run(asyncio.wait_for(main(), HANG_S))


def test_open_streams_do_not_hold_up_the_end() -> None:
    async def main() -> float:
        swarm = PageSwarm(5)
        async with contextlib.AsyncExitStack() as stack:
            async with open_http(PeerConfig(), swarm.shown(), swarm.actions()) as url:
                client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=HANG_S))
                for _ in range(20):
                    answer = await stack.enter_async_context(client.stream("GET", f"{url}/stream"))
                    assert await anext(answer.aiter_lines()) == "event: view"
                began = time.monotonic()
            return time.monotonic() - began

    assert asyncio.run(asyncio.wait_for(main(), HANG_S)) < 2.0
