"""Somebody hostile, as a process: asks one peer for everything at once, without end, and counts what came of it.

`python -m benchmarks.flooder ADDRESS RUN_ID SECONDS STATE_DIR`: an outsider when the state directory has no invitation,
else a member. Speaks the protocol with Hivemind's own client, without our side's manners. Prints one JSON line.
"""

import asyncio
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop
from hivemind.dht.routing import DHTID
from hivemind.p2p import PeerID
from hivemind.proto import dht_pb2
from hivemind.utils import MSGPackSerializer, get_dht_time

from dht.addresses import parse_address
from dht.admission import Admission
from dht.gate import refusal
from dht.identity import Identity
from dht.network import Network, open_network
from dht.p2pd import FAILURES
from dht.records import ExclusionRecord, GroupRecord, MemberRecord, sign_record
from dht.streams import raise_limit
from peer.commands.logs import configure
from peer.member.invited import own_chain
from peer.train.partition import COMMON
from protocols.answer import AnswerRequest
from protocols.describe import DescribeRequest
from protocols.offers import HistoryRequest, ListRequest, OfferRequest
from protocols.shards import ChunkRequest, ManifestRequest
from protocols.state import BlocksRequest, BlockState, KeepRequest
from protocols.wire import Frame

AT_ONCE = 24  # calls of each kind that are under way
SILENT = 1200  # connections that say nothing
IDLE = 200  # streams whose answers are not read
CALL_S = 5.0
DIGEST = "0" * 64


