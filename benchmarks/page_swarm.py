"""A daemon's HTTP side over a swarm that is made up, to look at the page by hand and to measure it.

    python -m benchmarks.page_swarm --peers 300 --port 8080

All that the page shows is here, and much of it ails: late and silent peers, one that is left out, a sub-model that
nobody trains, shards without a holder. With `--well` nothing does. Each tick changes what one of a real swarm changes.
"""

import argparse
import asyncio
import math
import random
import signal
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import uvloop
from pydantic import ValidationError

from benchmarks.page_history import START_TICK, WORDS, PageHistory, loss_at
from configs.errors import ConfigError, StateError
from configs.limits import Limits, told
from configs.load import describe
from configs.machine import PeerConfig
from peer import __version__
from peer.http.health import Pulse
from peer.http.history import Piece, Rounds, Share
from peer.http.playground import Prompt
from peer.http.status import BlockStatus, Coverage, DigestMark, Finding, PeerStatus, Status
from peer.http.status_page import Actions, Shown, open_http

DOMAINS = ("python", "docs", "cpp", "law", "medicine", "news", "poetry", "recipes")
RUN_ID = "0123456789abcdef" * 2
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass
class PageSwarm:
    """A swarm that is not there: `peers` of them, the first of which is the daemon."""

    peers: int
    tick_seconds: float = 1.0
    is_well: bool = False
    began: float = field(default_factory=time.time)
    is_paused: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        chance = random.Random(self.peers)
        self.ids = ["12D3KooW" + "".join(chance.choices(BASE58, k=44)) for _ in range(self.peers)]
        count = 1 if self.peers < 4 else 3 if self.peers < 40 else 8
        self.domains = DOMAINS[:count]
        self.sub_models = (
            {f"expert.{k}": name for k, name in enumerate(self.domains)} if count > 1 else {"model": "all"}
        )
        names = list(self.sub_models)
        trained = names if self.is_well or count < 3 else names[:-1]  # the last one has nobody
        self.homes = [trained[k % len(trained)] for k in range(self.peers)]
        self.speeds = [chance.lognormvariate(6.8, 0.5) for _ in self.ids]
        self.history = PageHistory(self.ids, self.homes, self.sub_models, self.began, self.tick_seconds, self.is_well)

    @property
    def tick(self) -> int:
        return START_TICK + int((time.time() - self.began) / self.tick_seconds)

    def status(self) -> Status:
        tick = self.tick
        return Status(
            version=__version__,
            peer_id=self.ids[0],
            run_id=RUN_ID,
            run_name="tiny",
            strategy="experts" if len(self.sub_models) > 1 else "replicas",
            phase="parted" if len(self.sub_models) > 1 else "common",
            state="paused" if self.is_paused else "training",
            tick=tick,
            tick_seconds=self.tick_seconds,
            started_at=self.began - 7_260,
            addresses=[f"/ip4/192.0.2.10/tcp/4001/p2p/{self.ids[0]}"],
            join=f"shoal join /ip4/192.0.2.10/tcp/4001/p2p/{self.ids[0]} --run {RUN_ID}",
            url="http://127.0.0.1:8080",
            sub_models=self.sub_models,
            blocks=self._blocks(tick),
            peers=[self._peer(k, tick) for k in range(self.peers)],
            age=self.history.tokens_at(tick),
            total_tokens=self.history.tokens_at(4 * START_TICK),
            eta_s=400_000.0,
            findings=[] if self.is_well else self._findings(),
            why="paused by you; go on with: shoal resume" if self.is_paused else "",
            coverage=self._coverage(),
            skipped={} if self.is_well else {"no offer is held by more than half": 3},
            losses=[
                (self.history.tokens_at(k * 5), loss_at(k / 200, 0) + 0.04 * math.sin(k * 1.7)) for k in range(200)
            ],
            held_out={
                name: [(self.history.tokens_at(k * 10), loss_at(k / 100, at)) for k in range(100)]
                for at, name in enumerate(self.domains)
            },
            events=[f"14:0{k}:12 {self.ids[k % self.peers][-6:]} joined" for k in range(5)],
        )

    def rounds(self, block: str | None, before: int | None, limit: int) -> Rounds:
        return self.history.rounds(self.tick, block, before, limit)

    async def share(self) -> Share:
        return self.history.share(self.tick)

    async def ask(self, prompt: Prompt) -> AsyncGenerator[Piece, None]:
        if prompt.prompt.startswith("fail"):
            raise StateError("no peer of expert.2 answers; ask again when one is there")
        words = WORDS[self.domains[0]].split()
        for piece in self.history.pieces(words, right=0.9, seed=len(prompt.prompt)):
            await asyncio.sleep(0.05)
            yield piece

    def actions(self) -> Actions:
        async def leave() -> None:
            raise StateError("this swarm is made up; end it with Ctrl-C")

        async def pause() -> None:
            self.is_paused = True

        async def resume() -> None:
            self.is_paused = False

        async def revocations() -> None:
            pass

        def limits() -> dict[str, dict[str, Any]]:
            return {key: {**each, "now": ""} for key, each in told(self.limits).items()}

        async def limit(body: bytes) -> None:
            try:
                self.limits = self.limits.changed(Limits.model_validate_json(body))
            except ValidationError as error:
                raise ConfigError(describe(error, "the limits")) from None

        return Actions(leave, pause, resume, revocations, limits, limit)

    async def pulse(self) -> Pulse:
        tick = self.status().tick
        return Pulse(tick, is_worker_up=True, silent_s=0.0, step_s=1.0, free_bytes=1 << 40, needed_bytes=0)

    def shown(self) -> Shown:
        return Shown(
            status=self.status,
            pulse=self.pulse,
            curves=self.history.curves,
            rounds=self.rounds,
            answers=self.history.answers,
            share=self.share,
            ask=self.ask,
        )

    def _ailment(self, index: int, tick: int) -> str:
        if self.is_well or index == 0:
            return ""
        return {3: "late", 5: "silent", 7: "left out", 8: "relayed", 9: "excluded", 10: "keeper", 11: "absent"}.get(
            index % 40, "late" if (index * 7 + tick) % 97 == 0 else ""
        )

    def _blocks(self, tick: int) -> list[BlockStatus]:
        holders: dict[str, list[str]] = {name: [] for name in self.history.blocks}
        keepers: dict[str, list[str]] = {name: [] for name in self.history.blocks}
        for k, peer in enumerate(self.ids):
            if self._ailment(k, tick) != "keeper":
                holders[self.homes[k]].append(peer)
                if "trunk" in holders:
                    holders["trunk"].append(peer)
            names = list(self.sub_models)
            keepers[names[(k + 1) % len(names)]].append(peer)
        group = self.ids[: min(8, self.peers)] if len(self.sub_models) == 1 else holders[self.homes[0]][:8]
        fates = {peer: self._fate(self.ids.index(peer), tick) for peer in group}
        sealed = sum(fate == "sealed" for fate in fates.values())
        return [
            BlockStatus(
                block=name,
                holders=holders[name],
                keepers=keepers[name],
                age=self.history.tokens_at(tick) // len(self.history.blocks),
                version=tick // 2,
                last_round=tick - 1,
                round_ticks=2,
                outcome=f"sealed {sealed} of {len(group)}" if name in ("trunk", self.homes[0]) else "",
                agreement=1.0,
                group=group if name in ("trunk", self.homes[0]) else [],
                fates=fates if name in ("trunk", self.homes[0]) else {},
            )
            for name in self.history.blocks
        ]

    def _peer(self, index: int, tick: int) -> PeerStatus:
        ailment, home = self._ailment(index, tick), self.homes[index]
        is_keeper = ailment == "keeper"
        marks = [
            DigestMark(version=v, digest=f"{v * 7919 % 2**32:08x}" * 8) for v in range(tick // 2 - 4, tick // 2 + 1)
        ]
        shared = [] if is_keeper else [name for name in ("trunk", home) if name in self.history.blocks]
        return PeerStatus(
            peer_id=self.ids[index],
            sub_model="" if is_keeper else home,
            domain="" if is_keeper else self.sub_models[home],
            state="paused"
            if index == 0 and self.is_paused
            else ailment
            if ailment == "silent"
            else "serving"
            if is_keeper
            else "training",
            rounds=tick - 50 - index,
            loss=None if is_keeper else 3.1 + 0.2 * math.sin(index + tick / 50),
            tokens=0 if is_keeper else round(self.speeds[index] * tick),
            tokens_per_s=0.0
            if is_keeper or ailment == "silent"
            else self.speeds[index] * (0.2 if ailment == "late" else 1),
            bytes_in=tick * 61_000,
            bytes_out=tick * 58_000,
            seen_tick=tick - (90 if ailment == "silent" else 3),
            link="relayed" if ailment == "relayed" else "" if index == 0 else "direct",
            why="not heard for 90 ticks: its machine may be off" if ailment == "silent" else "",
            digests=dict.fromkeys(shared, marks),
            held_out={} if is_keeper else {domain: 3.4 + 0.1 * at for at, domain in enumerate(self.domains)},
            excluded="it made two different offers in round 940" if ailment == "excluded" else "",
        )

    def _fate(self, index: int, tick: int) -> str:
        ailment = self._ailment(index, tick)
        return {"silent": "absent", "excluded": "left out"}.get(
            ailment, ailment if ailment in ("late", "left out", "absent") else "sealed"
        )

    def _coverage(self) -> list[Coverage]:
        return [
            Coverage(
                domain=domain,
                sub_model=name,
                tokens=40_000_000,
                holders=[
                    0 if not self.is_well and (at * 5 + shard) % 11 == 0 else 1 + (at + shard) % 3 for shard in range(8)
                ],
            )
            for at, (name, domain) in enumerate(self.sub_models.items())
        ]

    def _findings(self) -> list[Finding]:
        slow = self.ids[3 % self.peers][-6:]
        return [
            Finding(
                code="slow-steps",
                affects=f"rounds of {slow}",
                cause=f"{slow} comes late to each second round: its steps take 9 s, and the cut is 3 s after the tick",
                cure="found the next run with ticks of 60 s, or let that peer take part in every fourth round",
            ),
            Finding(
                code="no-holder",
                affects=f"{list(self.sub_models)[-1]}, its domain {self.domains[-1]}",
                cause="nobody trains it since round 902",
                cure="join with --sub-model " + list(self.sub_models)[-1],
                is_severe=True,
            ),
        ]


async def serve(swarm: PageSwarm, port: int) -> None:
    """Serve until SIGINT or SIGTERM; prints the URL once it answers."""
    ending = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    async with open_http(PeerConfig(status_port=port), swarm.shown(), swarm.actions()) as url:
        print(url, flush=True)
        await ending.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="serve the page of a swarm that is made up")
    parser.add_argument("--peers", type=int, default=300, metavar="N")
    parser.add_argument("--port", type=int, default=8080, help="0: any free one")
    parser.add_argument("--well", action="store_true", help="nothing ails it")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(PageSwarm(args.peers, is_well=args.well), args.port))


if __name__ == "__main__":
    main()
