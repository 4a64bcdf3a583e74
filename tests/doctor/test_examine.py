"""All looks together: side by side, each with its deadline, and a mistake of ours is not swallowed."""

import threading
from pathlib import Path

import pytest
from loop import in_loop

from configs.errors import UsageError
from configs.machine import PeerConfig
from peer.doctor import examine as doctor
from peer.doctor import machine, outside
from peer.doctor.examine import examine
from peer.doctor.facts import Disk, Unknown
from peer.doctor.verdicts import checks


@in_loop
async def test_without_an_address_it_looks_at_this_machine_alone(tmp_path: Path) -> None:
    facts = await examine(PeerConfig(state_dir=tmp_path / "state", host="127.0.0.1"), None)
    assert facts.outside.way == outside.NO_ADDRESS
    assert isinstance(facts.machine.disk, Disk)
    assert not [check for check in checks(facts) if check.answer == "no"]
    assert not list(tmp_path.iterdir())


@in_loop
async def test_a_disk_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = threading.Event()
    monkeypatch.setattr(doctor, "PROBE_S", 0.2)
    monkeypatch.setattr(machine, "look_at_disk", lambda config: hung.wait(60))
    try:
        facts = await examine(PeerConfig(state_dir=tmp_path, devices=("cpu",)), None)
    finally:
        hung.set()
    assert isinstance(facts.machine.disk, Unknown) and "did not answer" in facts.machine.disk.why


@in_loop
async def test_what_is_no_address_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        await examine(PeerConfig(state_dir=tmp_path, host="127.0.0.1"), "203.0.113.7:4000")
    assert caught.group_contains(UsageError, match="is not a multiaddr")
