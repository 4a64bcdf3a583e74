"""A member of a group (see `group.py`) that is a real Shoal peer but for the trainer: libp2p, services, rounds, disk.

Its block has N parameters; what it "learns" in a round is seeded noise. It says for each round: the outcome, seconds
from the cut's opening (the snapshot handed over) to the new anchor and to the checkpoint, payload bytes, CPU seconds.
"""

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import uvloop
from torch import Tensor

from benchmarks.usage import cpu_seconds, peak_mib
from configs.allocator import keep_pages
from configs.clock import Clock
from configs.run import RunSpec
from dht.identity import Identity
from dht.network import Network, open_network
from peer.block.exchange import Swarm, Work, run_round
from peer.block.random_group import run_round_among
from peer.block.replica import Replica
from peer.block.timing import round_timing
from peer.commands import logs
from peer.train.outer import new_state
from protocols.gossip import Timing
from protocols.grouping import bits_for, draw, group
from protocols.offers import Offers
from protocols.shards import Shards
from protocols.traffic import Traffic

BLOCK = "model"
PORT = 4001
TIMER_S = 0.002  # how early a timer may fire


@asynccontextmanager
async def pauses_of(every_s: float | None) -> AsyncIterator[list[float]]:
    """Look at the loop so often, and collect by how much each look was late: for so long it answered nobody."""
    found: list[float] = []

    async def look(every_s: float) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + every_s
            await asyncio.sleep(every_s)
            found.append(loop.time() - due_s)

    looking = asyncio.create_task(look(every_s)) if every_s is not None else None
    try:
        yield found
    finally:
        if looking is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking


class Metered(Replica):
    """Keeps account of the CPU seconds that its steps take in the threads that they run in."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.cpu_s: dict[str, float] = {}

    def offer(self, *arguments: Any) -> tuple[bytes, float]:
        offered: tuple[bytes, float] = self._metered("encode", super().offer, *arguments)
        return offered

    def advance(self, *arguments: Any) -> None:
        self._metered("step", super().advance, *arguments)

    def mix(self, *arguments: Any) -> None:
        self._metered("step", super().mix, *arguments)

    def save_offered(self, folder: Path) -> None:
        self._metered("save offer", super().save_offered, folder)

    def save(self, folder: Path) -> None:
        self._metered("checkpoint", super().save, folder)

    def _metered(self, phase: str, call: Callable[..., Any], *arguments: Any) -> Any:
        before = time.thread_time()
        try:
            return call(*arguments)
        finally:
            self.cpu_s[phase] = self.cpu_s.get(phase, 0.0) + time.thread_time() - before


class Holder:
    """One holder of the block while its network is open."""

    def __init__(self, plan: dict[str, Any], index: int, identity: Identity, network: Network) -> None:
        self.plan, self.index, self.network = plan, index, network
        self.spec = RunSpec.model_validate(plan["spec"])
        self.folder = Path(plan["folder"]) / str(index)
        self.traffic = Traffic(plan["up_mbit"])
        self.offers = Offers(self.traffic)
        begin = 0.1 * torch.randn(plan["size"], generator=torch.Generator().manual_seed(plan["seed"]))
        state = new_state(BLOCK, begin, None, version=0, round_=0, ages={}, is_final=False)
        self.replica = Metered(state, self.spec, network.peer_id)
        run_id = self.spec.run_id
        self.swarm = Swarm(
            run_id,
            identity,
            self.offers,
            lambda peer: network.stub(Offers, peer, run_id),
            lambda peer: network.stub(Shards, peer, run_id),
            self.folder,
        )

    async def serve(self, earlier: list[str]) -> str:
        """Connect to the others that are there, and answer them; return this peer's address."""

        def lookup(digest: str) -> memoryview | None:
            states = (self.replica.state, self.replica.previous)
            return next((s.blob for s in states if s is not None and s.digest == digest), None)

        await self.network.serve(self.offers, self.spec.run_id)
        await self.network.serve(Shards(lookup, self.traffic), self.spec.run_id)
        if earlier:
            await self.network.connect(earlier)
        return (await self.network.addresses())[0]

    async def take_part(self, told: dict[str, Any]) -> None:
        """Run the planned rounds by the clock, one a tick, from tick 1 on, and say what came of each."""
        clock = Clock(told["genesis"], self.spec.rounds.tick_seconds)
        view = sorted(address.rsplit("/", 1)[1] for address in told["addresses"])
        for round_ in range(1, self.plan["steps"] + 1):
            theta = await asyncio.to_thread(self._learn, round_)
            await asyncio.sleep(clock.seconds_until(round_) + TIMER_S)
            late_s = clock.now() - clock.time_of(round_)
            async with pauses_of(self.plan["pause_every_s"]) as pauses:
                said = await self._round(round_, view, theta, late_s)
            said["pause_s"] = max(pauses, default=None)
            print(json.dumps({"round": round_, "late_s": late_s, **said}), flush=True)

    def _learn(self, round_: int) -> Tensor:
        seed = random.Random(f"{self.plan['seed']}/{self.index}/{round_}").randrange(2**40)
        noise = torch.randn(self.plan["size"], generator=torch.Generator().manual_seed(seed))
        return self.replica.state.phi - noise.mul_(0.01)

    async def _round(self, round_: int, view: list[str], theta: Tensor, late_s: float) -> dict[str, Any]:
        replica, p2pd = self.replica, self.network.p2p._child.pid
        replica.cpu_s, before = {}, (time.process_time(), cpu_seconds(p2pd))
        bytes_in, bytes_out, began = self.traffic.bytes_in, self.traffic.bytes_out, time.monotonic()
        timing = Timing(*round_timing(self.spec, replica.state.age, late_s))
        work = Work(theta, 100 * round_, "all")
        size = self.spec.rounds.group_size
        if bits := bits_for(len(view), size):
            draws = {peer: draw(self.spec.run_id, BLOCK, round_, peer) for peer in view}
            members = group(replica.me, draws, bits, size)
            outcome = await run_round_among(self.swarm, replica, round_, members, work, timing, len(view))
        else:
            outcome = await run_round(self.swarm, replica, round_, view, work, timing)
        anchor_s = time.monotonic() - began
        await asyncio.to_thread(replica.save, self.folder)
        saved_s = time.monotonic() - began
        cpu = {"process": time.process_time() - before[0], "p2pd": cpu_seconds(p2pd) - before[1]}
        return {
            "outcome": outcome.text,
            "is_step": outcome.is_step,
            "digest": replica.state.digest,
            "anchor_s": anchor_s,
            "saved_s": saved_s,
            "payload_in": self.traffic.bytes_in - bytes_in,
            "payload_out": self.traffic.bytes_out - bytes_out,
            "cpu_s": {**cpu, **replica.cpu_s},  # the phases are part of the process
            "peak_mib": peak_mib(os.getpid()),
        }


async def main(plan: dict[str, Any], index: int) -> None:
    folder = Path(plan["folder"]) / str(index)
    folder.mkdir()
    key = folder / "identity.key"
    identity = Identity.load_or_create(key)
    earlier = json.loads(await asyncio.to_thread(sys.stdin.readline))["earlier"]
    async with open_network(key, host=plan["hosts"][index], port=PORT) as network:
        holder = Holder(plan, index, identity, network)
        print(json.dumps({"address": await holder.serve(earlier)}), flush=True)
        await holder.take_part(json.loads(await asyncio.to_thread(sys.stdin.readline)))
        print(json.dumps({"done": True}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # serve until all are done


if __name__ == "__main__":
    torch.set_num_threads(1)
    logs.configure("info")
    keep_pages()  # as the daemon does
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])))
