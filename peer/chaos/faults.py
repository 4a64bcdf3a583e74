"""How each fault is done to real daemons, and undone. What faults there are stands in `schedule.py`.

Who was ended is started again as a service manager would. A daemon that then refuses, in one line, because of a file
that was damaged, gets what the line advises: the file is moved away, or deleted, and it is started once more.
"""

import asyncio
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from peer.chaos.daemons import Daemon
from peer.chaos.invariants import Done, Orphan
from peer.chaos.links import NAMED, Link, Links
from peer.chaos.schedule import VISITORS, Fault

START_S = 600.0  # from the start of a process to its "ready", and to its first step, on a machine with much else to do
TRIES = 3  # of following what a refusal advises
FILES = {
    "checkpoint": "blocks/{block}.safetensors",
    "residual": "blocks/{block}.residual",
    "run": "run.json",
    "book": "address_book.json",
    "domains": "domains.bin",
    "counters": "peer.json",
}
# A peer of another protocol: the same program, which believes that it is of a later one, and speaks no other.
OTHER_VERSION = (
    "import sys, configs.protocol as protocol; protocol.PROTOCOL_VERSION += 1; "
    "protocol.OLDEST_PROTOCOL = protocol.PROTOCOL_VERSION; from peer.__main__ import main; sys.exit(main())"
)


@dataclass
class Stage:
    """What faults are done to."""

    daemons: list[Daemon]
    commands: list[list[str]]  # by which each is started
    links: Links | None
    block: str
    random: random.Random
    visitor: Daemon | None = None  # a place for somebody who is no peer of the swarm
    sides: list[int] = field(default_factory=list)
    cut: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)  # who is not to be there in the end
    refusals: list[str] = field(default_factory=list)  # what daemons said that ended by themselves
    broken: list[str] = field(default_factory=list)  # what should not have happened
    saved: dict[int, list[int]] = field(default_factory=dict)  # peer → its counter of tokens at each start
    done: list[Done] = field(default_factory=list)  # all faults so far
    orphan: Orphan | None = None
    busy: dict[int, asyncio.Lock] = field(default_factory=dict)  # peers to which something is being done
    genesis: float = 0.0
    tick_s: float = 1.0

    async def start(self, index: int) -> None:
        """Start a daemon that does not run, and follow what it advises if it refuses."""
        daemon = self.daemons[index]
        for _ in range(TRIES):
            if daemon.is_running:
                return
            self.saved.setdefault(index, []).append(_saved_tokens(daemon))
            await daemon.start(self.commands[index])
            if await daemon.begun(START_S) and await daemon.is_training(START_S):
                return
            await daemon.ended()
            said = daemon.life.complaint
            self.refusals.append(f"{daemon.name}: {said or daemon.log[-300:]}")
            if not said or not (moved := follow(daemon, said)):
                break
            others = [each.address for each in self.daemons if each is not daemon and each.is_ready]
            if moved == FILES["run"] and others:  # which run it was in is brought by another peer
                self.commands[index] = ["join", others[0]]
        self.broken.append(f"{daemon.name} did not come back: {self.refusals[-1] if self.refusals else ''}")

    async def expect_end(self, index: int, why: str) -> None:
        """Wait for a daemon to end by itself, with one line."""
        daemon = self.daemons[index]
        if not await daemon.ended():
            self.broken.append(f"{daemon.name} did not end after {why}")
            daemon.signal(signal.SIGKILL, daemon.tree())
            await daemon.ended()
            return
        said = daemon.life.complaint
        self.refusals.append(f"{daemon.name}: {said}")
        if daemon.life.code != 1 or not said:
            self.broken.append(f"{daemon.name} ended with {daemon.life.code} and said '{said}' after {why}")

    def connect(self) -> None:
        """Let the links be as sides and cuts have it."""
        assert self.links is not None
        sides = [1000 + n if n in self.cut else side for n, side in enumerate(self.sides)]
        self.links.part(sides)


