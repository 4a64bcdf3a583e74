"""Daemons that start again without a flag go on as they were told; who joins hears what the founder suggests."""

import json
import socket
import sys
from pathlib import Path

import pytest
from mistake import MICRO, Daemon, running, while_running

from configs.kept import MACHINE_FILE
from peer.member.entry import HINTS_FILE

START, JOIN = ([sys.executable, "-m", "peer", command] for command in ("start", "join"))

pytestmark = [pytest.mark.swarm, pytest.mark.timeout(240)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_settings_and_hints_stay_with_the_machines(corpus: Path, tmp_path: Path) -> None:
    preset = tmp_path / "hinting.toml"
    preset.write_text(Path(MICRO).read_text() + "\n[peer]\nthreads = 1\ncopies = 2\n")
    port = free_port()
    local = ["--host", "127.0.0.1"]
    given = [*local, "--threads", "2", "--port", str(port), "--data", str(corpus)]
    founders = []

    def found(daemon: Daemon) -> None:
        founders.append(daemon)
        assert "suggests" not in daemon.log and "kept settings" not in daemon.log
        assert (tmp_path / "founder" / "blocks" / "model.safetensors").exists()  # the run's beginning

    assert while_running([*START, "--config", str(preset), *given], tmp_path / "founder", found) == 0
    founder = founders[0]
    kept = json.loads((tmp_path / "founder" / MACHINE_FILE).read_text())
    assert kept == {"copies": 2, "data": str(corpus), "host": "127.0.0.1", "port": port, "threads": 2}
    with running(START, tmp_path / "founder") as again:
        assert again.address == founder.address and again.run_id == founder.run_id
        assert f"copies 2, data {corpus}, host 127.0.0.1, port {port}, threads 2" in again.log

        def join(joiner: Daemon) -> None:
            assert "the run's founder suggests threads 1, copies 2" in joiner.log

        assert while_running([*JOIN, again.address, *local], tmp_path / "joiner", join) == 0
    assert json.loads((tmp_path / "joiner" / HINTS_FILE).read_text()) == {"threads": 1, "copies": 2}
    assert json.loads((tmp_path / "joiner" / MACHINE_FILE).read_text()) == {"host": "127.0.0.1"}
