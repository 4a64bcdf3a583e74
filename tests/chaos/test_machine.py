"""A disk and a clock of one's own do what they say; what a play has started is found again."""

import errno
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from peer.chaos.daemons import Daemon, is_since
from peer.chaos.faults import damage, follow
from peer.chaos.links import forbidden
from peer.chaos.machine import MARK, Disk, build_clock, left_behind, tree

needs_namespaces = pytest.mark.skipif(forbidden() is not None, reason=str(forbidden()))


@needs_namespaces
def test_a_disk_can_be_full_and_read_only_and_is_gone_in_the_end(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk", 1)
    (disk.inside / "file").write_bytes(b"1")
    assert not list((tmp_path / "disk").iterdir())  # only who enters sees it
    disk.fill()
    with pytest.raises(OSError) as full:
        (disk.inside / "more").write_bytes(bytes(1 << 13))
    assert full.value.errno == errno.ENOSPC
    disk.free()
    (disk.inside / "more").write_bytes(bytes(1 << 13))
    with (disk.inside / "open").open("a"):
        disk.seal(is_sealed=True)
        with pytest.raises(OSError) as sealed:
            (disk.inside / "more").write_bytes(b"")
        assert sealed.value.errno == errno.EROFS
        disk.seal(is_sealed=False)
    (disk.inside / "more").write_bytes(b"")
    inside = disk.inside
    disk.close()
    assert not inside.exists()


@needs_namespaces
def test_a_disk_on_which_somebody_always_writes_can_be_sealed(tmp_path: Path) -> None:
    disk, ended = Disk(tmp_path / "disk", 1), threading.Event()

    def write() -> None:
        while not ended.is_set():
            with suppress(OSError), (disk.inside / "file").open("wb"):
                time.sleep(0.0005)  # and open for most of the time

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            disk.seal(is_sealed=True)
            with pytest.raises(OSError) as sealed:
                (disk.inside / "more").write_bytes(b"")
            assert sealed.value.errno == errno.EROFS
            disk.seal(is_sealed=False)
    finally:
        ended.set()
        writer.join()
        disk.close()


def test_a_file_of_a_process_that_had_the_same_id_long_ago_is_not_counted(tmp_path: Path) -> None:
    file = tmp_path / "torch_123_0"
    assert not is_since(file, 0.0)
    file.touch()
    assert is_since(file, file.stat().st_ctime) and not is_since(file, file.stat().st_ctime + 1.0)


def test_a_clock_is_set_while_a_process_runs(tmp_path: Path) -> None:
    daemon = Daemon("clocked", tmp_path, None, 0)
    daemon.own_clock(build_clock(tmp_path))
    code = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **daemon.environment}, stdin=pipe, stdout=pipe, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None

        def ask() -> tuple[float, float]:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write("\n")
            child.stdin.flush()
            wall, steady = child.stdout.readline().split()
            return float(wall) - time.time(), float(steady) - time.monotonic()

        for ahead_s in (0.0, 420.25, -420.25):
            daemon.set_clock(ahead_s)
            wall_s, steady_s = ask()
            assert wall_s == pytest.approx(ahead_s, abs=0.2) and steady_s == pytest.approx(0.0, abs=0.2)
        child.stdin.close()


def test_what_a_play_has_started_is_found_by_its_mark(tmp_path: Path) -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    environment = {**os.environ, MARK: str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(tree(parent.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert set(left_behind(tmp_path)) == tree(parent.pid) and len(tree(parent.pid)) == 2
    assert left_behind(tmp_path / "other") == []
    assert parent.stdin is not None
    parent.stdin.close()
    parent.wait()


def test_a_file_is_damaged_in_place(tmp_path: Path) -> None:
    import random

    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    damage(path, "corrupt", random.Random(1))
    assert len(path.read_bytes()) == 1000 and 150 < sum(byte != 0 for byte in path.read_bytes()) < 300
    damage(path, "truncate", random.Random(1))
    assert len(path.read_bytes()) == 500
    damage(tmp_path / "none", "truncate", random.Random(1))


@pytest.mark.parametrize(
    ("said", "moved"),
    [
        ("{}/run.json is damaged (it is cut off); move it away and join again", "run.json"),
        ("{}/blocks/model.residual is damaged (x); move it away: what this peer had", "blocks/model.residual"),
        ("{}/peer.json is damaged (x); delete it: it only holds", "peer.json"),
        ("{}/run.json is damaged (x); give another --state-dir", ""),
        ("{}/none.json is damaged (x); move it away", ""),
        ("the port is taken; move it away", ""),
    ],
)
def test_what_a_refusal_advises_about_a_file_is_done(tmp_path: Path, said: str, moved: str) -> None:
    daemon = Daemon("a", tmp_path, None, 0)
    for name in ("run.json", "blocks/model.residual", "peer.json"):
        (daemon.files / name).parent.mkdir(parents=True, exist_ok=True)
        (daemon.files / name).touch()
    assert follow(daemon, said.format(daemon.state_dir)) == moved
    assert not moved or not (daemon.files / moved).exists()
