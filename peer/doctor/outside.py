"""Looks at the network with the help of one peer: a visitor with an identity of its own, gone when it has looked."""

import asyncio
import tempfile
import time
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import PeerError, RefusedError, ShoalError
from configs.machine import PeerConfig
from configs.run import RunSpec
from dht.addresses import parse_address
from dht.identity import Identity
from dht.network import Network, open_network
from dht.relays import Terms, ask_terms
from peer.doctor.facts import Description, Measured, OtherVersion, Outside, Unknown
from peer.member.arrival import listening_port, meet
from peer.member.entry import read_domains
from peer.member.invited import Home, open_visitor
from protocols.describe import Describe, DescribeRequest, RunDescription
from protocols.reach import Reach, ReachAnswer, ask_reach, direct, place_of
from protocols.shards import RUN_CHUNKS, ChunkRequest, Shards
from protocols.wire import call, each_frame

NO_ADDRESS = Unknown("give the address of a peer: shoal doctor ADDR")
CONNECT_S = 8.0
CALL_S = 10.0
OTHERS = 3  # members of the run that are asked as well: one alone cannot tell one kind of NAT from another
OTHERS_S = 4.0  # for them to be dialled
MEASURE_S = 2.0  # of a download
LEAST_BYTES = 256 << 10  # less says more of the delay than of the rate


async def look_outside(config: PeerConfig, address: str, port: int | None) -> Outside:
    """Ask the peer at `address`. `port` is the one that a running daemon listens on; None: try the configured one.

    Raises UsageError for what is no address, and as `open_network`.
    """
    _, peer = parse_address(address)
    with tempfile.TemporaryDirectory(prefix="shoal-doctor-") as folder:
        key = Path(folder) / "identity.key"
        try:
            admission = open_visitor(Home(config.state_dir), Identity.load_or_create(key))
        except ShoalError as error:  # an invitation that has ended, or that cannot be read
            return Outside(Unknown(str(error), is_fault=True))
        listen = 0 if port else config.port
        async with open_network(key, host=config.host, port=listen, admission=admission) as network:
            own = await network.addresses()
            hosts = frozenset(seen.host for each in own if (seen := place_of(each)) is not None)
            own_port = listening_port(own)
            try:
                await network.connect([address], CONNECT_S)
            except ShoalError as error:
                return Outside(Unknown(str(error).removeprefix("cannot reach the swarm; "), is_fault=True))
            return await _ask(network, peer, address, hosts, own_port, port or own_port)


async def _ask(
    network: Network, peer: str, address: str, hosts: frozenset[str], own_port: int, asked_port: int
) -> Outside:
    """Put all questions to a connected peer, and the one about ports to some others as well."""
    async with asyncio.TaskGroup() as group:
        reached = group.create_task(_reach(network, peer, asked_port))
        granted = group.create_task(_terms(network, peer))
        heard = group.create_task(_hear(network, peer))
        asked_too = group.create_task(_ask_others(network, peer, heard, asked_port))
    others, more = asked_too.result()
    said, terms, asked = heard.result(), granted.result(), [reached.result(), *more]
    for other in others if isinstance(terms, Unknown) else []:
        found = await _terms(network, other)
        terms = terms if isinstance(found, Unknown) else found
    description: Measured[Description] = said if isinstance(said, Unknown) else said[1]
    down_mbit: Measured[float] = Unknown("the peer did not describe its run")
    if not isinstance(said, Unknown):
        down_mbit = await _measure(network, peer, said[0], said[1].spec)
    answers = [each for each in asked if isinstance(each, ReachAnswer)]
    problem = next((each for each in asked if isinstance(each, str)), "")
    return Outside(address, hosts, own_port, asked_port, answers, problem, terms, description, down_mbit)


async def _ask_others(
    network: Network, peer: str, heard: asyncio.Task[Measured[tuple[RunDescription, Description]]], port: int
) -> tuple[list[str], list[ReachAnswer | str]]:
    """Return other members, as soon as the peer has named some, and whether they can dial this machine."""
    said = await heard
    others = [] if isinstance(said, Unknown) else await _others(network, peer, said[0])
    return others, await asyncio.gather(*(_reach(network, other, port) for other in others))


async def _hear(network: Network, peer: str) -> Measured[tuple[RunDescription, Description]]:
    """Ask which run it is, and what time; unlike a peer that joins, take any answer that can be read."""
    asked = time.time()
    try:
        answer = await call(network.stub(Describe, peer).rpc_describe, DescribeRequest(knows_hints=True), CALL_S)
        answered = time.time()
        spec = RunSpec.model_validate_json(answer.spec)
    except PeerError as error:
        return OtherVersion(str(error), is_fault=True)
    except RefusedError as error:
        return Unknown(str(error), is_fault=True)
    except ShoalError as error:
        return Unknown(f"the peer does not describe its run ({error})", is_fault=True)
    except ValidationError:
        return OtherVersion("the peer's run is of another version of shoal", is_fault=True)
    offset_s = answer.now - (asked + answered) / 2
    return answer, Description(answer.version, spec, offset_s, (answered - asked) / 2)


async def _reach(network: Network, peer: str, port: int) -> ReachAnswer | str:
    try:
        return await ask_reach(network.stub(Reach, peer), port)
    except ShoalError as error:
        return f"the peer does not try to dial this machine ({error})"


async def _terms(network: Network, peer: str) -> Measured[Terms]:
    if direct(await network.seen_at(peer)) is None:
        return Unknown("the peer itself is behind a relay, and relays for nobody", is_fault=True)
    try:
        return await ask_terms(network.p2p, peer, CALL_S)
    except ShoalError as error:
        return Unknown(f"the peer does not relay: {error}", is_fault=True)


async def _others(network: Network, peer: str, answer: RunDescription) -> list[str]:
    """Connect to other members that can be dialled from here; return them, and the relay that leads to this peer."""
    others = {member: addresses for member, addresses in list(answer.members.items())[: 2 * OTHERS] if member != peer}
    await meet(network, others, len(others), OTHERS_S)
    return sorted(await network.connected() - {peer})[:OTHERS]


async def _measure(network: Network, peer: str, answer: RunDescription, spec: RunSpec) -> Measured[float]:
    """Return how fast the peer sends, in Mbit/s: the largest public piece of text, for `MEASURE_S` at most."""
    try:
        shards = [shard for domain in read_domains(answer.domains, spec) if domain.is_public for shard in domain.shards]
    except ShoalError as error:
        return Unknown(f"not measured: {error}")
    largest = max(shards, key=lambda shard: shard.size_bytes, default=None)
    if largest is None or largest.size_bytes < LEAST_BYTES:
        return Unknown("the run's text is too small to measure by, or private")
    stub, began, received = network.stub(Shards, peer, spec.run_id), time.monotonic(), 0
    with suppress(TimeoutError, ShoalError):
        async with asyncio.timeout(MEASURE_S):
            for first in range(0, 1 << 16, RUN_CHUNKS):
                got = received
                received += await _download(stub, largest.content_id, first)
                if received == got:
                    break
    seconds = time.monotonic() - began
    if received < LEAST_BYTES and seconds < MEASURE_S:
        return Unknown("the peer does not send its text")
    return 8e-6 * received / seconds


async def _download(stub: Any, content_id: str, first: int) -> int:
    """Return how many bytes came."""
    stream = await call(stub.rpc_chunks, ChunkRequest(content_id=content_id, first=first, count=RUN_CHUNKS), CALL_S)
    size = 0
    async with aclosing(each_frame(stream)) as frames:  # type: ignore[type-var]
        async for frame in frames:
            size += len(frame.data)
    return size
