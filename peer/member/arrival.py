"""How a peer comes into the network: whether others can dial it, and, if not, through whom they reach it.

libp2p finds out by itself, but in minutes: it waits before it asks anybody, and then for more relays than a small swarm
has. Here the peers that this one knows are asked before it begins, in seconds, and libp2p is told the outcome.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from configs.errors import ShoalError
from configs.files import read_json, write_json
from configs.machine import PeerConfig
from dht.addresses import addresses_of, parse_address
from dht.admission import Admission
from dht.network import Network, open_network
from dht.p2pd import Reachability
from peer.http.server import is_loopback
from protocols.describe import Describe, describe
from protocols.reach import Reach, ReachAnswer, ask_reach, decisive, direct, place_of

log = logging.getLogger(__name__)

SCOUT_S = 4.0  # for the peers that are asked to be reached
ASKED = 3  # peers
RELAYS = 3  # more do not make it safer: libp2p asks for room at all of them before it uses the first
LISTED = 8  # members that are dialled to find relays
OPEN_S = 4.0  # for a router that opens ports when it is asked (UPnP, NAT-PMP)
WAY_FILE = "way.json"
WORDS: Mapping[Reachability, str] = {
    "public": "others can dial this peer",
    "private": "others cannot dial this peer (a NAT or a firewall is before it); relayed through %d of them",
    "unknown": "nobody could say whether others can dial this peer; libp2p finds out by itself, in some minutes",
}


@dataclass(frozen=True)
class Way:
    """How others reach this peer."""

    reachability: Reachability
    port: int  # that it listens on
    relays: tuple[str, ...] = ()  # addresses


@asynccontextmanager
async def open_way(
    config: PeerConfig, key: Path, known: Sequence[str], admission: Admission | None = None
) -> AsyncIterator[Network]:
    """Open the network in the way that suits this machine; `known` has addresses of peers of an earlier life.

    `admission` is that of a closed run. Raises as `open_network`.
    """
    way = await find_way(config, key, config.initial_peers or known, admission)
    async with open_network(
        key,
        host=config.host,
        port=way.port,
        announce=config.announce,
        relays=way.relays,
        reachability=way.reachability,
        admission=admission,
    ) as network:
        yield network


async def find_way(config: PeerConfig, key: Path, addresses: Sequence[str], admission: Admission | None = None) -> Way:
    """Ask the peers at `addresses` to dial this one, and return what follows; whoever founds a run relays for others.

    Raises as `open_network`. That nobody answers is for those to say who need an answer; then it is as the last time.
    """
    if is_loopback(config.host) or config.announce or not addresses:
        return Way("public", config.port)
    if not config.use_relay:
        return Way("unknown", config.port)
    async with open_network(key, host=config.host, port=config.port, admission=admission) as network:
        own = await network.addresses()
        try:
            peers = (await network.connect(addresses, SCOUT_S))[:ASKED]
        except ShoalError:
            return _as_before(config) or Way("unknown", config.port, tuple(addresses[:RELAYS]))
        async with asyncio.TaskGroup() as group:
            relays = group.create_task(_find_relays(network, peers))
            answers = await asyncio.gather(*(_ask(network, peer, own) for peer in peers))
            reachability = judge([answer for answer in answers if answer is not None])
            if reachability != "private":
                relays.cancel()
        found = relays.result() if reachability == "private" else ()
    log.info(WORDS[reachability], *([len(found)] if reachability == "private" else []))
    port = listening_port(own) or config.port
    if reachability == "unknown":
        return Way("unknown", port, tuple(addresses[:RELAYS]))
    with suppress(ShoalError):  # a disk that is full stops others, with more to say
        write_json(config.state_dir / WAY_FILE, {"reachability": reachability, "relays": found})
    return Way(reachability, port, found)


def _as_before(config: PeerConfig) -> Way | None:
    """Return how this peer was reached the last time; None if that is not known, or cannot be read."""
    with suppress(ShoalError):
        match read_json(config.state_dir / WAY_FILE):
            case {"reachability": "public"}:
                return Way("public", config.port)
            case {"reachability": "private", "relays": [*relays]} if relays:
                return Way("private", config.port, tuple(parse_address(str(each))[0] for each in relays[:RELAYS]))
    return None


def judge(answers: Sequence[ReachAnswer]) -> Reachability:
    """Return whether others can dial this peer by what some of them found.

    Those count who see it on the Internet, if there are any: in one's own network doors are open that are closed there.
    """
    answer = decisive(answers)
    if answer is None:
        return "unknown"
    return "public" if answer.outcome == "open" else "private"


def opened_port(addresses: Iterable[str], host: str) -> int | None:
    """Return the port at `host`, where others see this peer, that it tells as its own; None if there is none."""
    return next((seen.port for seen in map(place_of, addresses) if seen is not None and seen.host == host), None)


def listening_port(addresses: Sequence[str]) -> int:
    """Return the port of a host by the addresses that it found for itself; 0 if it has none."""
    return next((seen.port for seen in map(place_of, addresses) if seen is not None), 0)


async def _ask(network: Network, peer: str, before: Sequence[str]) -> ReachAnswer | None:
    """Ask a peer to dial this one, and once more where the router has opened a port meanwhile, as libp2p bids it."""
    until = time.monotonic() + OPEN_S
    try:
        port = listening_port(before)
        answer = await ask_reach(network.stub(Reach, peer), port) if port else None
        if answer is None or answer.outcome not in ("refused", "silent", "other"):
            return answer
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        opened = opened_port({*await network.addresses()} - {*before}, answer.host)
        return answer if opened is None else await ask_reach(network.stub(Reach, peer), opened)
    except ShoalError as error:  # of a version that cannot, or one that has other things to do
        log.debug("%s does not say whether it can dial this peer: %s", peer, error)
        return None


async def _find_relays(network: Network, peers: Sequence[str]) -> tuple[str, ...]:
    """Return addresses of peers that can be dialled from here, `peers` first: those of them that relay will do."""
    if len(peers) < RELAYS:
        with suppress(ShoalError):
            members = (await describe(network.stub(Describe, peers[0]))).members
            await meet(network, members, LISTED, SCOUT_S)
    others = sorted(await network.connected() - {*peers})
    found = []
    for peer in [*peers, *others]:
        seen = direct(await network.seen_at(peer))
        if seen is not None:
            found.append(f"/{seen.family}/{seen.host}/tcp/{seen.port}/p2p/{peer}")
    return tuple(found[:RELAYS])


async def meet(network: Network, members: Mapping[str, Sequence[str]], most: int, timeout_s: float) -> None:
    """Dial, all at once, the first `most` of the members that a peer told of, where they can be dialled directly."""

    async def dial(addresses: Sequence[str]) -> None:
        with suppress(ShoalError):
            await network.connect(addresses, timeout_s)

    async with asyncio.TaskGroup() as group:
        for peer, told in list(members.items())[:most]:
            own = [address for address in addresses_of(peer, told) if "/p2p-circuit" not in address]
            if own and peer != network.peer_id:
                group.create_task(dial(own))
