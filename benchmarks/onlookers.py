"""Peers that describe a run and dial whoever asks, and train nothing: what `shoal doctor` needs on the other side.

    with open_onlooker(place, Looks(spec)) as onlooker:
        onlooker.address

Network, services and bytes are the product's; each runs in a thread of this process, in its place on the network.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.patience import HANG_S
from configs.run import RunSpec
from dht.admission import Admission
from dht.identity import Identity
from dht.invitations import invite, public_half
from dht.network import open_network
from peer import __version__
from peer.chaos.links import Peer, enter_place
from protocols import describe
from protocols.describe import DescribeRequest, RunDescription
from protocols.reach import Reach

TOKENIZER = ("0" * 64, 1)


@dataclass(frozen=True)
class Looks:
    """What a peer shows of itself."""

    spec: RunSpec
    port: int
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of whom it tells
    relays: tuple[str, ...] = ()  # through whom it is reached; empty: it can be dialled
    clock_s: float = 0.0  # by which its clock is ahead
    is_closed: bool = False  # its run is closed, and knows nobody
    protocol: int = 0  # the only one that it speaks; 0: this one's


@dataclass(frozen=True)
class Onlooker:
    """One that is there."""

    peer_id: str
    addresses: Sequence[str]


class Describe(describe.Describe):  # of this name: a service is known by that of its class
    """Answers as its looks say."""

    def __init__(self, looks: Looks) -> None:
        super().__init__(looks.spec, TOKENIZER, lambda: (), lambda: looks.members, __version__)
        self._looks = looks

    async def rpc_describe(self, request: DescribeRequest, context: Any) -> RunDescription:
        answer = await super().rpc_describe(request, context)
        update: dict[str, Any] = {"now": answer.now + self._looks.clock_s}
        protocol = self._looks.protocol
        return answer.model_copy(update=update | ({"protocol": protocol, "oldest": protocol} if protocol else {}))


def _admission(identity: Identity) -> Admission:
    """Return the door of a closed run of which this peer is the only member."""
    key, now = Ed25519PrivateKey.generate(), time.time()
    chain = invite(key, public_half(key), identity.peer_id, {"read", "train"}, now, now + 3600.0)
    return Admission(public_half(key), chain)


@contextmanager
def open_onlooker(place: Peer, looks: Looks) -> Iterator[Onlooker]:
    """Hold a peer at `place`. Raises what its start raises."""
    ready: Future[Onlooker] = Future()
    leaving: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def live(folder: Path) -> None:
        done = asyncio.Event()
        leaving.set_result((asyncio.get_running_loop(), done))
        async with open_network(
            folder / "identity.key",
            port=looks.port,
            relays=looks.relays,
            reachability="private" if looks.relays else "public",
            admission=_admission(Identity.load_or_create(folder / "identity.key")) if looks.is_closed else None,
        ) as network:
            await network.serve(Describe(looks))
            await network.serve(Reach(network.seen_at))
            if looks.relays:
                await network.connect(looks.relays)
            ready.set_result(Onlooker(network.peer_id, await network.addresses()))
            await done.wait()

    def work() -> None:
        enter_place(place)
        try:
            with tempfile.TemporaryDirectory(prefix="shoal-onlooker-") as folder:
                asyncio.run(live(Path(folder)))
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise

    thread = threading.Thread(target=work, name=f"onlooker at {place.address}")
    thread.start()
    try:
        yield ready.result(HANG_S)
    finally:
        loop, done = leaving.result(HANG_S)
        if thread.is_alive():
            loop.call_soon_threadsafe(done.set)
        thread.join(HANG_S)
