"""Runs a page's commands as a reader would: on machines of their own, one after the other, with real daemons.

A machine is a home directory. A command that does not end (a peer, a server) goes on in the background once it has
said that it is ready. Later commands find it by what it printed, as a reader does who copies a line: ADDR, Qm…, 0123…,
PEER_ID, PORT, round 812. A bucket and a hub are those of the tests of publishing: servers on this machine.
"""

import gzip
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from blocks import ROOT, Block
from stores import stores

START_S, COMMAND_S, LEAVE_S, DRAWN_S = 400.0, 1500.0, 90.0, 60.0  # a demo has ten minutes to take on a slow machine
ROUND_S, LOOK_S = 120.0, 0.5
FOREGROUND = re.compile(r"^(?:\w+=\S+ )*(?:shoal (start|join|serve)|(tensorboard))\b")
READY = {"start": "ready", "join": "ready", "serve": "http://", "tensorboard": "http://"}
SERVERS = ("serve", "tensorboard")  # which run beside a peer
ADDRESS = r"/ip4/(?:203\.0\.113\.7|…)/tcp/4001/p2p/Qm(?:…|\.\.\.)|\bADDR\b"
PAGE = r"http://127\.0\.0\.1:(?:8080|PORT)\b"


class BrokenPageError(AssertionError):
    """A command of a page does not do what the page says."""


@dataclass
class Machine:
    """One of the machines of a page."""

    name: str
    home: Path
    environment: dict[str, str]
    port: int
    peer_id: str = ""
    page: str = ""  # where its daemon's page is
    running: list["Running"] = field(default_factory=list)

    @property
    def work(self) -> Path:
        """Where its owner types."""
        return self.home / "work"


