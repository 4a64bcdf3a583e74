"""A daemon's HTTP side over a made-up swarm, in the test's own loop."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import httpx

from benchmarks.page_swarm import PageSwarm
from benchmarks.patience import HANG_S
from configs.machine import PeerConfig
from peer.http.status_page import open_http

Check = Callable[[httpx.AsyncClient, PageSwarm], Awaitable[None]]


def with_page(check: Check, peers: int = 5, tick_seconds: float = 3600.0, **shown: object) -> None:
    """Run `check` with a client of a server that shows a swarm; `shown` goes over what it shows."""

    async def main() -> None:
        swarm = PageSwarm(peers, tick_seconds)
        async with (
            open_http(PeerConfig(), replace(swarm.shown(), **shown), swarm.actions()) as url,
            httpx.AsyncClient(trust_env=False, timeout=HANG_S, base_url=url) as client,
        ):
            await check(client, swarm)

    asyncio.run(asyncio.wait_for(main(), HANG_S))
