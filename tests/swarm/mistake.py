"""What the tests of mistakes share: a daemon to make them with, and the one line that each must give."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from peer.train.prepare import Plan, prepare_texts

MICRO = str(Path(__file__).parent / "micro.toml")
LOCAL = ("--host", "127.0.0.1", "--threads", "1")
END_S = 60.0


@dataclass(frozen=True)
class Daemon:
    """A daemon that said "ready"."""

    process: subprocess.Popen[str]
    state_dir: Path
    address: str  # the first of those that it listens on
    run_id: str
    url: str

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return log_of(self.state_dir).read_text(encoding="utf-8", errors="replace")


def shoal(*arguments: str) -> list[str]:
    local = LOCAL if arguments[0] in ("start", "join") else ()
    return [sys.executable, "-m", "peer", *arguments, *local]


def mistake(command: Sequence[str], **environment: str) -> str:
    """Run a command that must fail, and return the one line that it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env={**os.environ, **environment})
    assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
    return the_line(done.stderr)


def the_line(said: str) -> str:
    """Return the one line in which a command says why it failed."""
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("shoal: ")]
    assert len(lines) == 1, said
    print(lines[0])
    return lines[0]


def make_corpus(folder: Path) -> Path:
    """Prepare a corpus of one domain that the model in `micro.toml` learns in seconds."""
    text = [f"{number} bottles of beer on the wall, {number} bottles of beer. " * 20 for number in range(200)]
    prepare_texts({"songs": text}, folder, Plan(vocab_size=512, context_length=64))
    return folder


@contextlib.contextmanager
def running(command: Sequence[str], state_dir: Path, **environment: str) -> Iterator[Daemon]:
    """Hold a daemon from its "ready" on; it is told to leave in the end, and killed if it does not."""
    with log_of(state_dir).open("w") as log:
        process = subprocess.Popen(
            [*command, "--state-dir", str(state_dir)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environment},
        )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.strip() == "ready":
                break
        address = re.search(r"^listening on (\S+)", said, re.M)
        run, url = re.search(r"^run (\w{32})", said, re.M), re.search(r"^status (\S+)", said, re.M)
        assert address and run and url, said + log_of(state_dir).read_text()
        yield Daemon(process, state_dir, address[1], run[1], url[1])
        process.send_signal(signal.SIGTERM)
        process.wait(END_S)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def log_of(state_dir: Path) -> Path:
    """Return where the log of a daemon goes: beside its state directory, or beside the disk that it is on."""
    place = state_dir.parent if os.path.ismount(state_dir.parent) else state_dir
    return place.with_suffix(".log")
