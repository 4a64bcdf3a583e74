"""Real libp2p peers for the tests of this folder."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from hivemind.p2p import P2P

from benchmarks.patience import HANG_S

OpenPeers = Callable[[int], AbstractAsyncContextManager[list[P2P]]]


@asynccontextmanager
async def _open_peers(count: int) -> AsyncIterator[list[P2P]]:
    """Start peers that all know the first one, and leave no p2pd behind."""
    peers: list[P2P] = []
    try:
        for _ in range(count):
            known = [str(address) for address in await peers[0].get_visible_maddrs()] if peers else []
            peers.append(
                await P2P.create(initial_peers=known, nat_port_map=False, auto_nat=False, startup_timeout=HANG_S)
            )
        yield peers
    finally:
        for peer in reversed(peers):
            await peer.shutdown()


@pytest.fixture
def open_peers() -> OpenPeers:
    return _open_peers
