"""What people get wrong, and what machines do to them: one line that says what to do, and nothing is lost."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mistake import MICRO, Daemon, mistake, mistake_of, shoal

from peer.commands.main import main
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

STRANGER = "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"

HELP_SHARE, STATUS_SHARE = 0.4, 0.5  # of the time that it takes to import torch

pytestmark = pytest.mark.swarm


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (f"/ip/127.0.0.1/tcp/4001/p2p/{STRANGER}", "/ip4/"),
        ("/ip4/127.0.0.1/tcp/4001", "/p2p/"),
        ("127.0.0.1:4001", "/ip4/127.0.0.1/tcp/4001"),
        (f"/ip4/127.0.0.1/p2p/{STRANGER}", "tcp"),
        ("/ip4/127.0.0.1/tcp/4001/p2p/QmNoSuchPeer", "peer id"),
    ],
)
def test_a_wrong_address_is_named_with_its_reason(address: str, says: str, tmp_path: Path) -> None:
    assert says in mistake("join", address, "--state-dir", str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        (f"/ip4/127.0.0.1/tcp/1/p2p/{STRANGER}", "nobody listens"),
        (f"/ip6/::1/tcp/1/p2p/{STRANGER}", "::1"),
    ],
)
def test_an_address_where_nobody_is_is_named_with_its_reason(address: str, says: str, tmp_path: Path) -> None:
    assert says in mistake("join", address, "--state-dir", str(tmp_path / "s"))


def test_the_right_port_with_another_peer_s_id(founder: Daemon, tmp_path: Path) -> None:
    address = re.sub(r"/p2p/.*", f"/p2p/{STRANGER}", founder.address)
    assert "peer" in mistake("join", address, "--state-dir", str(tmp_path / "s"))


def test_another_run(founder: Daemon, tmp_path: Path) -> None:
    said = mistake("join", founder.address, "--run", "0" * 32, "--state-dir", str(tmp_path / "s"))
    assert founder.run_id in said and "0" * 32 in said


def test_a_clock_that_is_off(founder: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 5)
    said = mistake("join", founder.address, "--state-dir", str(tmp_path / "s"))
    assert "clock" in said and re.search(r"[45]\.\d s", said)


def test_another_version(founder: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("configs.protocol.PROTOCOL_VERSION", 2)
    monkeypatch.setattr("configs.protocol.OLDEST_PROTOCOL", 2)
    said = mistake("join", founder.address, "--state-dir", str(tmp_path / "s"))
    assert "speaks protocol 1, this peer speaks 2: update that one (pip install -U shoal)" in said


@pytest.mark.parametrize("flag", ["--port", "--status-port"])
def test_a_taken_port(founder: Daemon, tmp_path: Path, flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = mistake("join", founder.address, "--state-dir", str(tmp_path / "s"), flag, port)
    assert port in said


def test_a_second_daemon_on_one_state_directory(founder: Daemon) -> None:
    assert "--state-dir" in mistake("join", founder.address, "--state-dir", str(founder.state_dir))


def test_a_bad_preset_key(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(Path(MICRO).read_text().replace("num_layers = 2", "num_layers = 0"))
    said = mistake("start", "--config", str(bad), "--state-dir", str(tmp_path / "s"))
    assert "run.model.num_layers" in said and "0" in said and "1" in said


def test_a_missing_device(founder: Daemon, tmp_path: Path) -> None:
    said = mistake("join", founder.address, "--state-dir", str(tmp_path / "s"), "--device", "cuda:7")
    assert "cuda:7" in said


def test_data_that_does_not_fit_the_run(founder: Daemon, corpus: Path, tmp_path: Path) -> None:
    """Too short for the preset's window, cut short, of another tokenizer, of a domain that the run has not."""

    def prepared(name: str, domain: str, **plan: Any) -> str:
        texts = [f"verse {number} of a song" for number in range(20)]
        prepare_texts({domain: texts}, tmp_path / name, Plan(context_length=16, **plan))
        return str(tmp_path / name)

    start = ("start", "--config", MICRO, "--state-dir", str(tmp_path / "s"))
    join = ("join", founder.address, "--state-dir", str(tmp_path / "t"))
    short = prepared("short", "songs", vocab_size=300)
    assert "no shard of domain 'songs' holds a window of 1024" in mistake(
        *start, "--data", short, SHOAL_RUN__MODEL__CONTEXT_LENGTH="1024", SHOAL_RUN__INNER__BATCH_TOKENS="1024"
    )
    assert "another tokenizer than the run's" in mistake(*join, "--data", short)
    strange = prepared("strange", "poems", tokenizer=corpus)
    assert "the run has no domain poems; its domains are songs" in mistake(*join, "--data", strange)
    damaged = shutil.copytree(corpus, tmp_path / "damaged")
    blob = max((damaged / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-2])
    assert str(damaged) in mistake(*start, "--data", str(damaged))


