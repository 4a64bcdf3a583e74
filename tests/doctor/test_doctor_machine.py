"""What the doctor sees of this machine is what is there; it leaves it as it was."""

import resource
import socket
from pathlib import Path

import pytest

from configs.errors import StateError
from configs.machine import PeerConfig
from peer.doctor.facts import Descriptors, Devices, Disk, Memory, Unknown
from peer.doctor.machine import (
    look_at_daemon,
    look_at_descriptors,
    look_at_devices,
    look_at_disk,
    look_at_memory,
    look_at_port,
    look_at_run,
)
from peer.http.local import hold_state_dir


def test_a_state_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    config = PeerConfig(state_dir=tmp_path / "a" / "b")
    found = look_at_disk(config)
    assert isinstance(found, Disk)
    assert (found.path, found.is_writable) == (str(tmp_path), True) and found.free_bytes > 0
    for look in (look_at_daemon, look_at_run):
        assert isinstance(unknown := look(config), Unknown) and not unknown.is_fault
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_state_directory(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    found = look_at_disk(PeerConfig(state_dir=tmp_path / "state"))
    assert isinstance(found, Disk) and not found.is_writable and "a file" in found.problem


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = PeerConfig(host="127.0.0.1", port=server.getsockname()[1])
        found = look_at_port(taken)
        assert isinstance(found, Unknown) and found.is_fault and f"port {taken.port} is taken" in found.why
    assert look_at_port(taken) == taken.port


def test_a_daemon_that_holds_its_directory_and_says_nothing(tmp_path: Path) -> None:
    with hold_state_dir(tmp_path):
        found = look_at_daemon(PeerConfig(state_dir=tmp_path))
    assert isinstance(found, Unknown) and found.is_fault and "still starting" in found.why


def test_a_damaged_run_is_said(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    found = look_at_run(PeerConfig(state_dir=tmp_path))
    assert isinstance(found, Unknown) and found.is_fault and "run.json" in found.why
    with pytest.raises(StateError):  # as the daemon itself would
        from peer.member.entry import saved_spec

        saved_spec(tmp_path)


def test_devices_and_memory_are_those_that_training_sees(smallest_run) -> None:  # type: ignore[no-untyped-def]
    found = look_at_devices(PeerConfig(devices=("cpu",)))
    assert found == Devices(["cpu"])
    missing = look_at_devices(PeerConfig(devices=("cuda:99",)))
    assert isinstance(missing, Devices) and "cuda:99" in missing.problem
    fits = look_at_memory(PeerConfig(devices=("cpu",)), smallest_run())
    assert isinstance(fits, Memory) and fits.free_bytes > 0 and not fits.problem
    huge = {"vocab_size": 300, "hidden_size": 16_384, "num_layers": 120, "num_heads": 64, "num_kv_heads": 64}
    large = smallest_run(model={**huge, "mlp_size": 65_536, "context_length": 8})
    lacks = look_at_memory(PeerConfig(devices=("cpu",)), large)
    assert isinstance(lacks, Memory) and "million parameters would fit" in lacks.problem


def test_the_limit_on_open_files() -> None:
    found = look_at_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert isinstance(found, Descriptors)
    assert (found.soft, found.hard) == tuple(2**31 if n == resource.RLIM_INFINITY else n for n in (soft, hard))
