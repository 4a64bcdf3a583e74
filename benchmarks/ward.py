"""A swarm of real daemons in which something goes wrong: started, and looked at from outside, as its owner would.

    async with open_ward(Setting(peers=3), folder) as ward:
        await ward.settle()
        … await ward.findings(2) …

Steps are paced (`pacing.py`), so that two cores have room for three boxes, and what ails the swarm is what was done to
it. Where a setting asks for links, each peer is in a network namespace, with all that looks at it.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.pacing import LOG, PERIOD
from configs.errors import ShoalError
from peer.chaos.daemons import Daemon
from peer.chaos.links import Link, Links, open_links
from peer.chaos.machine import Disk, build_clock, free_port, tree
from peer.http.status import Finding, Status
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

CONFIG = Path(__file__).parents[1] / "peer" / "chaos" / "micro.toml"
PROGRAM = (sys.executable, "-m", "benchmarks.paced_daemon")
SHOAL = (sys.executable, "-m", "peer")
START_S = 240.0  # from a process's start to its "ready", and to its first step
SETTLE_S = 240.0  # until all seal rounds together
LOOK_S = 0.5
SHARED = ("model", "trunk")  # the blocks that all hold
TOGETHER = 3  # rounds of all, one after the other: then all is well
PORT = 4001  # of each peer that is in a namespace
VOCABULARY, WINDOW = 512, 64
VERSE = "{0} bottles of beer on the wall, {0} bottles of beer. "
ENOUGH = 4_000_000  # characters of text: nothing of it is read twice in these minutes


@dataclass(frozen=True)
class Setting:
    """How a swarm is founded, and which machines its peers are on."""

    peers: int = 3
    tick_s: float = 2.0
    step_s: float = 0.1  # what an inner step takes
    run: Mapping[str, str] = field(default_factory=dict)  # of the run: as `SHOAL_RUN__…` says it
    text: Mapping[str, int] = field(default_factory=lambda: {"python": ENOUGH})  # domain → characters
    options: Mapping[int, tuple[str, ...]] = field(default_factory=dict)  # peer → more of its command
    is_closed: bool = False
    on_links: bool = False
    clocks: frozenset[int] = frozenset()  # peers whose clock can be set
    disks: Mapping[int, int] = field(default_factory=dict)  # peer → MiB of a disk of its own


class Ward:
    """The swarm. Peers go by their numbers; 0 has founded it."""

    def __init__(self, setting: Setting, folder: Path, daemons: list[Daemon], links: Links | None, data: Path) -> None:
        self.setting, self.folder, self.daemons, self.links, self.data = setting, folder, daemons, links, data
        self.doors: dict[int, tuple[str, asyncio.Server]] = {}  # peer → its own URL, and what leads to it from here

    # People's hands

    async def start(self, index: int, *more: str) -> None:
        """Start a peer, or start it again with `more` said; it trains when this returns. Raises ShoalError."""
        daemon, own = self.daemons[index], self.setting.options.get(index, ())
        closed = self.setting.is_closed
        if daemon.lives:
            command = ["start"]
        elif index:
            invitation = ["--invitation", await self.invitation(index)] if closed else []
            command = ["join", self.daemons[0].address, *invitation]
        else:
            command = ["start", "--config", str(CONFIG), "--data", str(self.data), *(["--closed"] if closed else [])]
        await daemon.start([*command, *own, *more])
        if not await daemon.begun(START_S) or not await daemon.is_training(START_S):
            raise ShoalError(f"{daemon.name} does not begin: {daemon.life.complaint or daemon.log[-800:]}")

    async def close(self) -> None:
        """End all its daemons, those too that have come later."""
        for daemon in reversed(self.daemons):
            await daemon.close()

    async def leave(self, index: int) -> None:
        """Let a peer leave, as Ctrl-C does. Raises ShoalError if it does not."""
        daemon = self.daemons[index]
        daemon.signal(signal.SIGTERM)
        if not await daemon.ended():
            raise ShoalError(f"{daemon.name} does not leave: {daemon.log[-800:]}")

    async def kill(self, index: int) -> None:
        """Take a peer's power away."""
        self.daemons[index].signal(signal.SIGKILL, self.daemons[index].tree())
        await self.daemons[index].ended()

    async def shoal(self, index: int, *words: str) -> str:
        """Run a command on a peer's machine; return what it printed on stdout and stderr, whatever came of it."""
        place = self.daemons[index].place
        command = [*SHOAL, *words] if place is None else place.command(*SHOAL, *words)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL
        )
        return (await process.communicate())[0].decode(errors="replace")

    async def invitation(self, index: int, days: int = 90) -> str:
        """Return the word by which the founder invites a peer that has asked for it. Raises ShoalError."""
        shown = await self.shoal(index, "identity", "show", "--state-dir", str(self.daemons[index].state_dir))
        own = ["--days", str(days), "--state-dir", str(self.daemons[0].state_dir)]
        said = await self.shoal(0, "invite", shown.split()[-1], *own)
        if (found := re.search(r"--invitation[ =](\S+)", said)) is None:
            raise ShoalError(f"`shoal invite` printed no invitation: {said}")
        return found[1]

    def gone(self) -> str:
        """Say which peers have ended by themselves, and what they said."""
        ended = [each for each in self.daemons if each.lives and not each.is_running]
        return "".join(f"; {each.name} has ended: {each.life.complaint or each.log[-300:]}" for each in ended)

    # People's eyes

    async def status(self, index: int) -> Status | None:
        """Ask a daemon how it is; None while it does not say."""
        return await self.daemons[index].status()

    async def findings(self, index: int) -> list[Finding]:
        """Return what a peer's status says is wrong."""
        status = await self.status(index)
        return status.findings if status else []

    async def url(self, index: int) -> str:
        """Return where a peer's page is, for a browser that is in no namespace."""
        daemon = self.daemons[index]
        if daemon.place is None:
            return daemon.url
        own, server = self.doors.get(index, ("", None))
        if server is not None and own != daemon.url:
            server.close()
        if own != daemon.url:
            server = await asyncio.start_server(lambda *streams: _pass_on(daemon, *streams), "127.0.0.1", 0)
            self.doors[index] = (daemon.url, server)
        assert server is not None
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    def is_well(self, since: float) -> bool:
        """Say whether all who run have sealed rounds of all since a moment, one after the other."""
        present = [daemon for daemon in self.daemons if daemon.is_running]
        words = "alone" if len(present) == 1 else f"sealed {len(present)} of {len(present)}"
        rounds = [[line for line in daemon.life.rounds if line.block in SHARED] for daemon in present]
        lasts = [[line for line in lines if line.at > since][-TOGETHER:] for lines in rounds]
        return all(len(lines) == TOGETHER and all(words in line.outcome for line in lines) for lines in lasts)

    async def settle(self) -> None:
        """Start whoever does not run, and wait until all seal rounds together. Raises ShoalError if they never do."""
        missing = [index for index, daemon in enumerate(self.daemons) if not daemon.is_running]
        if 0 in missing:
            await self.start(0)
        await asyncio.gather(*(self.start(index) for index in missing if index))
        since = time.time()
        if not await until(lambda: self.is_well(since), SETTLE_S):
            logs = "\n".join(f"{daemon.name}: {daemon.log[-600:]}" for daemon in self.daemons)
            raise ShoalError(f"the swarm does not come to seal rounds of all\n{logs}")


