"""Limits that change while a peer runs: checked, kept, and told to those who keep to them."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.errors import ConfigError, DeviceError
from configs.limits import Limits
from configs.machine import PeerConfig
from configs.run import RunSpec
from peer.block.room import Room
from peer.member.bounds import Bounds
from protocols.traffic import UP_SHARE, Traffic


@pytest.fixture
def world(tmp_path: Path, smallest_run: Callable[..., RunSpec]) -> Any:
    told: list[Any] = []
    config = PeerConfig(state_dir=tmp_path, up_mbit=5, port=4001, devices=("cpu",))
    facts: Any = SimpleNamespace(config=config, spec=smallest_run())
    workers: Any = SimpleNamespace(limit=lambda gb: told.append(("memory", gb)))
    disk: Any = SimpleNamespace(limit=lambda gb: told.append(("disk", gb)), room=Room(), present="")
    traffic = Traffic(5, None)
    (tmp_path / "machine.json").write_text('{"port": 4001, "later": 1}')
    bounds = Bounds(facts, traffic, workers, disk)
    return SimpleNamespace(bounds=bounds, told=told, traffic=traffic, kept=tmp_path / "machine.json")


def change(world: Any, **limits: Any) -> None:
    asyncio.run(world.bounds.change(json.dumps(limits).encode()))


def test_it_begins_with_what_the_machine_was_told(world: Any) -> None:
    assert world.bounds.now == Limits(up_mbit=5)
    assert world.bounds.told()["up_mbit"]["value"] == 5 and world.bounds.told()["up_mbit"]["now"] == ""


def test_a_change_holds_at_once_and_is_kept(world: Any) -> None:
    change(world, up_mbit=8, down_mbit=16, hours="22:00-07:00")
    assert world.traffic.up.bytes_per_s == UP_SHARE * 1e6 and world.traffic.down.bytes_per_s == 2e6
    assert world.traffic.down_mbit == 16
    assert world.bounds.changed.is_set() and world.told == []
    change(world, up_mbit=None, disk_gb=3, memory_gb=2)
    assert world.traffic.up.bytes_per_s is None and world.told == [("disk", 3.0), ("memory", 2.0)]
    assert json.loads(world.kept.read_text()) == {
        "port": 4001,
        "later": 1,
        "up_mbit": None,
        "down_mbit": 16,
        "hours": "22:00-07:00",
        "disk_gb": 3,
        "memory_gb": 2,
    }


def test_the_same_again_starts_no_worker_anew(world: Any) -> None:
    change(world, memory_gb=2)
    change(world, memory_gb=2, disk_gb=None)
    assert world.told == [("memory", 2.0)]


@pytest.mark.parametrize(
    ("limits", "error", "says"),
    [
        ({"memory_gb": 0.2}, DeviceError, "memory_gb 0.2 is too little: a worker of this run needs 0.50 GB"),
        ({"up_mbit": -1}, ConfigError, "the limits: up_mbit = -1: Input should be greater than 0"),
        ({"port": 1}, ConfigError, "the limits: port: no such key"),
        ({"pause_above_cpu": 1.5}, ConfigError, "less than 1"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    world: Any, limits: dict[str, Any], error: type[Exception], says: str
) -> None:
    before = world.kept.read_text()
    with pytest.raises(error, match=says):
        change(world, **limits, down_mbit=1)
    assert world.bounds.now == Limits(up_mbit=5) and world.told == [] and world.kept.read_text() == before


def test_what_is_seen_of_the_machine_stands_beside(world: Any) -> None:
    world.bounds.seen = {"pause_on_gpu_use": "not checked: pip install 'shoal[gpu]' (nvidia-ml-py)"}
    assert world.bounds.told()["pause_on_gpu_use"]["now"].startswith("not checked")
