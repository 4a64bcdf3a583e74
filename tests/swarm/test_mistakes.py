"""What people get wrong, and what machines do to them: one line that says what to do, and nothing is lost."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from peer.train.prepare import Plan, prepare_texts

MICRO = str(Path(__file__).parent / "micro.toml")
STRANGER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
LOCAL = ("--host", "127.0.0.1", "--threads", "1")

pytestmark = [pytest.mark.swarm, pytest.mark.timeout(120)]


@dataclass(frozen=True)
class Founder:
    state_dir: Path
    address: str
    run_id: str
    url: str
    corpus: Path


@pytest.fixture(scope="module")
def founder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Founder]:
    """A daemon to make mistakes with."""
    folder = tmp_path_factory.mktemp("founder")
    text = [f"{number} bottles of beer on the wall, {number} bottles of beer. " * 20 for number in range(200)]
    prepare_texts({"songs": text}, folder / "corpus", Plan(vocab_size=512, context_length=64))
    command = shoal("start", "--config", MICRO, "--data", str(folder / "corpus"), "--state-dir", str(folder / "state"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.strip() == "ready":
                break
        found = re.search(r"/ip4/127\.0\.0\.1/tcp/\d+/p2p/\w+", said)
        run, url = re.search(r"^run (\w{32})", said, re.M), re.search(r"^status (\S+)", said, re.M)
        assert found and run and url, said
        yield Founder(folder / "state", found[0], run[1], url[1], folder / "corpus")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def shoal(*arguments: str) -> list[str]:
    local = LOCAL if arguments[0] in ("start", "join") else ()
    return [sys.executable, "-m", "peer", *arguments, *local]


def mistake(command: Sequence[str], **environment: str) -> str:
    """Run a command that must fail, and return the one line that it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env={**os.environ, **environment})
    assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("shoal: ")]
    assert len(lines) == 1, done.stderr
    print(lines[0])
    return lines[0]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (f"/ip/127.0.0.1/tcp/4001/p2p/{STRANGER}", "/ip4/"),
        ("/ip4/127.0.0.1/tcp/4001", "/p2p/"),
        ("127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001"),
        (f"/ip4/127.0.0.1/p2p/{STRANGER}", "tcp"),
        ("/ip4/127.0.0.1/tcp/4001/p2p/QmNoSuchPeer", "peer id"),
        (f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER}", "nobody listens"),
        (f"/ip6/::1/tcp/1/p2p/{STRANGER}", "::1"),
        (f"/dns4/no-such-host.invalid/tcp/4001/p2p/{STRANGER}", "no-such-host.invalid"),
    ],
)
def test_a_wrong_address_is_named_with_its_reason(address: str, says: str, tmp_path: Path) -> None:
    assert says in mistake(shoal("join", address, "--state-dir", str(tmp_path / "s")))


def test_the_right_port_with_another_peer_s_id(founder: Founder, tmp_path: Path) -> None:
    address = re.sub(r"/p2p/.*", f"/p2p/{STRANGER}", founder.address)
    assert "peer" in mistake(shoal("join", address, "--state-dir", str(tmp_path / "s")))


def test_another_run(founder: Founder, tmp_path: Path) -> None:
    said = mistake(shoal("join", founder.address, "--run", "0" * 32, "--state-dir", str(tmp_path / "s")))
    assert founder.run_id in said and "0" * 32 in said


LAUNCHER = "import sys, time, configs.run\n{patch}\nfrom peer.cli import main\nsys.exit(main(sys.argv[1:]))"


def test_a_clock_that_is_off(founder: Founder, tmp_path: Path) -> None:
    patch = "real = time.time\ntime.time = lambda: real() + 5"
    arguments = shoal("join", founder.address, "--state-dir", str(tmp_path / "s"))[3:]
    said = mistake([sys.executable, "-c", LAUNCHER.format(patch=patch), *arguments])
    assert "clock" in said and re.search(r"[45]\.\d s", said)


def test_another_version(founder: Founder, tmp_path: Path) -> None:
    patch = "configs.run.PROTOCOL_VERSION = 2"
    arguments = shoal("join", founder.address, "--state-dir", str(tmp_path / "s"))[3:]
    said = mistake([sys.executable, "-c", LAUNCHER.format(patch=patch), *arguments])
    assert "version 1" in said and "2" in said


@pytest.mark.parametrize("flag", ["--port", "--status-port"])
def test_a_taken_port(founder: Founder, tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = mistake(shoal("join", founder.address, "--state-dir", str(tmp_path / "s"), flag, port))
    assert port in said


def test_a_second_daemon_on_one_state_directory(founder: Founder) -> None:
    said = mistake(shoal("join", founder.address, "--state-dir", str(founder.state_dir)))
    assert "--state-dir" in said


def test_a_bad_preset_key(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(Path(MICRO).read_text().replace("num_layers = 2", "num_layers = 0"))
    said = mistake(shoal("start", "--config", str(bad), "--state-dir", str(tmp_path / "s")))
    assert "run.model.num_layers" in said and "0" in said and "1" in said


def test_a_missing_device(founder: Founder, tmp_path: Path) -> None:
    said = mistake(shoal("join", founder.address, "--state-dir", str(tmp_path / "s"), "--device", "cuda:7"))
    assert "cuda:7" in said


def test_a_model_that_does_not_fit(founder: Founder, tmp_path: Path) -> None:
    sizes = {"HIDDEN_SIZE": "8192", "MLP_SIZE": "32768", "NUM_LAYERS": "64"}
    environment = {f"SHOAL_RUN__MODEL__{name}": value for name, value in sizes.items()}
    command = shoal("start", "--config", MICRO, "--data", str(founder.corpus), "--state-dir", str(tmp_path / "s"))
    assert "memory" in mistake(command, **environment)


def test_help_and_status_answer_at_once(founder: Founder) -> None:
    import time

    def seconds(*arguments: str) -> float:
        began = time.monotonic()
        subprocess.run(shoal(*arguments), capture_output=True, check=True)
        return time.monotonic() - began

    fastest = min(seconds("--help") for _ in range(5)), min(seconds("status", str(founder.state_dir)) for _ in range(5))
    print(f"shoal --help {fastest[0]:.2f} s, shoal status {fastest[1]:.2f} s")
    assert fastest[0] < 0.5 and fastest[1] < 0.8
