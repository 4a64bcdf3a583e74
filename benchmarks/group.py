"""Runs the members of a group, each a process in its own network namespace, and takes down what they say.

A member is `python -m MODULE PLAN.json INDEX`. What is said is one JSON object a line. It is told the addresses of
those that are up `earlier`, connects to them and says its own `address`; is told `genesis` and all `addresses`; says a
line for each step, then `done`; and ends when its input does, so that it serves until all are done.

They come up one after the other, as peers do: two that dial each other over a long link at the same moment open one TCP
connection from both of its ends, on which libp2p finds two initiators and no responder, and both dials fail. Hivemind's
averager, which dials when its group has formed, then waits for ever.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.patience import HANG_S, patience
from configs.errors import ShoalError
from configs.run import RunSpec
from peer.chaos.links import Links, Peer
from protocols.grouping import bits_for

MATCHMAKING_S = 5.0  # of the averager
HOLDERS_LEAD_S, AVERAGERS_LEAD_S = 5.0, 6.0  # from the word that all are up to the first step


@dataclass(frozen=True)
class Load:
    """What a group does: so many steps with so many parameters, one step a tick."""

    size: int  # parameters
    steps: int
    tick_s: float  # long enough for a step; a holder's round is cut after half of it
    codec: str = "float16"
    seed: int = 0
    up_mbit: float | None = None  # a holder's cap, by which it plans what it sends
    pause_every_s: float | None = None  # between two looks at a holder's loop, which has its own price


@dataclass
class Account:
    """What one member said of its steps, and the bytes at its device from the first step to the last one's end."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    wire_in: int = 0
    wire_out: int = 0


