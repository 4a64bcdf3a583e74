"""One holder of a block as a process: real libp2p, the product's rounds, and a synthetic θ in the place of a worker.

Run as `python holder.py PLAN.json NAME`; says `address …`, reads the others' addresses from stdin, runs its rounds, and
writes a JSON line for each, then one with its sums.
"""

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import uvloop

from configs.clock import Clock
from configs.run import RunSpec
from dht.identity import Identity
from dht.network import open_network
from peer.block.exchange import Swarm, Work, run_round
from peer.block.replica import Replica
from peer.block.saved import load_state
from peer.commands import logs
from peer.train.outer import new_state
from protocols.codecs import decode
from protocols.gossip import Timing
from protocols.offers import ListRequest, OfferList, OfferRequest, Offers
from protocols.shards import Shards
from protocols.traffic import Traffic
from protocols.wire import Frames

SIZE = 20_000


class Faulty:
    """Passes requests on to the real service, some of them too late or never: by a seeded plan, the same each time.

    In the rounds of `dies_in` the process ends when somebody has its offer, before it knows what came of the round.
    """

    def __init__(self, offers: Offers, me: str, peer: str, plan: dict[str, Any]) -> None:
        self.offers, self.me, self.peer, self.plan = offers, me, peer, plan
        self.dies_in = set(plan["dies_in"].get(me, []))
        self.delayed: set[int] = set()
        self.lost: set[int] = set()

    def strikes(self, kind: str, round_: int, share: float) -> bool:
        return round_ < self.plan["quiet_from"] and random.Random(f"{kind}/{self.me}/{round_}").random() < share

    async def rpc_offer(self, request: OfferRequest, context: Any) -> Frames:
        if request.wait_s > 0 and self.strikes("offer", request.round, self.plan["delays"]):
            self.delayed.add(request.round)
            await asyncio.sleep(self.plan["late_s"])
        is_sent = False
        try:
            async for frame in self.offers.rpc_offer(request, context):
                is_sent = not frame.data
                yield frame
        finally:  # the reader has everything and closes
            if is_sent and request.round in self.dies_in and request.peer == self.peer:
                os.kill(os.getpid(), signal.SIGKILL)

    async def rpc_list(self, request: ListRequest, context: Any) -> OfferList:
        if self.strikes("list", request.round, self.plan["losses"]):
            self.lost.add(request.round)
            raise ConnectionError("this list is lost")
        return await self.offers.rpc_list(request, context)

    async def rpc_history(self, request: Any, context: Any) -> Any:
        return await self.offers.rpc_history(request, context)


def progress(me: str, round_: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(random.Random(f"{me}/{round_}").randrange(2**40))
    return 0.01 * torch.randn(SIZE, generator=generator)


def keep_offers(folder: Path, replica: Replica) -> None:
    """Write down D(u) of every round, for the test's own sums."""
    for round_, mine in replica.own.items():
        if not (folder / f"offer-{round_}.pt").exists():
            torch.save(decode(mine.codec, mine.payload, SIZE), folder / f"offer-{round_}.pt")


async def main(plan: dict[str, Any], name: str) -> None:
    spec = RunSpec.model_validate(plan["spec"])
    folder = Path(plan["folder"]) / name
    folder.mkdir(exist_ok=True)
    key = folder / "identity.key"
    identity = Identity.load_or_create(key)
    async with open_network(key, host="127.0.0.1", port=plan["ports"][name]) as network:
        me, traffic, offers = network.peer_id, Traffic(), Offers(Traffic())
        begin = torch.randn(SIZE, generator=torch.Generator().manual_seed(1))
        state = load_state(folder, "model", SIZE)
        is_back = state is not None
        if state is None:
            state = new_state("model", begin, None, version=0, round_=0, ages={}, is_final=False)
        replica = Replica(state, spec, me)
        replica.resume(folder)
        replica.save(folder)

        def lookup(digest: str) -> memoryview | None:
            states = (replica.state, replica.previous)
            return next((s.blob for s in states if s is not None and s.digest == digest), None)

        faulty = Faulty(offers, name, me, plan)
        await offers.add_p2p_handlers(network.p2p, wrapper=faulty, namespace=spec.run_id)
        await network.serve(Shards(lookup, traffic), spec.run_id)
        print(f"address {(await network.addresses())[0]}", flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        told = json.loads(line)
        clock = Clock(told["genesis"], spec.rounds.tick_seconds)
        others = [address for address in told["addresses"] if not address.endswith(me)]
        view = sorted([me, *(address.rsplit("/", 1)[1] for address in others)])
        await network.connect(others)
        swarm = Swarm(
            spec.run_id,
            identity,
            offers,
            lambda peer: network.stub(Offers, peer, spec.run_id),
            lambda peer: network.stub(Shards, peer, spec.run_id),
            folder,
        )
        # What was offered before a kill is in the residual or in the block; θ itself begins at φ.
        made_file = folder / "made.json"
        made_rounds = json.loads(made_file.read_text()) if is_back else []
        made_rounds = [round_ for round_ in made_rounds if round_ <= replica.offered_round]  # the last one is lost
        sealed: dict[int, tuple[int, list[str]]] = {}  # version → round and peers, of the history that counts
        keep_offers(folder, replica)
        theta, counted = replica.state.phi.clone(), 0
        while (round_ := clock.tick() + 1) <= plan["rounds"]:
            await asyncio.sleep(clock.seconds_until(round_) + 0.002)
            theta = theta - progress(name, round_)
            made_rounds.append(round_)
            before, cut = replica.state, theta.clone()
            counted += 1
            length = spec.rounds.tick_seconds
            work = Work(cut, 100 * round_, "all")
            made_file.write_text(json.dumps(made_rounds))
            timing = Timing(0.45 * length, 0.65 * length)
            outcome = await run_round(swarm, replica, round_, view, work, timing)
            if replica.state is not before:
                theta = theta + (replica.state.phi - (cut if outcome.is_step else before.phi))
                replica.save(folder)
            keep_offers(folder, replica)
            sealed |= {r.version: (r.round, sorted(r.offers)) for r in replica.lineage}
            marks = [[mark.version, mark.digest[:16]] for mark in replica.marks]
            print(json.dumps({"round": round_, "outcome": outcome.text, "marks": marks}), flush=True)
        made = sum((progress(name, r).double() for r in made_rounds), torch.zeros(SIZE, dtype=torch.float64))
        under_way = replica.state.phi.double() - theta.double()
        torch.save({"made": made, "residual": replica.residual.double(), "under_way": under_way}, folder / "sums.pt")
        history = [sealed[version] for version in sorted(sealed) if version <= replica.state.version]
        (folder / "history.json").write_text(
            json.dumps({"me": me, "version": replica.state.version, "sealed": history})
        )
        faults = {"delayed": len(faulty.delayed), "lost": len(faulty.lost), "rounds": counted}
        print(json.dumps({"done": faults}), flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # serve until all are done


if __name__ == "__main__":
    torch.set_num_threads(1)
    logs.configure("debug")
    arguments = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*arguments))