class Running:
    """A command in the background; its stdout is read until it is ready, and by nobody afterwards."""

    def __init__(self, command: str, machine: Machine, kind: str) -> None:
        self.command, self.kind = command, kind
        self.log = machine.home / f"{len(machine.running)}.log"
        self._out = machine.home / f"{len(machine.running)}.out"
        with self.log.open("wb") as log, self._out.open("wb"):
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec env {_without_comment(command)}"], stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT if kind == "tensorboard" else log,
                cwd=machine.work, env=machine.environment, start_new_session=True,
            )  # fmt: skip
        self.said = self._read_until(READY[kind])

    def _read_until(self, ready: str) -> str:
        """Return what it says until a line has `ready` in it."""
        said, deadline = "", time.monotonic() + START_S
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        while not any(ready in line for line in said.splitlines()):
            left = deadline - time.monotonic()
            if not select.select([self.process.stdout], [], [], max(0.0, left))[0]:
                self.end()
                raise BrokenPageError(f"{self.command}: not ready after {START_S:g} s\n{said}{self.log.read_text()}")
            piece = os.read(self.process.stdout.fileno(), 65_536).decode(errors="replace")
            if not piece:
                code = self.process.wait()
                raise BrokenPageError(f"{self.command}: ended with {code}\n{said}{self.log.read_text()}")
            said += piece
        return said

    def left(self) -> int:
        """Wait for its end, which somebody else has asked for; return its exit code."""
        try:
            return self.process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.end()
            raise BrokenPageError(f"{self.command}: did not end within {LEAVE_S:g} s") from None

    def end(self) -> None:
        """Ask it to leave, and see that it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Story:
    """The machines of one page, and what its commands have printed so far."""

    def __init__(self, model: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="shoal-docs-"))  # short: a socket's path has room for 104 characters
        self.machines: dict[str, Machine] = {}
        self.model = model
        self.address = self.run_id = self.invitation = self.served = ""
        self._servers = ExitStack()  # a bucket and a hub, once they are named

    def __enter__(self) -> "Story":
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines.values():
            for running in machine.running:
                running.end()
        self._servers.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def play(self, block: Block) -> None:
        """Run a block's commands; raises BrokenPageError where one does not do what it should."""
        for name, command in block.before:
            self._run(self._filled(command, self._machine(name)), self._machine(name), (0,))
        machine = self._machine(block.machine)
        allowed = (0, 1) if "may fail" in block.options else (0,)
        if block.language == "python":
            script = machine.home / "block.py"
            script.write_text(self._filled(block.text, machine))
            # What runs in a notebook is no file that the workers could import.
            how = f'python -c "$(cat {script})"' if "in a notebook" in block.options else f"python {script}"
            self._run(how, machine, allowed)
            return
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                self._run(self._filled(line.removeprefix("$ "), machine), machine, allowed)

    def _run(self, command: str, machine: Machine, allowed: tuple[int, ...]) -> None:
        if match := FOREGROUND.match(command):
            self._begin(command, machine, match[1] or match[2])
        elif "--watch" in command:
            _watch(command, machine)
        else:
            folder = _project(machine) if command.startswith("make ") else machine.work
            said = _finish(command, machine, folder, allowed)
            self._remember(command, said, machine)

    def _begin(self, command: str, machine: Machine, kind: str) -> None:
        for running in machine.running:  # one peer for each state directory
            if kind not in SERVERS and running.kind not in SERVERS:
                running.end()
        running = Running(command, machine, kind)
        machine.running.append(running)
        if kind in SERVERS:
            found = re.search(r"http://[\d.:]+", running.said)
            self.served = found[0] if found and kind == "serve" else self.served
            return
        machine.peer_id = _found(r"peer (\w+)", running.said)
        machine.page = _found(r"status (\S+)", running.said)
        self.run_id = _found(r"run (\w{32})", running.said)
        if kind == "start" or not self.address:
            self.address = _found(r"listening on (\S+)", running.said)

    def _remember(self, command: str, said: str, machine: Machine) -> None:
        if "identity show" in command:
            machine.peer_id = _found(r"\b(Qm\w{40,})", said)
        if "shoal invite" in command:
            self.invitation = _found(r"--invitation (\S+)", said)
        if re.search(r"shoal leave\b", command):
            for running in machine.running:
                if running.kind not in SERVERS and (code := running.left()) != 0:
                    raise BrokenPageError(f"{running.command}: left with {code}\n{running.log.read_text()}")

    def _filled(self, text: str, machine: Machine) -> str:
        """Put in what a reader would: what was printed before, and what is his own."""
        guest = next((each.peer_id for each in self.machines.values() if each is not machine and each.peer_id), "")
        state_dir = machine.home / ".local" / "state" / "shoal"
        text = re.sub(ADDRESS, self.address, text)
        text = re.sub(r"--run (?:0123(?:…|\.\.\.)|RUN-ID)", f"--run {self.run_id}", text)
        text = re.sub(r"--invitation …", f"--invitation {self.invitation}", text)
        text = text.replace("PEER_ID", guest).replace("MODEL-DIR", str(self.model)).replace("STATE-DIR", str(state_dir))
        text = re.sub(r"\b4001\b", str(machine.port), text)
        text = text.replace("http://127.0.0.1:8000", self.served) if self.served else text
        text = re.sub(PAGE, machine.page, text) if machine.page else text
        if "--round 812" in text:
            text = text.replace("--round 812", f"--round {_a_round(machine)}")
        if re.search(r"(s3|hf)://", text):
            text = self._published(text, machine)
        return re.sub(r"--(port|status-port) (?:8000|8080)\b", r"--\1 0", text)

    def _published(self, text: str, machine: Machine) -> str:
        """Start what stands in for a bucket and a hub, and name them."""
        if "AWS_ENDPOINT_URL_S3" not in machine.environment:
            machine.environment |= self._servers.enter_context(stores())
            machine.environment.pop("HF_HUB_OFFLINE", None)
        return text.replace("s3://BUCKET", "s3://fish").replace("hf://USER/", "hf://me/")

    def _machine(self, name: str) -> Machine:
        return self.machines.get(name) or self._new_machine(name)

    def _new_machine(self, name: str) -> Machine:
        home = self.folder / name
        (home / "work").mkdir(parents=True)
        (home / "tmp").mkdir()
        own = {key: value for key, value in os.environ.items() if not key.startswith(("SHOAL_", "XDG_", "PYTEST_"))}
        environment = own | {
            "HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SHOAL_PEER__HOST": "127.0.0.1",  # nothing of a test listens beyond this machine
            "SHOAL_PEER__THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120",
        }  # fmt: skip
        machine = Machine(name, home, environment, _free_port())
        write_files(machine.work)
        (home / ".curlrc").write_text("fail-with-body\n")  # a refusal is no answer
        self.machines[name] = machine
        return machine


def write_files(work: Path) -> None:
    """Write what a reader is taken to have: folders of text, and examples as JSON lines."""
    draw = random.Random(0)
    sources = {"code": "email/*.py", "web": "http/*.py", "sums": "unittest/*.py"}
    library = Path(os.__file__).parent
    for domain, pattern in sources.items():
        text = "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(library.glob(pattern)))[:120_000]
        for folder in ("texts", "mine"):
            (work / folder / domain).mkdir(parents=True)
            share = text if folder == "texts" else text[: len(text) // 2]
            (work / folder / domain / "a.txt").write_text(share, encoding="utf-8")
    animals = {"a dog": "ein Hund", "a cat": "eine Katze", "a fish": "ein Fisch", "a bird": "ein Vogel"}
    verbs = {"runs": "läuft", "sleeps": "schläft", "eats": "frisst", "sees": "sieht"}
    numbers = [str(number) for number in range(60)]
    pairs = [(f"{a} {v} {n}", f"{b} {w} {n}") for a, b in animals.items() for v, w in verbs.items() for n in numbers]
    draw.shuffle(pairs)
    lines = [{"input": source, "target": target} for source, target in pairs]
    for name in ("train", "de", "qa"):
        _write_lines(work / f"{name}.jsonl", lines)
    turns = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in pairs]
    _write_lines(work / "chats.jsonl", [{"messages": each} for each in turns])
    asked = "For how many hours did it rain on that day?"
    rows = [f"On day {n} it rained for {n % 7} hours.,{asked},{n % 7} hours" for n in range(1, 201)]
    (work / "quiz.csv").write_text("\n".join(["story,question,answer", *rows]) + "\n")
    _write_found(work / "found")


