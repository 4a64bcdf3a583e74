"""A published checkpoint is whole or the one before, is sent once, and gives the run back."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pushing import Saved
from servers import Server

from benchmarks.patience import until
from configs.errors import DataError, StateError, UsageError
from configs.outlets import Target, read_target
from peer.commands import publishing
from peer.member.entry import saved_records, saved_spec
from peer.publish.checkpoint import Item, Pushed, Snapshot, open_state_dir, push_checkpoint
from peer.publish.manifest import CHECKPOINT, MAX_MANIFEST_BYTES, read_checkpoint
from peer.publish.opening import open_place
from peer.publish.restore import holds_checkpoint, restore
from peer.visit.gather import Sources, gather

PART_BYTES = 1 << 12
Save = Callable[..., Saved]


@pytest.fixture(params=["folder", "s3", "hub"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    if request.param != "folder":
        request.getfixturevalue(request.param)
    root = {"folder": str(tmp_path / "there"), "s3": "s3://fish/there", "hub": "hf://me/fish"}[request.param]
    return read_target(root)


def push(folder: Path, target: Target, now: float = 1.0) -> Pushed:
    snapshot = open_state_dir(folder)
    place = open_place(target.below(snapshot.spec.run_id, snapshot.peer_id))
    return push_checkpoint(place, snapshot, now, folder, PART_BYTES)


def parts(target: Target) -> set[str]:
    return {name for name in open_place(target).sizes() if name.endswith(".bin")}


def test_a_run_comes_back_from_where_it_was_published(target: Target, saved: Save, tmp_path: Path) -> None:
    peer = saved()
    peer.advance()
    pushed = push(peer.folder, target)
    assert pushed.is_new and pushed.sent_parts > 10
    assert 40_000 < pushed.sent_bytes < pushed.total_bytes  # a momentum of zeros is sent once
    assert holds_checkpoint(target)
    again = tmp_path / "again"
    checkpoint = restore(target, again)
    assert (checkpoint.run_id, checkpoint.age) == (peer.entry.spec.run_id, 100)
    assert saved_spec(again) == peer.entry.spec and saved_records(again) == peer.entry.domain_records
    assert not {"identity.key", "address_book.json"} & {path.name for path in again.rglob("*")}
    assert not list(again.rglob(".*"))
    shutil.rmtree(peer.folder)
    for places in ([str(again)], [str(target)], [str(target.below(checkpoint.run_id))]):
        found = gather(Sources(places))
        assert found.blocks["model"].equal(peer.state.phi) and set(found.counts) == {"birds", "fish"}


def test_what_is_there_is_not_sent_again(target: Target, saved: Save) -> None:
    peer = saved()
    first = push(peer.folder, target)
    assert push(peer.folder, target) == Pushed(0, first.total_bytes, 0, is_new=False)
    before = parts(target)
    peer.advance()
    second = push(peer.folder, target, now=2.0)
    assert second.is_new and 0 < second.sent_bytes < first.sent_bytes
    assert before < parts(target)  # a reader of the checkpoint before finds all that it names
    peer.advance()
    push(peer.folder, target, now=3.0)
    assert not before <= parts(target)
    manifest = _manifest(target)
    there = {name.partition(f"{manifest.peer_id}/")[2] for name in parts(target)}
    assert {part.name for part in manifest.parts()} <= there


def test_a_push_that_is_killed_goes_on(s3: Server, saved: Save, tmp_path: Path) -> None:
    peer, target = saved(), read_target("s3://fish/there")
    s3.ask("/_stall/4", "PUT")
    command = [sys.executable, "-m", "peer", "push", str(peer.folder), str(target)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: s3.ask("/_log"), lambda put: len(put) == 4, "four parts that are put")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    s3.ask("/_stall/off", "PUT")
    assert not holds_checkpoint(target)
    with pytest.raises(UsageError, match=r"s3://fish/there holds no checkpoint; `shoal start --publish TARGET` pushes"):
        restore(target, tmp_path / "none")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "MB were new; fuse it with: shoal fuse s3://fish/there --out model" in done.stdout
    put = [name for name in s3.ask("/_log") if name.endswith(".bin")]
    assert len(put) <= len(set(put)) + 1  # the one on its way when it was killed
    restore(target, tmp_path / "again")
    assert gather(Sources([str(tmp_path / "again")])).blocks["model"].equal(peer.state.phi)


def test_a_restore_that_is_interrupted_is_no_state_directory_and_goes_on(
    saved: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, target = saved(), read_target(str(tmp_path / "there"))
    push(peer.folder, target)
    spoilt = next((tmp_path / "there").rglob("*.bin"))
    hidden, again = tmp_path / "hidden", tmp_path / "again"
    spoilt.rename(hidden)
    with pytest.raises(DataError, match="is not there: a newer checkpoint took its place; try again"):
        restore(target, again)
    assert saved_spec(again) is None
    hidden.rename(spoilt)
    assert restore(target, again).run_id == peer.entry.spec.run_id
    assert saved_spec(again) is not None


def test_a_damaged_part_is_found(saved: Save, tmp_path: Path) -> None:
    peer, target = saved(), read_target(str(tmp_path / "there"))
    push(peer.folder, target)
    part = max((tmp_path / "there").rglob("*.bin"), key=lambda path: path.stat().st_size)
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(DataError, match=r"parts/.*\.bin of .* is damaged where it was published; delete it, and push"):
        restore(target, tmp_path / "again")
    part.unlink()
    assert push(peer.folder, target).sent_parts == 1
    restore(target, tmp_path / "again")


def test_the_newest_state_of_each_block_is_taken(saved: Save, tmp_path: Path) -> None:
    peer, target = saved(), read_target(str(tmp_path / "there"))
    other = tmp_path / "other"
    shutil.copytree(peer.folder, other, ignore=shutil.ignore_patterns("identity.key"))
    from dht.identity import Identity

    Identity.load_or_create(other / "identity.key")
    newest = peer.advance()
    push(peer.folder, target, now=1.0)
    push(other, target, now=2.0)  # later, and of an older state
    assert gather(Sources([str(target)])).blocks["model"].equal(newest.phi)


def test_two_runs_below_one_target_are_told_apart(saved: Save, tmp_path: Path) -> None:
    one, target = saved("one"), read_target(str(tmp_path / "there"))
    push(one.folder, target)
    manifest = tmp_path / "there" / one.entry.spec.run_id / next((tmp_path / "there").glob("*/*")).name / CHECKPOINT
    table = json.loads(manifest.read_text())
    strange = tmp_path / "there" / ("0" * 32) / "peer" / CHECKPOINT
    strange.parent.mkdir(parents=True)
    strange.write_text(json.dumps({**table, "run_id": "0" * 32}))
    with pytest.raises(UsageError, match=rf"holds several runs \(0{{32}}, .*\): say which, as in {target}/0{{32}}"):
        restore(target, tmp_path / "again")
    assert restore(target.below(one.entry.spec.run_id), tmp_path / "again").run_id == one.entry.spec.run_id


@pytest.mark.parametrize(
    "change",
    [
        {"path": "../../etc/passwd"},
        {"path": "identity.key"},
        {"path": "blocks/../identity.key"},
        {"path": "blocks/.x"},
        {"path": "/run.json"},
        {"size_bytes": 1},
        {"content_id": "x"},
        {"version": -1},
    ],
)
def test_a_manifest_is_anybodys(change: dict[str, Any], saved: Save, tmp_path: Path) -> None:
    peer, target = saved(), read_target(str(tmp_path / "there"))
    push(peer.folder, target)
    (path,) = (tmp_path / "there").glob(f"*/*/{CHECKPOINT}")
    table = json.loads(path.read_text())
    table["files"][0] |= change
    path.write_text(json.dumps(table))
    with pytest.raises(DataError, match=rf"there/.*{CHECKPOINT} is no checkpoint that this version reads"):
        restore(target, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_file_that_changes_meanwhile_is_not_pushed(saved: Save, tmp_path: Path) -> None:
    peer = saved()
    spec, path = peer.entry.spec, tmp_path / "block"
    path.write_bytes(b"new")
    items = [Item("blocks/model.safetensors", path, "0" * 64, may_change=True)]
    place = open_place(read_target(str(tmp_path / "there")))
    with pytest.raises(StateError, match="has changed while it was read; it is pushed the next time"):
        push_checkpoint(place, Snapshot(spec, "me", 0, items), 1.0, tmp_path)
    assert place.read(CHECKPOINT, MAX_MANIFEST_BYTES) is None


def test_large_files_are_cut_into_parts(tmp_path: Path, saved: Save) -> None:
    spec, place = saved().entry.spec, open_place(read_target(str(tmp_path / "there")))
    data = np.random.default_rng(0).bytes(5 * PART_BYTES + 7)
    items = [Item("blocks/model.safetensors", data)]
    assert push_checkpoint(place, Snapshot(spec, "me", 0, items), 1.0, tmp_path, PART_BYTES).sent_parts == 6
    changed = data[: 4 * PART_BYTES] + os.urandom(PART_BYTES) + data[5 * PART_BYTES :]
    items = [Item("blocks/model.safetensors", changed)]
    assert push_checkpoint(place, Snapshot(spec, "me", 1, items), 2.0, tmp_path, PART_BYTES).sent_parts == 1
    restore(read_target(str(tmp_path / "there")), tmp_path / "again")
    assert (tmp_path / "again/blocks/model.safetensors").read_bytes() == changed


def test_no_state_directory_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run has been here; give a peer's state directory, or a fused model"):
        open_state_dir(tmp_path)


def _manifest(target: Target) -> Any:
    place = open_place(target)
    (name,) = (name for name in place.sizes() if name.endswith(CHECKPOINT))
    data = place.read(name, MAX_MANIFEST_BYTES)
    assert data is not None
    return read_checkpoint(data, name)


def test_the_commands_push_and_pull_a_checkpoint(
    saved: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peer, there, again = saved(), str(tmp_path / "there"), tmp_path / "again"
    publishing.push(peer.folder, there)
    assert f"MB were new; fuse it with: shoal fuse {there} --out model" in capsys.readouterr().out
    publishing.pull(there, again)
    assert f"go on with it with: shoal start --state-dir {again} --data CORPUS" in capsys.readouterr().out
    assert gather(Sources([str(again)])).blocks["model"].equal(peer.state.phi)
    with pytest.raises(UsageError, match="has a run already; choose another directory"):
        publishing.pull(there, again)
