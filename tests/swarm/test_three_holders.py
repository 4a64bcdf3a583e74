"""Three holders in processes of their own, over real libp2p: equal bits, and no work lost or counted twice."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from ticks import tick_s

from benchmarks.patience import HANG_S, patience

pytestmark = pytest.mark.swarm

NAMES = ("ann", "bob", "cyd")
ROUNDS = 30
QUIET_FROM = 24  # no more faults, so that all have the time to be repaired
TICK_S = 0.5  # where nothing else runs
DEATHS = {"cyd": [6, 17]}  # rounds in which its offers are not delayed
HOLDER = Path(__file__).parent / "holder.py"


def free_ports() -> dict[str, int]:
    """Ports that stay the same over a restart, so that the others find a peer that comes back."""
    sockets = [socket.socket() for _ in NAMES]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = {name: each.getsockname()[1] for name, each in zip(NAMES, sockets, strict=True)}
    for each in sockets:
        each.close()
    return ports


def write_plan(folder: Path, *, delays: float, losses: float, dies_in: dict[str, list[int]]) -> Path:
    sizes = {"vocab_size": 300, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8}
    spec = {
        "total_tokens": 10**9,
        "model": {**sizes, "context_length": 8},
        "strategy": {"kind": "replicas"},
        "inner": {"learning_rate": 0.1, "batch_tokens": 8},
        "outer": {"codec": "int8", "alpha": 1.0, "mu": 0.0},
        "rounds": {"tick_seconds": tick_s(TICK_S), "double_tokens": 10**9},
        "genesis": 0.0,
        "tokenizer_sha256": "0" * 64,
        "end_of_text": 0,
    }
    faults = {
        "delays": delays,
        "losses": losses,
        "late_s": tick_s(TICK_S),
        "dies_in": dies_in,
        "quiet_from": QUIET_FROM,
    }
    plan = {"spec": spec, "folder": str(folder), "rounds": ROUNDS, **faults, "ports": free_ports()}
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    return path


class Holder:
    """A process and what it said."""

    def __init__(self, plan: Path, name: str) -> None:
        self.plan, self.name = plan, name
        self.address = ""
        self.rounds: dict[int, dict[str, Any]] = {}
        self.faults: Counter[str] = Counter()

    async def start(self) -> None:
        pipe, log = asyncio.subprocess.PIPE, (self.plan.parent / f"{self.name}.log").open("ab")
        command = [sys.executable, str(HOLDER), str(self.plan), self.name]
        self.child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=log)
        log.close()
        assert self.child.stdout is not None
        line = (await self.child.stdout.readline()).decode()
        assert line.startswith("address "), (self.plan.parent / f"{self.name}.log").read_text()
        self.address = line.split()[1]

    def tell(self, value: object) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(value).encode() + b"\n")

    async def listen(self) -> bool:
        """Take down what it says; return whether these were its last words, or it died without any."""
        assert self.child.stdout is not None
        async for line in self.child.stdout:
            said = json.loads(line)
            if "done" in said:
                self.faults.update(said["done"])
                return True
            self.rounds[said["round"]] = said
        return False

    async def live(self, told: dict[str, Any]) -> None:
        """Be told who is there, and listen; whenever it dies of a signal, start it again from its folder."""
        self.tell(told)
        while not await self.listen():
            assert await self.child.wait() == -signal.SIGKILL, (self.plan.parent / f"{self.name}.log").read_text()
            self.faults["deaths"] += 1
            await self.start()
            self.tell(told)

    async def end(self) -> None:
        if self.child.returncode is None:
            self.child.kill()
            await self.child.wait()


async def run(plan: Path) -> list[Holder]:
    holders = [Holder(plan, name) for name in NAMES]
    try:
        async with patience("the addresses of the holders", seen=lambda: logs_of(plan)):
            await asyncio.gather(*(holder.start() for holder in holders))
        told = {"genesis": time.time(), "addresses": [holder.address for holder in holders]}
        whole_s = ROUNDS * tick_s(TICK_S)
        async with patience(f"the end of {ROUNDS} rounds", seen=lambda: logs_of(plan), most_s=HANG_S + whole_s):
            await asyncio.gather(*(holder.live(told) for holder in holders))
        return holders
    finally:
        for holder in holders:
            await holder.end()


def logs_of(plan: Path) -> str:
    return "\n\n".join(path.read_text()[-1500:] for path in sorted(plan.parent.glob("*.log")))


def digests_by_version(holders: list[Holder]) -> dict[int, set[str]]:
    """Return the digests that a version had in the end: histories that were given up are left out."""
    final: dict[int, set[str]] = {}
    for holder in holders:
        for version, digest in holder.rounds[max(holder.rounds)]["marks"]:
            final.setdefault(version, set()).add(digest)
    return final


def gap(plan: Path) -> tuple[float, float]:
    """Return the largest difference between the work made and the work applied, of any peer, and the work's size.

    Applied is what the history that counts has sealed: D(u) of every such round, by the account of another
    holder that was there all the time.
    """
    largest, sizes = 0.0, []
    for name, witness in zip(NAMES, ("bob", "ann", "ann"), strict=True):
        sums = torch.load(plan.parent / name / "sums.pt", weights_only=True)
        own = json.loads((plan.parent / name / "history.json").read_text())
        history = json.loads((plan.parent / witness / "history.json").read_text())["sealed"]
        history = history[: own["version"]]  # who missed the last round has had no next one to repair it
        applied = torch.zeros_like(sums["made"])
        for round_, peers in history:
            if own["me"] in peers:
                applied += torch.load(plan.parent / name / f"offer-{round_}.pt", weights_only=True).double()
        left = sums["made"] - applied - sums["residual"] - sums["under_way"]
        largest, sizes = max(largest, float(left.abs().max())), [*sizes, float(sums["made"].abs().mean())]
    return largest, sum(sizes) / len(sizes)


def unequal_rounds(holders: list[Holder]) -> list[int]:
    """Return the rounds after which two of those who took part had different bits."""
    after: dict[int, set[tuple[int, str]]] = {}
    for holder in holders:
        for round_, said in holder.rounds.items():
            after.setdefault(round_, set()).add(tuple(said["marks"][-1]))
    return sorted(round_ for round_, marks in after.items() if len(marks) > 1)


def outcomes(holders: list[Holder]) -> Counter[str]:
    words = Counter[str]()
    for holder in holders:
        for said in holder.rounds.values():
            for part in said["outcome"].split("; "):
                words[part.split()[0].rstrip(":")] += 1
    return words


@pytest.mark.long
def test_thirty_rounds_without_faults_have_equal_bits(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, delays=0.0, losses=0.0, dies_in={})
    holders = asyncio.run(run(plan))
    words, (difference, size) = outcomes(holders), gap(plan)
    print(f"outcomes {dict(words)}; rounds with unequal bits {unequal_rounds(holders)}")
    print(f"work made {size:.4f} a value, applied but for {difference:.2e}")
    assert not unequal_rounds(holders)
    assert words["sealed"] >= 2 * ROUNDS  # of 90; a machine that is very busy misses some
    assert difference < 1e-4


def test_thirty_rounds_with_faults_lose_nothing_and_end_with_equal_bits(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, delays=0.15, losses=0.2, dies_in=DEATHS)
    holders = asyncio.run(run(plan))
    words, faults = outcomes(holders), sum((h.faults for h in holders), Counter[str]())
    final = digests_by_version(holders)
    unequal, (difference, size) = unequal_rounds(holders), gap(plan)
    print(f"outcomes {dict(words)}; faults {dict(faults)}; rounds with unequal bits {unequal}")
    print(f"work made {size:.4f} a value, applied but for {difference:.2e}")
    newest = max(final)
    assert all(len(final[version]) == 1 for version in final if version < newest), final
    assert {*range(QUIET_FROM + 1, ROUNDS + 1)} - {*unequal}, "all had the time to be repaired"
    assert faults["delayed"] and faults["lost"] and words["replayed"] and words["sealed"] >= ROUNDS
    assert faults["deaths"]
    assert difference < 1e-4
