"""The state directory within its limit: what is for others goes first, and what is one's own never."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from configs.corpus import ShardInfo
from peer.corpus.data import BLOBS
from peer.member.disk import Disk

KB = 1024


class World:
    """A member that keeps a block and some text for others."""

    def __init__(self, folder: Path, disk_gb: float | None) -> None:
        self.folder, self.blocks, self.blobs = folder, folder / "blocks", folder / "corpus" / BLOBS
        for place in (self.blocks, self.blobs):
            place.mkdir(parents=True)
        self.own = self.write(self.blocks / "own.safetensors", 40)
        self.kept = self.write(self.blocks / "kept.safetensors", 100)
        self.mine, self.spare = self.write(self.blobs / "a", 40), self.write(self.blobs / "b", 60)
        shards = {name: ShardInfo.model_construct(content_id=name, tokens=1, size_bytes=1) for name in "ab"}
        domains = [SimpleNamespace(name=name, shards=[shard]) for name, shard in shards.items()]
        library: Any = SimpleNamespace(
            folder=folder / "corpus", domains=domains, trains=lambda strategy, sub_model: domains[:1]
        )
        self.store: Any = SimpleNamespace(kept=lambda: ["kept"] if self.kept.exists() else [], give_up=self.give_up)
        config = SimpleNamespace(state_dir=folder, disk_gb=disk_gb, keep_ticks=8)
        facts: Any = SimpleNamespace(me="me", config=config, strategy=None)
        self.storing = {"other"}
        membership: Any = SimpleNamespace(
            known_members=lambda tick: ("me", "other"), stores=lambda peer, block: peer in self.storing
        )
        session: Any = SimpleNamespace(sub_model="own")
        self.disk = Disk(facts, membership, self.store, session, library)

    @staticmethod
    def write(path: Path, kilobytes: int) -> Path:
        path.write_bytes(b"x" * kilobytes * KB)
        return path

    async def give_up(self, block: str) -> None:
        self.kept.unlink()

    def there(self) -> list[str]:
        return [path.name for path in (self.own, self.kept, self.mine, self.spare) if path.exists()]


def gb(kilobytes: int) -> float:
    return kilobytes * KB / 1e9


@pytest.mark.parametrize(
    ("kilobytes", "there", "is_warned"),
    [
        (1000, ["own.safetensors", "kept.safetensors", "a", "b"], False),
        (200, ["own.safetensors", "kept.safetensors", "a"], False),  # text of others goes first
        (150, ["own.safetensors", "a"], False),  # then blocks of others
        (50, ["own.safetensors", "a"], True),  # and one's own never
    ],
)
def test_what_is_for_others_goes_first(kilobytes: int, there: list[str], is_warned: bool, tmp_path: Path) -> None:
    world = World(tmp_path, gb(kilobytes))
    asyncio.run(world.disk.keep_within(8))
    assert world.there() == there
    assert bool(world.disk.present) is is_warned
    assert not is_warned or "raise the limit with `shoal limits --disk-gb N`" in world.disk.present


def test_the_last_copy_of_a_block_is_not_given_up(tmp_path: Path) -> None:
    world = World(tmp_path, gb(50))
    world.storing.clear()
    asyncio.run(world.disk.keep_within(8))
    assert world.kept.exists() and "a last copy" in world.disk.present


def test_a_new_limit_is_looked_at_with_the_next_tick(tmp_path: Path) -> None:
    world = World(tmp_path, None)
    assert not world.disk.is_due(100), "without a limit there is nothing to do"
    world.disk.limit(gb(50))
    assert world.disk.is_due(0)
    asyncio.run(world.disk.keep_within(0))
    assert world.disk.present and not world.disk.is_due(7) and world.disk.is_due(8)
    world.disk.limit(None)
    assert not world.disk.present and not world.disk.is_due(100)


def test_the_store_and_the_library_ask_the_same_room(tmp_path: Path) -> None:
    world = World(tmp_path, gb(1000))
    assert world.store.room is world.disk.room
    asyncio.run(world.disk.keep_within(8))
    left = 1000 * KB - world.disk.room.used_bytes
    assert world.disk.room.takes(left // 2) and world.disk.room.takes(left // 2)
    assert not world.disk.room.takes(KB), "what was let in counts before the next look"