class Member:
    """One process in one namespace."""

    def __init__(self, peer: Peer, module: str, plan: Path, index: int) -> None:
        self.peer, self.module, self.plan, self.index = peer, module, plan, index
        self.log = plan.parent / f"{index}.log"
        self.account = Account()

    async def start(self) -> None:
        command = self.peer.command(sys.executable, "-m", self.module, str(self.plan), str(self.index))
        pipe = asyncio.subprocess.PIPE
        with self.log.open("wb") as log:
            self.child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=log)

    def tell(self, value: object) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(value).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        """Return its next line. Raises ShoalError, with the end of its log, if it has ended instead."""
        assert self.child.stdout is not None
        line = await self.child.stdout.readline()
        if not line:
            raise ShoalError(f"member {self.index} of {self.module} ended:\n{self.last_words()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def last_words(self) -> str:
        lines = self.log.read_text().strip().splitlines()[-20:]
        return "\n".join([f"{len(self.account.steps)} steps", *lines])

    async def listen(self) -> None:
        while "done" not in (said := await self.hear()):
            self.account.steps.append(said)

    async def end(self) -> None:
        """Let it end by itself; after a while kill it, with what it has started."""
        assert self.child.stdin is not None
        with suppress(BrokenPipeError, ConnectionResetError):
            self.child.stdin.close()
        try:
            async with patience(f"member {self.index} of {self.module} to end", seen=self.last_words):
                await self.child.wait()
        finally:
            if self.child.returncode is None:
                self.peer.kill_all()
                await self.child.wait()


def run_holders(links: Links, load: Load, folder: Path) -> list[Account]:
    """Let a holder of one block in each namespace of `links` run rounds; return their accounts.

    Raises ShoalError when one fails, or when in some round not all took the step with all offers of their group, and
    in a complete group to the same bits: its figures would not be those of a round.
    """
    spec = _spec(load.codec, load.tick_s)
    plan = {"spec": spec.model_dump(), **_plan(load, HOLDERS_LEAD_S)}
    accounts = _run_group(links, "benchmarks.holder", plan, folder / f"holders-{load.codec}")
    is_one_group = bits_for(len(accounts), spec.rounds.group_size) == 0
    for step in range(load.steps):
        said = [account.steps[step] for account in accounts]
        is_whole = all(re.match(r"sealed (\d+) of \1\b", each["outcome"]) for each in said)
        if not is_whole or (is_one_group and len({each["digest"] for each in said}) > 1):
            outcomes = ", ".join(each["outcome"] for each in said)
            raise ShoalError(f"round {step + 1} of the holders was not whole ({outcomes}); are their ticks too short?")
    return accounts


def run_averagers(links: Links, load: Load, folder: Path) -> list[Account]:
    """Let Hivemind's averager in each namespace of `links` take steps; return their accounts.

    Raises ShoalError when one fails, or when not every value became the mean in every step.
    """
    accounts = _run_group(links, "benchmarks.hivemind_averager", _plan(load, AVERAGERS_LEAD_S), folder / "averagers")
    for step, said in itertools.product(range(load.steps), accounts):
        if said.steps[step]["averaged"] < 1:
            raise ShoalError(f"step {step + 1} of Hivemind's averager failed: {said.steps[step]}")
    return accounts


def run_averagers_with_a_death(links: Links, load: Load, folder: Path, at_step: int) -> list[Account]:
    """Do as `run_averagers`, but kill the last member as `at_step` begins; return the others' accounts.

    A group need not be whole then. A member that is silent for `MATCHMAKING_S` is left out of a step, as in
    `hivemind.Optimizer`.
    """
    plan = {**_plan(load, AVERAGERS_LEAD_S), "least": 2, "silence_s": MATCHMAKING_S}
    return _run_group(links, "benchmarks.hivemind_averager", plan, folder / "averagers", at_step)[:-1]


def per_parameter(count: float, load: Load) -> float:
    """Return what a count over all steps is for one parameter and one step."""
    return count / load.size / load.steps


def _plan(load: Load, lead_s: float) -> dict[str, Any]:
    return {
        "size": load.size,
        "steps": load.steps,
        "tick_seconds": load.tick_s,
        "lead_s": lead_s,
        "seed": load.seed,
        "up_mbit": load.up_mbit,
        "pause_every_s": load.pause_every_s,
    }


def _run_group(
    links: Links, module: str, plan: dict[str, Any], folder: Path, death: int | None = None
) -> list[Account]:
    """Run `module` as a member in each namespace; the last one dies as step `death` begins.

    Raises ShoalError when another one fails or they are not done.
    """
    folder.mkdir()
    path = folder / "plan.json"
    path.write_text(json.dumps({**plan, "folder": str(folder), "hosts": [peer.address for peer in links.peers]}))
    members = [Member(peer, module, path, index) for index, peer in enumerate(links.peers)]
    return asyncio.run(_run(members, plan, death))


def _spec(codec: str, tick_seconds: float) -> RunSpec:
    """Return the spec of a run with one block, one tick a round, and half of a round until its cut."""
    sizes = {"vocab_size": 300, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8}
    return RunSpec.model_validate(
        {
            "total_tokens": 10**12,
            "model": {**sizes, "context_length": 8},
            "strategy": {"kind": "replicas"},
            "inner": {"learning_rate": 0.1, "batch_tokens": 8},
            "outer": {"codec": codec},
            "rounds": {"tick_seconds": tick_seconds, "double_tokens": 10**12, "cut_share": 0.5},
            "genesis": 0.0,
            "tokenizer_sha256": "0" * 64,
            "end_of_text": 0,
        }
    )


async def _run(members: Sequence[Member], plan: dict[str, Any], death: int | None = None) -> list[Account]:
    tick_s, lead_s = plan["tick_seconds"], plan["lead_s"]
    module, whole_s = members[0].module, lead_s + (plan["steps"] + 1) * tick_s

    def seen() -> str:
        return "\n".join(f"member {member.index}: {member.last_words()}" for member in members)

    for member in members:
        await member.start()
    try:
        async with patience(f"the addresses of the members of {module}", seen=seen):
            addresses: list[str] = []
            for member in members:
                member.tell({"earlier": addresses})
                addresses.append((await member.hear())["address"])
        before = [member.peer.wire_bytes() for member in members]
        genesis = time.time() + lead_s - tick_s
        for member in members:  # tick 1 is the first step's
            member.tell({"genesis": genesis, "addresses": addresses})
        async with (
            patience(f"the end of {module}", seen=seen, most_s=whole_s + HANG_S),
            asyncio.TaskGroup() as tasks,
        ):
            for member in members if death is None else members[:-1]:
                tasks.create_task(member.listen())
            if death is not None:
                await asyncio.sleep(genesis + death * tick_s - time.time())
                members[-1].peer.kill_all()
        for member, (bytes_in, bytes_out) in zip(members, before, strict=True):
            now_in, now_out = member.peer.wire_bytes()
            member.account.wire_in, member.account.wire_out = now_in - bytes_in, now_out - bytes_out
    except ExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await asyncio.gather(*(member.end() for member in members))
    return [member.account for member in members]
