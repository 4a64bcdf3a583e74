"""Checks the compose file of the small Spark cluster and HDFS without an engine."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from peer.prepare.cluster import MASTER

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "spark"
FILE = FOLDER / "docker-compose.yml"


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return read


def test_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_suits_compose_1_29_and_2(content: dict[str, Any]) -> None:
    assert not {"version", "name"} & set(content)


def test_brings_a_cluster_of_two_workers_and_an_hdfs(content: dict[str, Any]) -> None:
    assert set(content["services"]) == {"master", "worker1", "worker2", "namenode", "datanode", "shoal"}
    for name in ("worker1", "worker2"):
        assert MASTER.fullmatch(content["services"][name]["command"][-1])


def test_only_pages_are_published_and_on_loopback(content: dict[str, Any]) -> None:
    ports = [port for service in content["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 2
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_all_that_run_our_code_have_one_image(content: dict[str, Any]) -> None:
    services = content["services"]
    assert {services[name]["image"] for name in ("master", "worker1", "worker2", "shoal")} == {"shoal-spark"}
    file = (FOLDER.parent.parent / services["shoal"]["build"]["dockerfile"]).read_text()
    assert "--constraint /tmp/constraints.txt" in file
