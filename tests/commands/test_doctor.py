"""What `shoal doctor` prints, and how it ends."""

import json
import socket
from pathlib import Path

import pytest

from peer.commands.doctor import run
from peer.commands.main import main


def test_it_says_what_is_right_and_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = main(["doctor", "--state-dir", str(tmp_path / "state"), "--host", "127.0.0.1", "--port", str(port)])
    said = capsys.readouterr().out
    assert code == 1
    assert f"no          port        port {port} is taken" in said
    assert "→ end the program that has it" in said
    assert "not checked reachable   give the address of a peer: shoal doctor ADDR" in said
    assert said.rstrip().endswith("not known without an address")


def test_as_json_nothing_wrong_is_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(None, as_json=True, state_dir=tmp_path, host="127.0.0.1", port=0) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["is_well"] is True
    assert {check["answer"] for check in said["checks"]} <= {"yes", "not checked"}


def test_settings_that_are_damaged_are_one_of_its_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "machine.json").write_text("{")
    assert run(None, as_json=True, state_dir=tmp_path, host="127.0.0.1", port=0) == 1
    wrong = [check for check in json.loads(capsys.readouterr().out)["checks"] if check["answer"] == "no"]
    assert [check["name"] for check in wrong] == ["settings"]
    assert "machine.json" in wrong[0]["said"]


def test_what_is_no_address_is_said_before_anything_is_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "203.0.113.7:4000"]) == 2
    assert "write /ip4/203.0.113.7/tcp/4000/p2p/" in capsys.readouterr().err