async def do(stage: Stage, fault: Fault) -> None:
    """Let it happen."""
    links, daemons = stage.links, stage.daemons
    if fault.kind == "partition":
        for number, side in enumerate(fault.sides):
            for peer in side:
                stage.sides[peer] = number
        stage.connect()
    elif fault.kind in VISITORS:
        await _visit(stage, fault.kind)
    elif fault.kind == "kill_holders":
        await _kill_holders(stage)
    else:
        for index in fault.peers:
            if fault.kind == "cut":
                stage.cut.add(index)
                stage.connect()
            elif fault.kind in ("link", "uplink"):
                assert links is not None
                if fault.kind == "link":
                    links.change(index, NAMED[fault.link])
                else:
                    links.move(index)
            else:
                await _do_to(stage, fault, index, daemons[index])
    if fault.is_final:
        stage.gone |= {*fault.peers}


async def undo(stage: Stage, fault: Fault) -> None:
    """Let things be right again, as far as this fault is concerned."""
    if fault.is_final:
        return
    if fault.kind == "partition":
        for peer in fault.victims():
            stage.sides[peer] = 0
        stage.connect()
        return
    for index in fault.peers:
        daemon = stage.daemons[index]
        if fault.kind == "cut":
            stage.cut.discard(index)
            stage.connect()
        elif fault.kind == "link":
            assert stage.links is not None
            stage.links.change(index, Link())
        elif fault.kind == "sleep":
            daemon.signal(signal.SIGCONT, daemon.tree())
            daemon.is_asleep = False
        elif fault.kind == "clock":
            daemon.set_clock(0.0)
        elif fault.kind == "twin":
            await _end_twin(stage, index)
        elif fault.kind in ("full_disk", "read_only"):
            assert daemon.disk is not None
            if fault.kind == "full_disk":
                daemon.disk.free()
            else:
                daemon.disk.seal(is_sealed=False)
        elif fault.kind == "wrong_clock":
            daemon.set_clock(0.0)
            if daemon.is_running:  # with a clock that was wrong it is to be started again
                stage.broken.append(f"{daemon.name} began with a clock that is off by {fault.seconds:g} s")
                daemon.signal(signal.SIGTERM)
                await daemon.ended()
    restarted = {"kill", "kill_daemon", "kill_p2pd", "leave", "full_disk", "read_only", "damage", "wrong_clock"}
    if fault.kind in restarted:
        await asyncio.gather(*(stage.start(index) for index in fault.peers if index not in stage.gone))


async def _do_to(stage: Stage, fault: Fault, index: int, daemon: Daemon) -> None:
    kill = signal.SIGKILL
    match fault.kind:
        case "kill":
            daemon.signal(kill, daemon.tree())
            await daemon.ended()
        case "kill_daemon":
            daemon.signal(kill)
        case "kill_worker":
            daemon.signal(kill, daemon.workers())
        case "kill_p2pd":
            daemon.signal(kill, daemon.p2pd())
            await stage.expect_end(index, "the end of p2pd")
        case "sleep":
            daemon.is_asleep = True
            daemon.signal(signal.SIGSTOP, daemon.tree())
        case "hang_worker":
            daemon.signal(signal.SIGSTOP, daemon.workers())
        case "starve_worker":
            for pid in daemon.workers():
                with suppress(OSError):
                    resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
        case "leave":
            daemon.signal(signal.SIGTERM)
            if not await daemon.ended() or daemon.life.code != 0:
                stage.broken.append(f"{daemon.name} was told to leave and ended with {daemon.life.code}")
        case "full_disk" | "read_only":
            assert daemon.disk is not None
            if fault.kind == "full_disk":
                daemon.disk.fill()
            else:
                daemon.disk.seal(is_sealed=True)
            await stage.expect_end(index, f"a {fault.kind.replace('_', ' ')}")
        case "damage":
            daemon.signal(kill, daemon.tree())
            await daemon.ended()
            damage(daemon.files / FILES[fault.file].format(block=stage.block), fault.how, stage.random)
        case "clock":
            daemon.set_clock(fault.seconds)
        case "wrong_clock":
            daemon.signal(kill, daemon.tree())
            await daemon.ended()
            daemon.set_clock(fault.seconds)
            stage.saved[index].append(_saved_tokens(daemon))
            await daemon.start(stage.commands[index])
            if not await daemon.begun(START_S):
                await daemon.ended()
                stage.refusals.append(f"{daemon.name}: {daemon.life.complaint}")
        case "twin":
            await _start_twin(stage, index)