async def until(is_so: Callable[[], bool], most_s: float) -> bool:
    """Look again and again; return whether it came to be so. What is looked at are other processes' words."""
    deadline = time.monotonic() + most_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_S)
    return True


@asynccontextmanager
async def open_ward(setting: Setting, folder: Path) -> AsyncIterator[Ward]:
    """Hold a swarm whose founder runs; whatever of it runs in the end is killed. Raises ShoalError."""
    folder.mkdir(parents=True)
    async with contextlib.AsyncExitStack() as stack:
        links = stack.enter_context(open_links([Link()] * setting.peers)) if setting.on_links else None
        data = folder / "corpus"
        await asyncio.to_thread(write_corpus, data, setting.text)
        library = build_clock(folder) if setting.clocks else None
        ward = Ward(setting, folder, [], links, data)
        stack.push_async_callback(ward.close)
        for index in range(setting.peers):
            name = f"peer{index}"
            disk = Disk(folder / name, setting.disks[index]) if index in setting.disks else None
            place = links.peers[index] if links else None
            daemon = Daemon(name, folder, place, PORT if place else free_port(), disk)
            daemon.program = list(PROGRAM)
            daemon.environment |= {PERIOD: str(setting.step_s), LOG: str(folder / f"{name}.steps")}
            if index == 0:
                run = {"SHOAL_RUN__ROUNDS__TICK_SECONDS": str(setting.tick_s)} | dict(setting.run)
                daemon.environment |= run
            if index in setting.clocks and library is not None:
                daemon.own_clock(library)
            ward.daemons.append(daemon)
        try:
            yield ward
        finally:
            for _, server in ward.doors.values():
                server.close()


def write_corpus(folder: Path, text: Mapping[str, int]) -> None:
    """Prepare so many characters of each domain of the text that every machine has."""
    from peer.prepare.builtin import built_in_texts

    texts = built_in_texts(max(text.values()))
    texts["verses"] = [VERSE.format(number) * 20 for number in range(max(text.values()) // 1000)]
    chosen: dict[str, list[str]] = {}
    for domain, characters in text.items():
        chosen[domain] = []
        for document in texts[domain]:
            left = characters - sum(map(len, chosen[domain]))
            if left <= 0:
                break
            chosen[domain].append(document[: max(left, 400)])
    prepare_texts(chosen, folder, Plan(vocab_size=VOCABULARY, context_length=WINDOW))


@asynccontextmanager
async def at_work(command: list[str], count: int) -> AsyncIterator[None]:
    """Hold so many processes of a command, of normal priority, which are killed in the end."""
    command = ["nice", "-n", str(-os.nice(0)), *command]  # whoever measures may be niced
    running = [await asyncio.create_subprocess_exec(*command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            for pid in tree(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await process.wait()


async def _pass_on(daemon: Daemon, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lead a connection to the page of a daemon that is in a namespace."""
    parts = urlsplit(daemon.url)
    try:
        inside = await daemon.connect(parts.hostname or "", parts.port or 0)
    except OSError:
        writer.close()
        return
    to_reader, to_writer = await asyncio.open_connection(sock=inside)
    with contextlib.suppress(OSError):
        await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
