"""State directories of other runs, and disks that fill up: one line, an end, and nothing is lost."""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mistake import MICRO, Daemon, mistake, running, shoal, the_line, until_status, while_running

from benchmarks.patience import HANG_S
from peer.block.saved import load_state
from peer.member.entry import saved_spec
from peer.train.outer import OuterState
from peer.train.partition import COMMON, Strategy

pytestmark = pytest.mark.swarm


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Hold an empty disk of `size`, as `mount` understands it, at `folder`; skips the test where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(disk: Path, size: str) -> None:
    """Free some space, as it were."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def checkpoint(state_dir: Path) -> OuterState | None:
    """Return the state that a daemon left, checked against its digest; None if there is none."""
    spec = saved_spec(state_dir)
    if spec is None:
        return None
    size = Strategy(spec.strategy.kind, 1).layout(COMMON, spec.model).size
    return load_state(state_dir / "blocks", COMMON, size)


def until_rounds(daemon: Daemon, count: int) -> None:
    until_status(daemon, lambda status: status.peers[0].rounds >= count, f"round {count}")


def versions(daemon: Daemon) -> list[int]:
    """Return the version of the block after each round that the daemon logged."""
    return [int(version) for version in re.findall(r"model round \d+: .*; version (\d+),", daemon.log)]


def test_the_state_of_another_run(founder: Daemon, corpus: Path, tmp_path: Path) -> None:
    start = shoal("start", "--config", MICRO, "--data", str(corpus))
    ran = []

    def during(daemon: Daemon) -> None:
        ran.append(daemon)
        until_rounds(daemon, 2)

    assert while_running(start, tmp_path / "s", during, SHOAL_RUN__SEED="1") == 0
    other = ran[0]
    assert other.run_id != founder.run_id
    before = contents(other.state_dir)
    assert "blocks/model.safetensors" in before
    join = ("join", founder.address, "--state-dir", str(other.state_dir))
    for given in ([], ["--run", founder.run_id], ["--run", other.run_id]):
        said = mistake(*join, *given)
        assert founder.run_id in said and other.run_id in said
        assert "--state-dir" in said or given == ["--run", other.run_id]
        assert contents(other.state_dir) == before


@pytest.mark.parametrize("size", ["4k", *(pytest.param(size, marks=pytest.mark.long) for size in ("300k", "700k"))])
def test_a_disk_that_is_too_small_to_join(founder: Daemon, tmp_path: Path, size: str) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        command, state_dir = shoal("join", founder.address), disk / "s"
        said = mistake("join", founder.address, "--state-dir", str(state_dir))
        assert "full" in said and "free" in said
        checkpoint(state_dir)
        assert not [path for path in disk.rglob("*") if path.suffix == ".part"]
        enlarge(disk, "8m")
        assert while_running(command, state_dir, lambda joiner: until_rounds(joiner, 1)) == 0


def test_a_disk_that_fills_up_in_mid_run(corpus: Path, tmp_path: Path) -> None:
    command = shoal("start", "--config", MICRO, "--data", str(corpus))
    with small_disk(tmp_path / "disk", "4m") as disk:
        filler = disk / "filler"
        with running(command, disk / "s") as daemon:
            until_rounds(daemon, 2)
            began = time.monotonic()
            assert daemon.process is not None
            with filler.open("ab", buffering=0) as file:
                while daemon.process.poll() is None:  # a checkpoint that replaces another gives its space back
                    assert time.monotonic() < began + HANG_S, f"it lives on with a full disk: {daemon.log[-3000:]}"
                    with contextlib.suppress(OSError):
                        file.write(bytes(4096))
                        continue
                    time.sleep(0.01)
            print(f"gone {time.monotonic() - began:.1f} s after the disk began to fill up")
        assert daemon.process.returncode == 1
        said = the_line(daemon.log)
        assert "full" in said and "what was saved is intact" in said
        saved = checkpoint(daemon.state_dir)
        # A round is logged when all of its files are written; its state may be, and a later file not.
        assert saved is not None and saved.version - versions(daemon)[-1] in (0, 1)
        assert not [path for path in disk.rglob("*") if path.suffix == ".part"]
        filler.unlink()
        assert while_running(command, daemon.state_dir, lambda again: until_rounds(again, 2)) == 0
        assert versions(daemon)[0] == saved.version + 1
