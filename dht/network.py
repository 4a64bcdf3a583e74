"""The libp2p host and the DHT node of this peer: it owns the `p2pd` process, dials peers, stores and fetches records.

All of it runs inside the daemon's event loop. Peer ids and addresses are strings; hivemind's own types stay in here.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from hivemind.dht.node import DHTNode
from hivemind.dht.routing import DHTID
from hivemind.p2p import P2P, PeerID, ServicerBase
from hivemind.proto import dht_pb2
from hivemind.utils.logging import use_hivemind_log_handler
from multiaddr import Multiaddr  # Hivemind's own writes a peer id inside an address so that p2pd cannot read it

from configs.clock import MAX_SKEW_S, clock_skew
from configs.errors import NetworkError
from configs.names import MAX_ADDRESSES
from dht.addresses import (
    addresses_of,
    dial_target,
    explain,
    parse_address,
    parse_announce,
    reachable_first,
)
from dht.admission import Admission
from dht.gate import Gate
from dht.identity import Identity
from dht.p2pd import CLOSE_S, FAILURES, Reachability, hang_up, p2pd_broken, sockets_of, start_p2pd, stop_p2pd
from dht.presenting import Presenting
from dht.relays import start_relay
from dht.storage import BoundedStorage
from dht.validator import RecordValidator

__all__ = ["Network", "open_network", "parse_address"]

log = logging.getLogger(__name__)

RPC_S = 3.0  # one question to one DHT node
DHT_S = 20.0  # a whole store or fetch
REFRESH_S = 60.0  # between two look-ups that keep the routing table alive
REDIAL_S = 10.0  # before a peer that could not be dialled is tried again
Link = Literal["direct", "relayed"]
MAX_FAILURES = 256  # peers of which it is remembered why they could not be dialled
PATIENCE_S = (0.2, 0.5, 1.0, 2.0, 0.0)  # after each greeting: the other may have started this very second


@asynccontextmanager
async def open_network(
    identity_path: Path,
    *,
    host: str = "0.0.0.0",
    port: int = 0,
    announce: Sequence[str] = (),
    relays: Sequence[str] = (),
    reachability: Reachability = "unknown",
    admission: Admission | None = None,
) -> AsyncIterator["Network"]:
    """Start the libp2p host of this identity (made when missing); it is gone, with its process, when the block ends.

    host, port    what to listen on (TCP); port 0 is any free one
    announce      addresses to tell others instead of those that are found
    relays        addresses of peers to be reached through when this one cannot be dialled; empty: none
    reachability  whether it can be, if that is known: libp2p finds out by itself, but slowly
    admission     of a closed run: then nobody is answered or asked who is not admitted

    Raises NetworkError (the port is taken, libp2p does not start), UsageError (a wrong host or address), StateError.
    """
    identity = Identity.load_or_create(identity_path)
    announced = [parse_announce(address, identity.peer_id) for address in announce]
    trusted = [parse_address(address)[0] for address in relays]
    use_hivemind_log_handler("nowhere")  # its messages go where ours go
    targets = [dial_target(address) for address in announced]
    options: dict[str, Any] = {"host": host, "port": port, "announce": targets, "relays": trusted}
    if reachability == "public":
        p2p = await start_relay(identity_path, **options)
    else:
        p2p = await start_p2pd(identity_path, reachability=reachability, **options)
    relayed = [f"{relay}/p2p-circuit/p2p/{identity.peer_id}" for relay in trusted if reachability == "private"]
    network = Network(identity, p2p, relayed, admission)
    try:
        if network._presenting is not None:
            await network._presenting.open()
        yield network
    finally:
        try:
            await network._close()
        finally:
            await stop_p2pd(p2p, identity_path)


class Network:
    """This peer's place among the others; made by `open_network`."""

    def __init__(
        self, identity: Identity, p2p: P2P, relayed: Sequence[str] = (), admission: Admission | None = None
    ) -> None:
        self.identity = identity
        self.peer_id = identity.peer_id
        self.p2p = p2p
        self.admission = admission
        self.gate = Gate(p2p, admission)
        self._presenting = None if admission is None else Presenting(p2p, admission)
        if admission is not None:
            admission.on_newer = lambda: self._spawn("pass on revocations", self._pass_on())
        self.node: DHTNode | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling: dict[str, float] = {}  # peer id → when it may be dialled again
        self.knows: Callable[[str], bool] = lambda peer_id: False  # of whom there is more than records: see membership
        self._relayed = relayed  # addresses by which this peer is reached through another
        self.links: dict[str, Link] = {}  # peers that were connected at the last look, and how
        self.failures: dict[str, str] = {}  # peer id → why it could not be dialled, or greeted, the last time

    @property
    def temporary(self) -> list[Path]:
        """The sockets between this process and p2pd; they are removed in the end, but by nobody if it is killed."""
        return sockets_of(self.p2p)

    async def addresses(self) -> list[str]:
        """Return the addresses of this peer, those that most others can reach first."""
        try:
            found = await self.p2p.get_visible_maddrs(latest=True)
        except (ValueError, *FAILURES):  # ValueError: it has none at the moment
            found = []
        return reachable_first([*map(str, found), *self._relayed])[:MAX_ADDRESSES]

    async def seen_at(self, peer_id: str) -> list[str]:
        """Return the addresses that a connected peer has from here, one for each connection."""
        try:
            return [str(a) for info in await self.p2p.list_peers() if str(info.peer_id) == peer_id for a in info.addrs]
        except FAILURES:
            return []

    async def connect(self, addresses: Sequence[str], timeout_s: float = 10.0) -> list[str]:
        """Dial all of `addresses` at once and return the ids of the peers that were reached.

        Raises UsageError for one that is no address, and NetworkError when no peer was reached: it says for each
        address why, and what to do.
        """
        typed: dict[str, list[str]] = {}
        for text in addresses:
            address, peer_id = parse_address(text)
            typed.setdefault(peer_id, []).append(address)
        async with asyncio.TaskGroup() as group:
            dials = {p: group.create_task(self._dial(p, at, timeout_s)) for p, at in typed.items()}
        reached = [peer_id for peer_id, dial in dials.items() if dial.result() is None]
        failures = [
            f"{address}: {explain(address, dials[peer_id].result() or '')}"
            for peer_id, at in typed.items()
            for address in at
            if peer_id not in reached
        ]
        if not reached:
            raise NetworkError(
                "cannot reach the swarm; "
                + "; ".join(failures or ["no address was given; name one of a peer that runs"])
            )
        for failure in failures:
            log.warning("cannot reach %s", failure)
        return reached

    async def connected(self) -> set[str]:
        """Return the ids of the peers to which there is a connection now."""
        links: dict[str, Link] = {}
        with suppress(*FAILURES):
            for info in await self.p2p.list_peers():
                is_relayed = all("/p2p-circuit" in str(address) for address in info.addrs)
                peer_id = info.peer_id.to_base58()
                links[peer_id] = "relayed" if is_relayed and links.get(peer_id) != "direct" else "direct"
        self.links = links
        return {*links}

    def neighbours(self) -> set[str]:
        """Return the ids of the peers in the DHT's routing table: whom it asks; it drops those who did not answer."""
        assert self.node is not None, "open_dht comes first"
        return {peer.to_base58() for peer in self.node.protocol.routing_table.peer_id_to_uid}

    def records(self) -> int:
        """Return how many records this peer keeps for the DHT."""
        return self.node.protocol.storage.records() if self.node is not None else 0

    async def remember(self, peer_id: str, addresses: Iterable[str]) -> None:
        """See to it that calls by peer id work: connect in the background, and let both DHT tables know.

        Cheap when called often. Takes what strangers publish: addresses that are wrong or another's are left out.
        """
        now = time.monotonic()
        if peer_id == self.peer_id or self._dialling.get(peer_id, 0.0) > now:
            return
        valid = addresses_of(peer_id, addresses)
        if valid:
            self._dialling = {peer: until for peer, until in self._dialling.items() if until > now}
            self._dialling[peer_id] = now + REDIAL_S
            self._spawn(f"acquaint {peer_id}", self._acquaint(peer_id, valid))

    async def open_dht(self, initial_peers: Sequence[str], run_id: str, tick_s: float) -> None:
        """Join the DHT of a run with such ticks by peers that are connected already (peer ids); none founds it.

        Raises NetworkError when none of them will do: silent, unable to dial back, or by another clock.
        """
        self.gate.limits.tick_s = tick_s
        self.node = await DHTNode.create(
            self.p2p,
            node_id=DHTID.generate(source=self.peer_id),
            record_validator=RecordValidator(run_id, tick_s, self.admission.key if self.admission else None),
            wait_timeout=RPC_S,
            cache_locally=False,  # a cached dictionary hides newer subkeys
            cache_nearest=0,
            cache_on_store=False,
        )
        self.node.protocol.storage = BoundedStorage(lambda signer: self.knows(signer))
        async with asyncio.TaskGroup() as group:
            greetings = [group.create_task(self._greet(peer_id, patient=True)) for peer_id in initial_peers]
        problems = [problem for greeting in greetings if (problem := greeting.result())]
        if problems and len(problems) == len(greetings):
            raise NetworkError("; ".join(problems))
        for problem in problems:
            log.warning("%s", problem)
        await self._look_up(self.node.node_id)
        self._spawn("refresh routes", self._refresh_routes())

    async def store(self, key: str, subkey: str, value: bytes, expiration: float) -> bool:
        """Store a signed record until `expiration` (wall-clock seconds); return whether a node took it.

        An entry is replaced only by one that expires later; so a withdrawal must, too.
        """
        assert self.node is not None, "open_dht comes first"
        if self.admission is not None:
            value = self.admission.vouch(value)
        try:
            async with asyncio.timeout(DHT_S):
                return bool(await self.node.store(key, value, expiration, subkey=subkey))
        except TimeoutError:
            return False

    async def fetch(self, key: str) -> dict[str, bytes]:
        """Return the newest records under `key`, by subkey; asks the nodes near the key, never a cache.

        Raises NetworkError when they do not answer in time. Nothing stored is an empty answer.
        """
        assert self.node is not None, "open_dht comes first"
        try:
            async with asyncio.timeout(DHT_S):
                found = await self.node.get(key, latest=True)
        except TimeoutError:
            raise NetworkError(
                f"the DHT did not answer within {DHT_S:.0f} s; "
                "see with `shoal doctor` whether other peers can be reached"
            ) from None
        if found is None or not isinstance(found.value, dict):
            return {}
        values = {subkey: entry.value for subkey, entry in found.value.items()}
        return values if self.admission is None else self.admission.all_vouched(values)

    async def serve(self, servicer: ServicerBase, namespace: str | None = None) -> None:
        """Answer the `rpc_…` methods of `servicer` until the network closes."""
        await servicer.add_p2p_handlers(self.p2p, namespace=namespace)

    def stub(self, servicer: type[ServicerBase], peer_id: str, namespace: str | None = None) -> Any:
        """Return the caller's side of a service at another peer: its `rpc_…` methods."""
        return servicer.get_stub(self.p2p, PeerID.from_base58(peer_id), namespace=namespace)

    async def broken(self) -> None:
        """Wait until p2pd ends by itself, which it should not; then raise NetworkError."""
        raise NetworkError(f"{await p2pd_broken(self.p2p)}; start the peer again")

    async def _dial(self, peer_id: str, addresses: Sequence[str], timeout_s: float) -> str | None:
        """Connect to a peer by any of its addresses; return None or what p2pd says of the failures."""
        targets = [Multiaddr(dial_target(address)) for address in addresses]
        try:
            async with asyncio.timeout(timeout_s):
                await self.p2p._client.connect(PeerID.from_base58(peer_id), targets)
        except TimeoutError:
            return f"no answer within {timeout_s:.0f} s"
        except FAILURES as error:
            return str(error) or "p2pd has ended"
        return None

    async def _acquaint(self, peer_id: str, addresses: Sequence[str]) -> None:
        if self.node and peer_id in await self.connected() and await self._is_silent(peer_id):
            # Of a connection over which nobody answers, as after a change of network, libp2p believes for a minute that
            # it is one, and dials no other.
            await hang_up(self.p2p, PeerID.from_base58(peer_id))
        problem = await self._dial(peer_id, addresses, REDIAL_S)
        if problem is not None:
            is_new = "dial backoff" not in problem or peer_id not in self.failures  # else the last reason still holds
            problem = explain(addresses[0], problem) if is_new else self.failures[peer_id]
        elif self.node is not None:
            problem = await self._greet(peer_id)
        if problem is None:
            self.failures.pop(peer_id, None)
        else:
            self.failures = dict(list(self.failures.items())[-MAX_FAILURES:]) | {peer_id: problem}
            log.debug("not connected to %s: %s", peer_id, problem)

    async def _greet(self, peer_id: str, *, patient: bool = False) -> str | None:
        """Exchange DHT ids with a connected peer; return None or why it cannot be a neighbour."""
        assert self.node is not None, "open_dht comes first"
        for pause_s in PATIENCE_S if patient else (0.0,):
            sent = time.time()
            try:
                answer = await self._ping(peer_id)
                break
            except FAILURES:
                await asyncio.sleep(pause_s)
        else:
            return f"peer {peer_id} does not answer as a DHT node; is it still running, and of the same version?"
        if not answer.available:
            return f"peer {peer_id} cannot dial back to this one; open the port, or use a relay or --announce"
        skew = clock_skew(sent, time.time(), answer.dht_time)
        if abs(skew) > MAX_SKEW_S:
            ahead = "ahead of" if skew > 0 else "behind"
            return f"the clock of peer {peer_id} is {abs(skew):.1f} s {ahead} this machine's; set the wrong one by NTP"
        await self.node.protocol.call_ping(PeerID.from_base58(peer_id))
        return None

    async def _pass_on(self) -> None:
        """Show the newest list of revocations to all who are connected."""
        assert self._presenting is not None
        async with asyncio.TaskGroup() as group:
            for peer_id in await self.connected():
                group.create_task(self._presenting.pass_on(peer_id))

    async def _ping(self, peer_id: str) -> Any:
        """Return what a peer answers as a node of the DHT. Raises one of FAILURES: TimeoutError if it says nothing."""
        assert self.node is not None, "open_dht comes first"
        protocol = self.node.protocol
        request = dht_pb2.PingRequest(peer=protocol.node_info, validate=True)
        return await protocol.get_stub(PeerID.from_base58(peer_id)).rpc_ping(request, timeout=RPC_S)

    async def _is_silent(self, peer_id: str) -> bool:
        """Say whether nothing comes back from a peer; one that has just begun says that it is no node yet."""
        try:
            await self._ping(peer_id)
        except FAILURES as error:
            return isinstance(error, TimeoutError)
        return False

    async def _look_up(self, node_id: DHTID) -> None:
        assert self.node is not None, "open_dht comes first"
        with suppress(TimeoutError):
            async with asyncio.timeout(DHT_S):
                await self.node.find_nearest_nodes([node_id])

    async def _refresh_routes(self) -> None:
        """Look up this node and a random id from time to time. (Hivemind's own refresher fails at its first bucket.)"""
        assert self.node is not None, "open_dht comes first"
        while True:
            await asyncio.sleep(REFRESH_S)
            await self._look_up(self.node.node_id)
            await self._look_up(DHTID(random.randrange(DHTID.MIN, DHTID.MAX)))

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until `_close`. (A TaskGroup would wrap the errors that leave `open_network`'s body.)"""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a background task of the network failed", exc_info=task.exception())

    async def _close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(*FAILURES):
            async with asyncio.timeout(CLOSE_S):
                if self.node is not None:
                    await self.node.shutdown()
