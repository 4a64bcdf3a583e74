"""What the tests of mistakes share: a daemon to make them with, and the one line that each must give."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from benchmarks.patience import HANG_S, until
from configs.errors import NetworkError
from peer.commands.main import main
from peer.http.local import fetch_status
from peer.http.status import Status
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

MICRO = str(Path(__file__).parent / "micro.toml")
LOCAL = ("--host", "127.0.0.1", "--threads", "1")


@dataclass(frozen=True)
class Daemon:
    """A daemon that said "ready"."""

    process: subprocess.Popen[str] | None  # None: it runs in this one
    state_dir: Path
    address: str  # the first of those that it listens on
    run_id: str
    url: str

    @property
    def log(self) -> str:
        """What it wrote to stderr."""
        return log_of(self.state_dir).read_text(encoding="utf-8", errors="replace")


def until_status(daemon: Daemon, is_so: Callable[[Status], bool], what: str) -> Status:
    """Return the first status of a daemon for which `is_so` holds."""

    def look() -> Status | None:
        try:
            return fetch_status(daemon.url)
        except NetworkError:  # it is busy, or it has ended
            assert daemon.process is None or daemon.process.poll() is None, (
                f"it ended before {what}: {daemon.log[-3000:]}"
            )
            return None

    def seen(status: Status | None) -> str:
        return f"{status.model_dump_json(indent=1) if status else 'no answer'}\n{daemon.log[-3000:]}"

    found = until(look, lambda status: status is not None and is_so(status), what, seen=seen)
    assert found is not None
    return found


def shoal(*arguments: str) -> list[str]:
    local = LOCAL if arguments[0] in ("start", "join") else ()
    return [sys.executable, "-m", "peer", *arguments, *local]


def mistake(*arguments: str, **environment: str) -> str:
    """Call, in this process, a command that must fail; return the one line that it says.

    The imports of a daemon take ten seconds of a core: here they are there, and so is a fork server for its workers.
    """
    said = io.StringIO()
    threads, on_interrupt = torch.get_num_threads(), signal.getsignal(signal.SIGINT)
    try:
        with contextlib.redirect_stderr(said), pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = main(shoal(*arguments)[3:])
    finally:
        torch.set_num_threads(threads)
        signal.signal(signal.SIGINT, on_interrupt)
    assert code in (1, 2), (code, said.getvalue())
    return the_line(said.getvalue())


def mistake_of(command: Sequence[str], **environment: str) -> str:
    """Run a command that must fail, in a process of its own, and return the one line that it says."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=HANG_S, env={**os.environ, **environment}
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(
            f"no end of a mistake in {HANG_S:g} s; it said {error.stdout!r}, {error.stderr!r}"
        ) from None
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
        yield _daemon(said, state_dir, process)
        process.terminate()
        try:
            process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not leave in {HANG_S:g} s: {log_of(state_dir).read_text()[-3000:]}") from None
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _daemon(said: str, state_dir: Path, process: subprocess.Popen[str] | None) -> Daemon:
    address = re.search(r"^listening on (\S+)", said, re.M)
    run, url = re.search(r"^run (\w{32})", said, re.M), re.search(r"^status (\S+)", said, re.M)
    assert address and run and url, said + log_of(state_dir).read_text()
    return Daemon(process, state_dir, address[1], run[1], url[1])


def while_running(
    command: Sequence[str], state_dir: Path, during: Callable[[Daemon], object], **environment: str
) -> int:
    """Run a daemon in this process, and `during` in a thread; then it is told to leave. Return its exit code."""
    said, ready = io.StringIO(), threading.Event()
    failures: list[BaseException] = []

    class Said(io.StringIO):
        def write(self, text: str) -> int:
            said.write(text)
            if "ready\n" in said.getvalue():
                ready.set()
            return len(text)

    def watch() -> None:
        try:
            if ready.wait(HANG_S):
                during(_daemon(said.getvalue(), state_dir, None))
        except BaseException as error:
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threads = torch.get_num_threads()
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
    watcher = threading.Thread(target=watch)
    try:
        with (
            log_of(state_dir).open("w", buffering=1) as log,
            contextlib.redirect_stdout(Said()),
            contextlib.redirect_stderr(log),
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in environment.items():
                patch.setenv(name, value)
            watcher.start()
            code = main([*command[3:], "--state-dir", str(state_dir)])
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may have ended by itself, and be told yet
            ready.set()
            watcher.join()
    finally:
        torch.set_num_threads(threads)
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
    if failures:
        raise failures[0]
    return code


def log_of(state_dir: Path) -> Path:
    """Return where the log of a daemon goes: beside its state directory, or beside the disk that it is on."""
    place = state_dir.parent if os.path.ismount(state_dir.parent) else state_dir
    return place.with_suffix(".log")