def _write_found(folder: Path) -> None:
    """Write what somebody has collected: letters, news with a split, and files that are no text."""
    letters, news = folder / "letters", folder / "news"
    letters.mkdir(parents=True)
    news.mkdir()
    for n in range(1, 61):
        harvest = f"the harvest of 18{n + 9} was good: {7 * n} sacks of wheat are on their way."
        (letters / f"{n}.txt").write_text(f"Dear {n},\n\n{harvest}\n\nYours, {n + 1}\n")
    (letters / "menu.txt").write_bytes("Café au lait, crème brûlée, à bientôt\n".encode("cp1252"))
    (letters / "empty.txt").touch()
    said = [f"On day {n} the harbour saw {3 * n} ships, and {n} of them left before the tide." for n in range(1, 401)]
    lines = [json.dumps({"head": f"Harbour {n}", "body": {"text": text}}) for n, text in enumerate(said, start=1)]
    (news / "train.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[:360]).encode()))
    (news / "valid.jsonl").write_text("\n".join(lines[360:]))
    (folder / "README.md").write_text("# Letters and news\n\nCollected in the archive.\n")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff")


def _write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")


def _project(machine: Machine) -> Path:
    """Return a checkout of its own, whose environment is the one that the tests run in."""
    folder = machine.home / "shoal"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
        os.utime(folder / name, (0, 0))  # older than the environment, which has what they ask for
    (folder / ".venv").symlink_to(Path(sys.prefix).resolve())
    return folder


def _finish(command: str, machine: Machine, folder: Path, allowed: tuple[int, ...]) -> str:
    """Run a command to its end in the machine's shell; return what it printed. What it exports stays."""
    after = machine.home / "environment"
    shell = f"{command}\ncode=$?; env -0 > {after}; exit $code"
    try:
        done = subprocess.run(
            ["bash", "-c", shell], cwd=folder, env=machine.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=COMMAND_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BrokenPageError(f"{command}: did not end within {COMMAND_S:g} s\n{error.stderr}") from None
    is_refused = command.startswith("curl") and '{"error"' in done.stdout
    if done.returncode not in allowed or "Traceback" in done.stderr or is_refused:
        raise BrokenPageError(f"{command}: ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    pairs = (each.partition("=") for each in after.read_text().split("\0") if "=" in each)
    machine.environment = {name: value for name, _, value in pairs if name not in ("_", "SHLVL", "OLDPWD", "PWD")}
    return done.stdout


def _a_round(machine: Machine) -> int:
    """Wait until the machine's daemon remembers a round; return its tick."""
    deadline = time.monotonic() + ROUND_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{machine.page}/rounds?limit=1", timeout=LOOK_S * 20) as answer:
            if rounds := json.load(answer)["rounds"]:
                return int(rounds[0]["tick"])
        time.sleep(LOOK_S)
    raise BrokenPageError(f"no round was remembered within {ROUND_S:g} s")


def _watch(command: str, machine: Machine) -> None:
    """Let a command draw on a terminal until something is drawn, then press Ctrl-C."""
    ours, theirs = pty.openpty()
    shell = ["bash", "-c", f"exec env {_without_comment(command)}"]
    process = subprocess.Popen(
        shell, cwd=machine.work, env=machine.environment | {"TERM": "xterm"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    drawn, deadline = "", time.monotonic() + DRAWN_S
    while "peer" not in drawn:
        if not select.select([ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            process.kill()
            raise BrokenPageError(f"{command}: nothing was drawn within {DRAWN_S:g} s\n{drawn}")
        try:
            drawn += os.read(ours, 65_536).decode(errors="replace")
        except OSError:  # it has ended, and its terminal with it
            raise BrokenPageError(f"{command}: ended with {process.wait()}\n{drawn}") from None
    process.send_signal(signal.SIGINT)
    code = process.wait(LEAVE_S)
    os.close(ours)
    if code not in (0, 130):
        raise BrokenPageError(f"{command}: ended with {code}\n{drawn}")


def _without_comment(command: str) -> str:
    return re.sub(r"\s+#.*$", "", command)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise BrokenPageError(f"nothing like {pattern} in what was printed:\n{text}")
    return match[1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
