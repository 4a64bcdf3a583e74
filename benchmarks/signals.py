"""Eight ways to end a peer, with another one present: does each hand over, say so, and leave nothing behind?

    python -m benchmarks.signals [--times 10] [--way NAME …] [--quick] [--json FILE]

ctrl-c         in its terminal (a real one, by pty: the whole foreground group gets it)
ctrl-c twice   the second at once: it ends without handing over, by the signal
term           SIGTERM to the process
term group     SIGTERM to its process group, as batch systems send it
hup            SIGHUP
closed         its terminal is closed
leave          `shoal leave`
parent         the shell that it runs in is killed

A time counts if the exit code is the documented one, the log says that all was saved (but where it was told twice), the
other peer has read the leaving record, and no process of the peer is left.
"""

import argparse
import fcntl
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.boxes import Box, open_boxes
from benchmarks.patience import until
from benchmarks.report import at_least, finish, parser
from benchmarks.usage import tree
from configs.errors import ShoalError

SHOAL = [sys.executable, "-m", "peer"]
LEAVE_S = 40.0  # as docs/operations.md promises
CTRL_C = b"\x03"


@dataclass
class Peer:
    """A joiner in a terminal of its own."""

    shell: subprocess.Popen[bytes]  # or the peer itself, where there is no shell
    terminal: int
    state_dir: Path
    log: Path
    pid: int = 0  # of the daemon

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _interrupt(peer: Peer) -> None:
    os.write(peer.terminal, CTRL_C)


def _interrupt_twice(peer: Peer) -> None:
    os.write(peer.terminal, CTRL_C)
    until(peer.said, lambda text: "once more to end at once" in text, "the first Ctrl-C to arrive")
    os.write(peer.terminal, CTRL_C)


def _leave(peer: Peer) -> None:
    subprocess.run([*SHOAL, "leave", "--state-dir", str(peer.state_dir)], check=True, capture_output=True)


WAYS: dict[str, Callable[[Peer], None]] = {
    "ctrl-c": _interrupt,
    "ctrl-c twice": _interrupt_twice,
    "term": lambda peer: os.kill(peer.pid, signal.SIGTERM),
    "term group": lambda peer: os.killpg(os.getpgid(peer.pid), signal.SIGTERM),
    "hup": lambda peer: os.kill(peer.pid, signal.SIGHUP),
    "closed": lambda peer: os.close(peer.terminal),
    "leave": _leave,
    "parent": lambda peer: os.kill(peer.shell.pid, signal.SIGKILL),
}


def main(argv: Sequence[str] | None = None) -> int:
    """End peers, print, and return the exit code."""
    own = argparse.ArgumentParser(description=__doc__.splitlines()[0], parents=[parser()])
    own.add_argument("--times", type=int, default=10, help="how often each way is tried (default: 10)")
    own.add_argument("--way", action="append", choices=list(WAYS), help="only this one")
    args = own.parse_args(argv)
    times, ways = 1 if args.quick else args.times, args.way or list(WAYS)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="shoal-signals-") as name, open_boxes() as boxes:
        folder = Path(name)
        founder = Box(folder, "founder")
        boxes.append(founder)
        place = ["--state-dir", str(founder.state_dir), "--host", "127.0.0.1", "--threads", "1"]
        settings = "SHOAL_RUN__ROUNDS__TICK_SECONDS=2"  # the founder's alone
        founder.start(["env", settings, *SHOAL, "start", "--config", "tiny", *place])
        line = founder.wait_for("^join with: (.+)")
        for way in ways:
            for number in range(times):
                if problem := _try(way, line, folder / f"{way.replace(' ', '-')}{number}", founder):
                    failures.append(f"{way} {number + 1}: {problem}")
                    print(failures[-1], flush=True)
    tried = times * len(ways)
    done = tried - len(failures)
    bar = at_least("signals", f"of {tried} ends of a peer, {len(ways)} ways, as documented", done, tried)
    return finish(args, [bar], {"failures": failures})


def _try(way: str, line: str, folder: Path, founder: Box) -> str:
    """End one peer in one way; return what was wrong, nothing if all was well."""
    folder.mkdir()
    peer = _join(line, folder, in_shell=way == "parent")
    before = {each.peer_id for each in founder.status().peers}
    everything = tree(peer.shell.pid)
    began = time.monotonic()
    WAYS[way](peer)
    try:
        until(lambda: _alive(everything), lambda alive: not alive, "all to be gone", most_s=LEAVE_S + 5)
    except ShoalError as error:
        return str(error)
    code = peer.shell.wait()
    seconds = time.monotonic() - began
    if way != "closed":
        os.close(peer.terminal)
    said, is_told_twice = peer.said(), way == "ctrl-c twice"
    expected = {"ctrl-c twice": -signal.SIGINT, "parent": -signal.SIGKILL}.get(way, 0)
    if code != expected:
        return f"exit code {code}, not {expected}; {said[-600:]}"
    if "Traceback" in said:
        return f"a traceback: {said[-2000:]}"
    if is_told_twice:
        return ""
    if "left; everything is saved" not in said:
        return f"it did not say that all was saved: {said[-600:]}"
    if seconds > LEAVE_S:
        return f"it took {seconds:.0f} s"
    gone = {each.peer_id for each in founder.status_when(lambda s: len(s.peers) < len(before), "to read of it").peers}
    return "" if len(gone) == len(before) - 1 else "the other peer has not read that it left"


def _join(line: str, folder: Path, *, in_shell: bool) -> Peer:
    """Start a peer in a terminal and wait until it has sealed a round with the founder."""
    state_dir, log = folder / "state", folder / "log"
    command = [*SHOAL, *line.split()[1:], "--state-dir", str(state_dir), "--host", "127.0.0.1", "--threads", "1"]
    if in_shell:
        command = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    master, slave = pty.openpty()
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, stdin=slave, stdout=out, stderr=out, start_new_session=True,
            preexec_fn=_in_terminal,
        )  # fmt: skip
    os.close(slave)
    peer = Peer(child, master, state_dir, log, child.pid)
    until(peer.said, lambda text: "sealed 2 of" in text or child.poll() is not None, "a round with the founder")
    if child.poll() is not None:
        raise RuntimeError(f"the peer ended by itself: {peer.said()[-2000:]}")
    if in_shell:
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        peer.pid = int(children[0])
    return peer


def _in_terminal() -> None:
    """Make the terminal at stdin one's own; no signal is ignored, though nohup may have started all this."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _alive(pids: set[int]) -> set[int]:
    """Return those of these processes that still run; a child that has ended and was not waited for does not."""
    found = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.add(pid)
    return found


if __name__ == "__main__":
    sys.exit(main())
