"""Publishing goes on behind training: it waits for nobody's round, within the cap, and its failures end nothing."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pushing import Saved
from servers import Server

from configs.machine import PeerConfig
from configs.outlets import Every, read_target
from peer.member.chronicle import Chronicle
from peer.publish.publisher import RETRY_S, Mark, Publisher, is_due
from peer.publish.restore import holds_checkpoint, restore
from protocols.traffic import UP_SHARE, Traffic

Save = Callable[..., Saved]
ME = "12D3KooWGRUfqbiLJwwAzd3rYH5kdcF7mHhAaBbCcDdEeFAAAAAA"


def test_when_to_push() -> None:
    minutes, rounds = Every(30, "minutes"), Every(20, "rounds")
    assert not is_due(minutes, 10.0, 0, None) and is_due(minutes, 10.0, 1, None) and is_due(rounds, 10.0, 1, None)
    last = Mark(at=1000.0, rounds=5)
    assert not is_due(minutes, 2799.0, 500, last) and is_due(minutes, 2800.0, 5, last)
    assert not is_due(rounds, 1e9, 24, last) and is_due(rounds, 1000.0, 25, last)


def publisher(peer: Saved, target: str) -> tuple[Publisher, Chronicle]:
    chronicle = Chronicle(peer.folder)
    chronicle.rounds = 1
    config = PeerConfig(state_dir=peer.folder, publish=target)
    return Publisher(config, ME, peer.store, peer.entry.library, chronicle), chronicle


async def settled(publishing: Publisher, traffic: Traffic, now: float = 1000.0) -> None:
    async with asyncio.TaskGroup() as tasks:
        publishing.consider(now, traffic, tasks)
        publishing.consider(now, traffic, tasks)  # one at a time


def test_a_peer_publishes_from_memory_and_disk(saved: Save, tmp_path: Path) -> None:
    peer = saved()
    left = peer.folder / ".publish-x" / "block"
    left.parent.mkdir()
    left.write_text("of one that was killed")
    publishing, chronicle = publisher(peer, str(tmp_path / "there"))
    assert not left.exists()
    newer = peer.advance()
    replica = SimpleNamespace(state=newer, previous=None, block="model")  # as one in training
    peer.store.replicas["model"] = cast(Any, replica)
    asyncio.run(settled(publishing, Traffic()))
    assert publishing.warning == "" and "published" in chronicle.events[-1]
    checkpoint = restore(read_target(str(tmp_path / "there")), tmp_path / "again")
    assert (checkpoint.peer_id, checkpoint.age) == (ME, 100)
    asyncio.run(settled(publishing, Traffic(), now=1001.0))  # it is not due
    assert len([event for event in chronicle.events if "published" in event]) == 1


def test_nothing_is_published_without_a_target(saved: Save) -> None:
    peer = saved()
    config = PeerConfig(state_dir=peer.folder)
    publishing = Publisher(config, ME, peer.store, peer.entry.library, Chronicle(peer.folder))
    asyncio.run(settled(publishing, Traffic()))
    assert publishing.warning == ""


def test_a_failure_is_said_once_and_tried_again(saved: Save, tmp_path: Path) -> None:
    peer = saved()
    (tmp_path / "there").write_text("a file")
    publishing, chronicle = publisher(peer, str(tmp_path / "there"))
    asyncio.run(settled(publishing, Traffic()))
    assert publishing.warning.startswith("no checkpoint is published: cannot write")
    assert publishing.warning.endswith("tried again in a minute")
    asyncio.run(settled(publishing, Traffic(), now=1001.0))
    (tmp_path / "there").unlink()
    asyncio.run(settled(publishing, Traffic(), now=1000.0 + RETRY_S))
    assert publishing.warning == "" and holds_checkpoint(read_target(str(tmp_path / "there")))
    assert [event.split()[1] for event in chronicle.events] == ["no", "published"]


def test_what_is_sent_keeps_the_cap_and_blocks_nothing(s3: Server, saved: Save) -> None:
    peer = saved()
    size = sum(path.stat().st_size for path in peer.folder.rglob("*.safetensors"))
    mbit = size * 8 / 1e6 / 2  # the block alone takes two seconds
    traffic = Traffic(up_mbit=mbit)
    publishing, chronicle = publisher(peer, "s3://fish/there")
    lags: list[float] = []

    async def main() -> float:
        async def beat() -> None:
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.01)
                lags.append(time.monotonic() - began - 0.01)

        beating = asyncio.ensure_future(beat())
        began = time.monotonic()
        await settled(publishing, traffic)
        beating.cancel()
        return time.monotonic() - began

    elapsed_s = asyncio.run(main())
    assert publishing.warning == "" and "published" in chronicle.events[-1]
    assert traffic.bytes_out >= size
    assert elapsed_s >= 0.9 * traffic.bytes_out * 8 / 1e6 / (UP_SHARE * mbit)
    assert sorted(lags)[len(lags) * 9 // 10] < 0.25


def test_leaving_waits_for_no_transfer(s3: Server, saved: Save) -> None:
    peer = saved()
    s3.ask("/_stall/2", "PUT")
    publishing, _ = publisher(peer, "s3://fish/there")

    async def main() -> float:
        task = asyncio.ensure_future(settled(publishing, Traffic()))
        while len(await asyncio.to_thread(s3.ask, "/_log")) < 2:
            await asyncio.sleep(0.05)
        began = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        return time.monotonic() - began

    assert asyncio.run(main()) < 5.0
    s3.ask("/_stall/off", "PUT")
    assert not holds_checkpoint(read_target("s3://fish/there"))