async def _kill_holders(stage: Stage) -> None:
    block = None
    while block is None:  # peers take turns: at times all of them hold the same
        await asyncio.sleep(stage.tick_s)
        statuses = [status for daemon in stage.daemons if (status := await daemon.status()) is not None]
        experts = [block for block in statuses[0].blocks if block.block.startswith("expert.")] if statuses else []
        held = [block for block in experts if 0 < len(block.holders) < len(stage.daemons)]
        block = min(held, key=lambda each: (len(each.holders), each.block), default=None)
    stage.orphan = Orphan(block.block, block.version, time.time())
    for index, daemon in enumerate(stage.daemons):
        if daemon.peer_id in block.holders:
            stage.gone.add(index)
            daemon.signal(signal.SIGKILL, daemon.tree())
            await daemon.ended()


def damage(path: Path, how: str, random_: random.Random) -> None:
    """Overwrite a quarter of a file's bytes, in runs, or cut off its second half."""
    if not path.exists():
        return
    data = bytearray(path.read_bytes())
    if how == "truncate":
        data = data[: len(data) // 2]
    else:
        run = max(1, len(data) // 16)
        for _ in range(4):
            at = random_.randrange(max(1, len(data) - run))
            data[at : at + run] = random_.randbytes(run)
    path.write_bytes(data)


def follow(daemon: Daemon, said: str) -> str:
    """Do what a refusal advises about a file of the state directory; return which, or nothing."""
    found = re.search(rf"{re.escape(str(daemon.state_dir))}/(\S+?)(?=[ :;,]|$)", said)
    path = daemon.files / found[1] if found else None
    if path is None or not path.exists() or not re.search(r"\bmove it away|\bdelete it|\bremove it", said):
        return ""
    path.rename(path.with_name(f"{path.name}.away"))
    return str(path.relative_to(daemon.files))


def _saved_tokens(daemon: Daemon) -> int:
    try:
        return int(json.loads((daemon.files / "peer.json").read_text())["tokens"])
    except (OSError, ValueError, LookupError):
        return 0


async def _visit(stage: Stage, kind: str) -> None:
    """Let somebody knock who does not belong here: it must be refused, in one line."""
    visitor = stage.visitor
    assert visitor is not None
    host = next(daemon for daemon in stage.daemons if daemon.is_ready)
    command, program = ["join", host.address], None
    if kind == "other_run":
        command += ["--run", "0" * 32]
    else:
        program = [sys.executable, "-c", OTHER_VERSION]
    await visitor.start(command, program)
    if await visitor.begun(START_S):
        stage.broken.append(f"a visitor ({kind}) was let in")
        visitor.signal(signal.SIGKILL, visitor.tree())
    await visitor.ended()
    said = visitor.life.complaint
    stage.refusals.append(f"visitor: {said}")
    if visitor.life.code not in (1, 2) or not said:
        stage.broken.append(f"a visitor ({kind}) ended with {visitor.life.code} and said '{said}'")


async def _start_twin(stage: Stage, index: int) -> None:
    twin, daemon = stage.visitor, stage.daemons[index]
    assert twin is not None
    shutil.copytree(daemon.files, twin.state_dir, ignore=shutil.ignore_patterns("*.lock"))
    others = [each for each in stage.daemons if each is not daemon and each.is_ready]
    await twin.start(["join", others[0].address])
    if not await twin.begun(START_S):
        await twin.ended()
        stage.refusals.append(f"twin: {twin.life.complaint}")
        return
    stage.gone.add(index)  # others leave it out for an hour, and it is told so


async def _end_twin(stage: Stage, index: int) -> None:
    twin, daemon = stage.visitor, stage.daemons[index]
    assert twin is not None
    said = [w for each in (twin, daemon) for life in each.lives for s in life.samples for w in s.warnings]
    said += [twin.log, daemon.log]
    warned = [text for text in said if "with this peer's identity" in text or "twice" in text]
    if twin.is_running and not warned:
        stage.broken.append("two processes with one identity ran side by side, and neither said so")
    twin.signal(signal.SIGTERM)
    if not await twin.ended():
        stage.broken.append("the twin did not leave")
        twin.signal(signal.SIGKILL, twin.tree())


def end_orphans(pids: list[int]) -> None:
    """Kill what a play has left behind: it was counted against it already."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
