"""Checks the compose files without an engine. `run.sh`, beside this, checks the swarm itself with one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent.parent
FILES = ["docker-compose.yml", "docker-compose.gpu.yml"]


def read(file: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
    return content


@pytest.mark.parametrize("file", FILES)
def test_follows_the_compose_specification(file: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / file)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", FILES)
def test_suits_compose_1_29_and_2(file: str) -> None:
    content = read(file)
    assert not {"version", "name"} & set(content)
    assert not any("gpus" in service for service in content["services"].values())


def test_ports_are_published_on_loopback_only() -> None:
    services = read("docker-compose.yml")["services"].values()
    ports = [port for service in services for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_peers_can_be_scaled() -> None:
    peer = read("docker-compose.yml")["services"]["peer"]
    assert not {"container_name", "ports", "hostname"} & set(peer)
    assert peer["networks"] == ["swarm"]  # no fixed address


def test_state_lies_in_volumes() -> None:
    content = read("docker-compose.yml")
    for service in content["services"].values():
        [mount] = service["volumes"]
        volume, path = mount.split(":")
        assert volume in content["volumes"]
        assert path == "/state"
