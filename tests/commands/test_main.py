import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from status_example import PEERS, example, pulse

from benchmarks.patience import HANG_S
from configs.errors import StateError
from configs.limits import Limits, told
from configs.machine import PeerConfig
from configs.protocol import PROTOCOL_VERSION
from peer import __version__
from peer.commands.main import main
from peer.http.local import announce_daemon, hold_state_dir
from peer.http.status_page import Actions, Shown, open_http

SHOAL = [sys.executable, "-m", "peer"]
ADDRESS = "/ip4/203.0.113.7/tcp/4001/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
LINES = b"".join(b"line %d of a short text\n\n" % n for n in range(200))
# Three documents in three domains: each would be held out or trained on, never both.
FEW = b"".join(b'{"text": "a tale of %d fish", "kind": "k%d"}\n' % (n, n) for n in range(3))
TASK = b"".join(b'{"input": "%d fish and a bird", "target": "%d"}\n' % (n, n) for n in range(50))
LONG = TASK.replace(b'"target": "', b'"target": "' + b"many fish " * 20)
HEAVY = ("torch", "transformers", "hivemind", "uvicorn", "starlette")


@contextmanager
def daemon(state_dir: Path) -> Iterator[list[str]]:
    """Answer for a daemon in a thread: the real lock, file and server, and a list of what was asked."""
    asked: list[str] = []
    bounds = [Limits(up_mbit=5)]
    ready = threading.Event()

    async def live() -> None:
        leaving = asyncio.Event()

        async def leave() -> None:
            asked.append("leave")
            leaving.set()

        async def pause() -> None:
            asked.append("pause")

        async def resume() -> None:
            raise StateError("it trains already")

        def limits() -> dict[str, dict[str, Any]]:
            return {name: {**each, "now": "seen" if name == "hours" else ""} for name, each in told(bounds[-1]).items()}

        async def limit(body: bytes) -> None:
            bounds.append(bounds[-1].changed(Limits.model_validate_json(body)))

        async def revocations() -> None:
            asked.append("revocations")

        with hold_state_dir(state_dir):
            async with open_http(
                PeerConfig(), Shown(example, pulse), Actions(leave, pause, resume, revocations, limits, limit)
            ) as url:
                announce_daemon(state_dir, url, PEERS[0])
                ends.append((asyncio.get_running_loop(), leaving))
                ready.set()
                await leaving.wait()

    ends: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    assert ready.wait(HANG_S)
    try:
        yield asked
    finally:
        loop, leaving = ends[0]
        with suppress(RuntimeError):  # it has left by itself, and its loop is closed
            loop.call_soon_threadsafe(leaving.set)
        thread.join()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SHOAL, *arguments], capture_output=True, text=True, timeout=HANG_S)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frob"], "No such command 'frob'; see: shoal --help"),
        (["status", "--bogus"], "No such option: --bogus"),
        (["join"], "Missing argument"),
        (["join", "/ip4/203.0.113.7/tcp/1/p2p/x", "--run", "zz"], "'zz' is no run id"),
        (["start", "--threads", "many"], "--threads"),
        (["start", "--config", "nope"], "no preset at 'nope'"),
        (["start"], "nothing to found"),
        (["start", "--config", "tiny", "--private"], "--private needs the data"),
        (["start", "--config", "tiny", "--data", "."], "is not a prepared corpus"),
        (["status", "ftp://x"], "is not an address of a daemon"),
        (["status", "--watch"], "--watch needs a terminal"),
        (["fuse", "nowhere", "--out", "x"], "'nowhere' is neither a directory nor an address"),
        (["prepare", "nowhere", "--out", "x"], "no such file or folder: nowhere"),
        (["generate", "nowhere", "hello"], "no model directory at nowhere"),
        (["eval", ".", "--data", "x"], "holds no model"),
        (["serve", "nowhere"], "no model directory at nowhere"),
        (["ask", "nowhere", "hello"], "'nowhere' is"),
        (["ask", ADDRESS, " "], "the prompt is empty"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOAL_PEER__STATE_DIR", str(tmp_path / "state"))
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("shoal: ")
    assert output.err.count("\n") == 1
    assert said in output.err


STRICT = ["--max-bad", "0"]


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("a.txt", b"", [], "a.txt holds no text"),
        ("a.txt", b" \n\n\t\n", [], "a.txt holds no text"),
        ("a.txt", b"good\n\nb\xe4d\n", [], "say it with --encoding cp1252"),
        ("a.txt", b"only one passage", [], "has only one document"),
        ("a.txt", LINES, ["--context-length", "4096"], "fewer than one window of 4096"),
        ("a.jsonl", FEW, ["--domain-column", "kind"], "has only one document, but one is held out"),
        ("a.jsonl", FEW, [], "give it more text or a smaller --context-length"),
        ("a.txt", LINES, ["--domains", "9"], "9 domains need at least 18 documents to train on and there are"),
        ("a.jsonl", FEW, ["--domains", "2", "--domain-column", "kind"], "leave one of them out"),
        ("a.jsonl", TASK, ["--domains", "2"], "'a' is a task (examples with input and target)"),
        ("a.jsonl", TASK + b'{"input": "fish"}\n', STRICT, "line 51: has 'input' and no 'target'; add it"),
        ("a.jsonl", TASK + b'{"text": "a tale"}\n', STRICT, "has no column 'input'; the columns are: text"),
        ("a.jsonl", b'{"text": "a tale"}\n' + TASK, STRICT, "no column 'text'; the columns are: input, target"),
        ("a.jsonl", b'{"input": "fish"}\n' + TASK, STRICT, "line 1: has 'input' and no 'target'; add it"),
        ("a.jsonl", TASK + b'{"input": " ", "target": "x"}\n', STRICT, "line 51: 'input' is empty; fill it"),
        ("a.jsonl", TASK + b'{"input": "x", "target": ""}\n', STRICT, "line 51: 'target' is empty; fill it"),
        ("a.jsonl", TASK + b'{"input": 3, "target": "x"}\n', STRICT, "line 51: 'input' holds int, not text"),
        ("a.jsonl", TASK + b'{"input": "x", "target"\n', STRICT, "line 51: broken JSON"),
        (
            "a.jsonl",
            TASK + b'{"input": "x", "target": "y", "options": "y"}\n',
            STRICT,
            "'options' holds no list of texts",
        ),
        (
            "a.jsonl",
            TASK + b'{"input": "x", "target": "y", "options": ["z"]}\n',
            STRICT,
            "'target' is not among 'options'",
        ),
        (
            "a.jsonl",
            TASK + b'{"input": "x", "target": "y", "targets": ["z"]}\n',
            STRICT,
            "'target' is not among 'targets'",
        ),
        ("a.jsonl", TASK, ["--prompt-format", "none"], "must have {input} in it once"),
        ("a.jsonl", TASK, ["--context-length", "8"], "takes more than half of the 8 tokens of a window"),
        ("a.jsonl", LONG, ["--context-length", "16"], "the targets of 50 leave no room for an input in 16 tokens"),
    ],
)
def test_text_that_cannot_be_prepared(
    name: str, content: bytes, options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    arguments = [str(tmp_path / name), "--out", str(tmp_path / "corpus"), "--vocab-size", "300", *options]
    assert main(["prepare", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.startswith("shoal: ") and output.err.count("\n") == 1
    print(output.err, end="")
    assert said in output.err
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_s_settings_without_a_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHOAL_RUN__ROUNDS__TICK_SECONDS", "5")
    assert main(["start", "--state-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("shoal: SHOAL_RUN__ROUNDS__TICK_SECONDS in the environment") and "--config tiny" in said


def test_limits_are_shown_and_changed_by_their_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path):
        assert main(["limits", "--state-dir", str(tmp_path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "up_mbit          5.0 Mbit/s"
        assert lines[1].strip() == "This peer sends offers, states and text no faster than this."
        change = ["--no-up-mbit", "--down-mbit", "20", "--hours", "22:00-07:00", "--pause-on-battery", "--json"]
        assert main(["limits", *change, "--state-dir", str(tmp_path)]) == 0
        found = json.loads(capsys.readouterr().out)
        values = {name: each["value"] for name, each in found.items() if each["value"] != each["default"]}
        assert values == {"down_mbit": 20, "hours": "22:00-07:00", "pause_on_battery": True}
        assert main(["limits", "--no-pause-on-battery", "--state-dir", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        assert "hours            22:00-07:00 local time (seen)" in said and "pause_on_battery no" in said
        assert main(["limits", "--up-mbit", "3", "--no-up-mbit", "--state-dir", str(tmp_path)]) == 2
        assert "--up-mbit and --no-up-mbit say different things" in capsys.readouterr().err


def test_without_a_daemon_the_code_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "leave", "pause", "resume", "limits"):
        assert main([command, "--state-dir", str(tmp_path)]) == 1
        assert capsys.readouterr().err.startswith(f"shoal: no daemon runs in {tmp_path}")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"shoal {__version__}\nprotocol {PROTOCOL_VERSION}\n"
    for arguments in ([], ["--help"]):
        assert main(arguments) == 0
        shown = capsys.readouterr().out
        assert all(
            name in shown for name in ("demo", "start", "join", "status", "leave", "prepare", "fuse", "generate")
        )
    assert main(["join", "-h"]) == 0


def test_status_of_a_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path):
        assert main(["status", str(tmp_path), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(example().model_dump_json())
        assert main(["status", "--state-dir", str(tmp_path)]) == 0
        assert "BBBBBB" in capsys.readouterr().out


def test_pause_resume_and_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path) as asked:
        assert main(["pause", "--state-dir", str(tmp_path)]) == 0
        assert main(["resume", "--state-dir", str(tmp_path)]) == 1
        assert "refuses: it trains already" in capsys.readouterr().err
        assert main(["leave", "--state-dir", str(tmp_path)]) == 0  # returns when the lock is free
        assert asked == ["pause", "leave"]
    assert "left; " in capsys.readouterr().out


def test_quick_commands_import_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys; from peer.commands.main import main; code = main(sys.argv[1:]); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    with daemon(tmp_path):
        for arguments in (["--help"], ["status", str(tmp_path)], ["pause", "--state-dir", str(tmp_path)]):
            done = subprocess.run(
                [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=HANG_S
            )
            assert (done.returncode, done.stderr) == (0, "[]\n")


def test_watch_draws_until_ctrl_c(tmp_path: Path) -> None:
    with daemon(tmp_path):
        shown, code = watch(tmp_path, lambda process: process.send_signal(signal.SIGINT))
    assert code == 0
    assert "sub-model" in shown
    assert "Traceback" not in shown


def test_watch_says_that_the_daemon_is_gone(tmp_path: Path) -> None:
    with daemon(tmp_path):
        shown, code = watch(tmp_path, lambda process: main(["leave", "--state-dir", str(tmp_path)]))
    assert code == 1
    assert "shoal: no daemon runs in" in shown
    assert "Traceback" not in shown


def test_watch_as_json_is_a_line_a_look(tmp_path: Path) -> None:
    with daemon(tmp_path):
        process = subprocess.Popen([*SHOAL, "status", str(tmp_path), "--watch", "--json"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["tick"] == 412
        assert json.loads(process.stdout.readline())["tick"] == 412
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        process.stdout.close()
        assert process.wait(HANG_S) == 0


def watch(state_dir: Path, then: object) -> tuple[str, int]:
    """Run `status --watch` on a terminal; call `then` once a page is drawn; return what was shown and the exit code."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    process = subprocess.Popen(
        [*SHOAL, "status", str(state_dir), "--watch"], stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    shown = b""
    is_told = False
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # the last of them has closed the terminal
            break
        if not piece:
            break
        shown += piece
        if not is_told and b"worker restarted" in shown:
            is_told = True
            assert callable(then)
            then(process)
    os.close(master)
    return shown.decode(errors="replace"), process.wait(HANG_S)


def test_a_closed_pipe_is_no_bug(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with daemon(tmp_path):
        done = subprocess.run(
            [*SHOAL, "status", str(tmp_path), "--json"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=HANG_S,
        )
    os.close(writing)
    assert "Traceback" not in done.stderr


def test_the_module_is_the_command() -> None:
    assert run("--version").stdout == f"shoal {__version__}\nprotocol {PROTOCOL_VERSION}\n"