class Flooder:
    """One attacker and what became of its calls, by kind."""

    def __init__(self, network: Network, peer: str, address: str, run_id: str, admission: Admission | None) -> None:
        self.network, self.peer, self.address, self.run_id = network, peer, address, run_id
        self.admission = admission
        self.seen: dict[str, Counter[str]] = {}

    def unary(self) -> dict[str, tuple[str, Any]]:
        """Return every call with one answer: kind → its handler, and a request."""
        run, me = self.run_id, self.network.peer_id
        state = BlockState(
            block=COMMON, version=2**40, round=1, age=1, content_id=DIGEST, size_bytes=1 << 20, is_final=False
        )
        return {
            "describe": ("Describe.rpc_describe", DescribeRequest(knows_hints=True)),
            "blocks": (f"{run}::State.rpc_blocks", BlocksRequest()),
            "keep": (f"{run}::State.rpc_keep", KeepRequest(state=state)),
            "list": (f"{run}::Offers.rpc_list", ListRequest(block=COMMON, round=2**40, wait_s=30.0)),
            "history": (f"{run}::Offers.rpc_history", HistoryRequest(block=COMMON, after_version=0)),
            "dht ping": ("DHTProtocol.rpc_ping", dht_pb2.PingRequest(validate=True)),
            "dht find": (
                "DHTProtocol.rpc_find",
                dht_pb2.FindRequest(keys=[DHTID.generate(source=f"shoal/{run}/members").to_bytes()] * 64),
            ),
            **{
                f"dht store {kind}": ("DHTProtocol.rpc_store", self.store(kind, me))
                for kind in ("member", "group", "exclusion", "nonsense")
            },
            "a megabyte": ("DHTProtocol.rpc_ping", dht_pb2.PingRequest(peer=dht_pb2.NodeInfo(node_id=bytes(1 << 20)))),
        }

    def streams(self) -> dict[str, tuple[str, Any]]:
        """Return every call with a stream: kind → its handler, and a request."""
        run = self.run_id
        ask = AnswerRequest(sub_model=COMMON, prompt=[5] * 64, max_tokens=512, temperature=1.0, top_k=0, seed=1)
        offer = OfferRequest(block=COMMON, round=2**40, peer=self.network.peer_id, wait_s=30.0)
        return {
            "offer": (f"{run}::Offers.rpc_offer", offer),
            "manifest": (f"{run}::Shards.rpc_manifest", ManifestRequest(content_id=DIGEST)),
            "chunks": (f"{run}::Shards.rpc_chunks", ChunkRequest(content_id=DIGEST, first=0, count=16)),
            "answer": (f"{run}::Answers.rpc_answer", ask),
        }

    def store(self, kind: str, me: str) -> Any:
        """Return a request to keep one of this peer's records, or what is none."""
        run, now = self.run_id, time.time()
        records: dict[str, Any] = {
            "member": MemberRecord(run_id=run),
            "group": GroupRecord(run_id=run, block=COMMON, tick=5, prefix="0", holders=2.0**30),
            "exclusion": ExclusionRecord(run_id=run, proofs=[]),
        }
        record = records.get(kind)
        value = b"nonsense" if record is None else sign_record(self.network.identity, kind, record, now)  # type: ignore[arg-type]
        value = value if self.admission is None else self.admission.vouch(value)
        key = DHTID.generate(source=record.key if record else "anything").to_bytes()
        return dht_pb2.StoreRequest(
            keys=[key],
            subkeys=[MSGPackSerializer.dumps(me)],
            values=[MSGPackSerializer.dumps(value)],
            expiration_time=[get_dht_time() + 50],
            in_cache=[False],
        )

    async def call(self, kind: str, handler: str, request: Any) -> None:
        """Ask once; an answer that is an error, a refusal or a closed connection is none."""
        answer = dht_pb2.PingResponse if handler.startswith("DHT") else Frame
        await self._counted(kind, self.network.p2p.call_protobuf_handler(self._id, handler, request, answer))

    async def stream(self, kind: str, handler: str, request: Any) -> None:
        """Open a stream and read its first part."""

        async def first() -> None:
            parts = await self.network.p2p.iterate_protobuf_handler(self._id, handler, request, Frame)
            try:
                await anext(parts)
            finally:
                await parts.aclose()

        await self._counted(kind, first())

    async def _counted(self, kind: str, asked: Awaitable[Any]) -> None:
        seen = self.seen.setdefault(kind, Counter())
        try:
            async with asyncio.timeout(CALL_S):
                await asked
            seen["answered"] += 1
        except (*FAILURES, StopAsyncIteration) as error:
            seen["refused" if refusal(error) or "too many" in str(error) else "failed"] += 1
        except Exception as error:  # an answer that this side cannot read is one all the same
            seen["answered" if type(error).__name__ in ("PeerError", "DecodeError") else "failed"] += 1

    @property
    def _id(self) -> PeerID:
        return PeerID.from_base58(self.peer)

    async def without_end(self, ask: Callable[..., Awaitable[None]], *what: Any) -> None:
        """Ask again and again; dial again where the connection is gone."""
        while True:
            await ask(*what)
            if self.seen[what[0]]["failed"] % 8 == 7:
                await self.network._dial(self.peer, [self.address], CALL_S)
            await asyncio.sleep(0)

    async def flood(self, seconds: float) -> None:
        """Do all of it at once for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
                for _ in range(AT_ONCE):
                    for kind, (handler, request) in self.unary().items():
                        tasks.create_task(self.without_end(self.call, kind, handler, request))
                    for kind, (handler, request) in self.streams().items():
                        tasks.create_task(self.without_end(self.stream, kind, handler, request))
                tasks.create_task(self._idle())
                tasks.create_task(asyncio.to_thread(self._silent, time.monotonic() + seconds))

    async def _idle(self) -> None:
        handler, request = self.streams()["offer"]
        held = []
        for _ in range(IDLE):
            with suppress(*FAILURES):
                held.append(await self.network.p2p.iterate_protobuf_handler(self._id, handler, request, Frame))
        await asyncio.Event().wait()

    def _silent(self, until: float) -> None:
        parts = self.address.split("/")
        held = []
        with suppress(OSError):
            for _ in range(SILENT):
                held.append(socket.create_connection((parts[2], int(parts[4])), timeout=2.0))
        self.seen["silent connections"] = Counter(held=len(held))
        time.sleep(max(0.0, until - time.monotonic()))
        for each in held:
            each.close()


async def main(address: str, run_id: str, seconds: float, state_dir: Path) -> None:
    """Attack one peer, and print what came of it."""
    raise_limit()
    identity = Identity.load_or_create(state_dir / "identity.key")
    chain = own_chain(state_dir)
    admission = None if chain is None else Admission(chain[0].admission, chain)
    _, peer = parse_address(address)
    async with open_network(state_dir / "identity.key", host="127.0.0.1", admission=admission) as network:
        await network.connect([address])
        flooder = Flooder(network, peer, address, run_id, admission)
        if seconds:
            await flooder.flood(seconds)
        else:  # each once, one after the other
            for kind, (handler, request) in flooder.unary().items():
                await flooder.call(kind, handler, request)
            for kind, (handler, request) in flooder.streams().items():
                await flooder.stream(kind, handler, request)
    print(json.dumps({"me": identity.peer_id, "seen": {kind: dict(seen) for kind, seen in flooder.seen.items()}}))


if __name__ == "__main__":
    configure("error")
    uvloop.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4])))
    sys.stdout.flush()
    os._exit(0)  # threads that hold connections
