import json
import os
import tempfile
from pathlib import Path

import pytest

from configs.errors import StateError, UsageError
from configs.temporary import MOST_BYTES, note_temporary, remove_noted, take_short_folder

GONE = 2**22 + 1  # no process has so high a number


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def noted_by(pid: int, note: Path, *paths: Path) -> None:
    note_temporary(note, paths)
    note.write_text(json.dumps(json.loads(note.read_text()) | {"pid": pid}))


def test_what_a_killed_process_has_noted_is_removed_by_the_next(place: Path) -> None:
    folder, socket = place / "shoal-abc", place / "hivemind-p2pd-abc.sock"
    (folder / "inside").mkdir(parents=True)
    socket.touch()
    noted_by(GONE, place / "note", folder, socket)
    with remove_noted(place / "note"):
        assert not folder.exists() and not socket.exists()
        note_temporary(place / "note", [])
    assert not (place / "note").exists()


def test_a_note_removes_nothing_but_temporary_files_of_ours(place: Path) -> None:
    foreign, elsewhere = place / "photos", place / "deeper" / "shoal-abc"
    elsewhere.mkdir(parents=True)
    foreign.mkdir()
    linked = place / "shoal-link"
    linked.symlink_to(foreign)
    (foreign / "cat").touch()
    noted_by(GONE, place / "note", foreign, elsewhere, linked, place / "shoal-x" / ".." / "photos")
    with remove_noted(place / "note"):
        assert (foreign / "cat").exists() and elsewhere.exists() and not linked.is_symlink()


@pytest.mark.parametrize("error", [StateError, RuntimeError])
def test_a_mistake_leaves_no_note_and_a_crash_does(place: Path, error: type[Exception]) -> None:
    with pytest.raises(error), remove_noted(place / "note"):
        note_temporary(place / "note", [])
        raise error("it ends")
    assert (place / "note").exists() == (error is RuntimeError)


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid()], ids=["own", "parent"])
def test_what_a_living_process_has_noted_stays(place: Path, pid: int) -> None:
    """Of one that runs, too: the note may be one in a copy of its state directory."""
    folder = place / "pymp-abc"
    folder.mkdir()
    noted_by(pid, place / "note", folder)
    with remove_noted(place / "note"):
        assert folder.exists()


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"pid": "x", "paths": []}', '{"pid": 1, "paths": 3}'])
def test_a_damaged_note_is_passed_over(place: Path, damage: str) -> None:
    (place / "note").write_text(damage)
    with remove_noted(place / "note"):
        pass
    assert not (place / "note").exists()


def test_sockets_get_a_short_folder_and_children_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("t" * 150)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(long))
    assert tempfile.gettempdir() == str(long)
    take_short_folder()
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == "/tmp"
    take_short_folder()
    assert tempfile.gettempdir() == "/tmp"


def test_a_folder_that_is_short_enough_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * (MOST_BYTES - 1))
    take_short_folder()
    assert tempfile.tempdir == "/" + "t" * (MOST_BYTES - 1)


def test_where_nothing_short_can_be_written_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * MOST_BYTES)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match=f"set TMPDIR to a folder whose path has at most {MOST_BYTES} bytes"):
        take_short_folder()