def test_a_model_that_does_not_fit(corpus: Path, tmp_path: Path) -> None:
    sizes = {"HIDDEN_SIZE": "8192", "MLP_SIZE": "32768", "NUM_LAYERS": "64"}
    environment = {f"SHOAL_RUN__MODEL__{name}": value for name, value in sizes.items()}
    command = ("start", "--config", MICRO, "--data", str(corpus), "--state-dir", str(tmp_path / "s"))
    assert "memory" in mistake(*command, **environment)


WITH_LITTLE_MEMORY = """
import re, resource, sys
from multiprocessing import forkserver
from peer.commands.main import main
from peer.workers.supervisor import Workers
load = Workers.load
async def load_with_little_memory(self, *arguments):
    await self._live()
    for pid in (forkserver._forkserver._forkserver_pid, *(rank.process.pid for rank in self._ranks)):
        kibibytes = int(re.search(r"VmData:\\s+(\\d+)", open(f"/proc/{pid}/status").read())[1])
        resource.prlimit(pid, resource.RLIMIT_DATA, ((kibibytes << 10) + (100 << 20), -1))
    await load(self, *arguments)
Workers.load = load_with_little_memory
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_a_step_that_does_not_fit(corpus: Path, tmp_path: Path) -> None:
    """The workers run out of memory, really: they get 100 MB, and a sequence of 16,384 tokens takes more."""
    arguments = shoal("start", "--config", MICRO, "--data", str(corpus), "--state-dir", str(tmp_path / "s"))[3:]
    sizes = {"RUN__MODEL__CONTEXT_LENGTH": 16_384, "RUN__INNER__BATCH_TOKENS": 32_768, "RUN__MODEL__MLP_SIZE": 512}
    environment = {f"SHOAL_{name}": str(value) for name, value in sizes.items()}
    command = [sys.executable, "-c", WITH_LITTLE_MEMORY, *arguments]
    assert "out of memory even with one sequence at a time; give more memory" in mistake_of(command, **environment)


def test_too_little_shared_memory(corpus: Path, tmp_path: Path) -> None:
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$0" "$@"']
    if os.geteuid() != 0 or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("making /dev/shm small needs root and mount namespaces")
    command = shoal("start", "--config", MICRO, "--data", str(corpus), "--state-dir", str(tmp_path / "s"))
    assert "enlarge /dev/shm" in mistake_of([*mount, *command])


def test_the_doctor_beside_a_daemon(founder: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
    """Its port is looked at from outside, by another peer: here by itself, which is what there is on one machine."""
    main(["doctor", founder.address, "--state-dir", str(founder.state_dir), "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    port = founder.address.split("/")[4]
    assert (checks["port"]["answer"], checks["port"]["said"]) == ("yes", f"the daemon listens on port {port}")
    assert checks["reachable"]["answer"] == "yes" and f"port {port} is open" in checks["reachable"]["said"]
    assert founder.run_id in checks["run"]["said"]
    assert {checks[name]["answer"] for name in ("versions", "run", "address", "nat", "relay", "clock")} == {"yes"}
    assert checks["daemon"]["said"].startswith("it is ")


def test_help_and_status_answer_at_once(founder: Daemon) -> None:
    """At once: long before a Python could have imported what the daemon itself is made of."""

    def seconds(command: list[str]) -> float:
        began = time.monotonic()
        subprocess.run(command, capture_output=True, check=True)
        return time.monotonic() - began

    torch = [sys.executable, "-c", "import torch"]
    commands = (torch, shoal("--help"), shoal("status", str(founder.state_dir)))
    taken = [[seconds(command) for command in commands] for _ in range(2)]  # side by side: what else runs slows all
    imported, helped, told = (min(each) for each in zip(*taken, strict=True))
    print(f"torch imported in {imported:.2f} s, shoal --help {helped:.2f} s, shoal status {told:.2f} s")
    assert helped < HELP_SHARE * imported and told < STATUS_SHARE * imported
