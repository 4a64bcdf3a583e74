"""What a folder takes, and whether more may come."""

import os
from pathlib import Path

from peer.block.room import Room, disk_bytes


def test_a_folder_takes_what_its_disk_says_and_a_file_with_two_names_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 100_000)
    alone = disk_bytes(tmp_path)
    assert 100_000 <= alone < 120_000
    os.link(tmp_path / "a" / "file", tmp_path / "other name")
    (tmp_path / "nowhere").symlink_to("/usr")
    assert disk_bytes(tmp_path) - alone < 4096
    assert disk_bytes(tmp_path / "not there") == 0


def test_without_a_limit_everything_may_come() -> None:
    room = Room()
    room.look()
    assert room.takes(10**15) and room.over_bytes == 0


def test_with_one_it_counts_what_was_let_in(tmp_path: Path) -> None:
    room = Room(tmp_path, 1e-6)
    room.look()
    assert room.is_known and room.takes(600) and not room.takes(600) and room.takes(400)
    room.disk_gb = 5e-7
    assert room.over_bytes == 500
