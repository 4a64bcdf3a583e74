"""Whoever reads a file, now or after a crash, finds the old content or the new."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from configs.errors import StateError
from configs.files import LARGE_BYTES, read_bytes, read_json, write_file, write_json
from peer.train.checkpoint import read_tensors, same, write_tensors

Break = Callable[[BaseException], None]


@pytest.fixture
def break_disk(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Let whatever is written from now on fail before it is safe on the disk."""

    def break_(error: BaseException) -> None:
        def fsync(descriptor: int) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fsync)

    return break_


def test_a_file_appears_whole_with_its_folder_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for content in (b"first", b"", bytearray(b"second"), memoryview(b"third")):
        write_file(path, content)
        assert path.read_bytes() == bytes(content) == read_bytes(path)
    assert list(path.parent.iterdir()) == [path]
    assert read_bytes(tmp_path / "none") is None


def test_what_is_read_while_it_is_replaced_is_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "file", []
    write_file(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append((path.read_bytes(), os.fstat(descriptor).st_size)))
    write_file(path, b"newer")
    assert seen[0] == (b"old", 5)  # all of the new content is synced before it takes the name
    assert path.read_bytes() == b"newer"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_content(tmp_path: Path, break_disk: Break, code: int) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    break_disk(OSError(code, os.strerror(code)))
    with pytest.raises(StateError, match=r"is full.*; free at least 3 MiB.*intact") as error:
        write_file(path, bytes(3 << 20))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"old"]


def test_a_kill_leaves_the_old_content_and_does_not_hinder_the_next_write(tmp_path: Path, break_disk: Break) -> None:
    path = tmp_path / "file"
    write_file(path, b"old")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_file(path, b"never")
    assert path.read_bytes() == b"old"
    write_file(path, b"new")
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [b"new"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateError, match=r"cannot write .*: File exists"):
        write_file(tmp_path / "file" / "below", b"x")


def test_the_name_of_a_file_is_durable_when_it_has_been_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut must not bring the old one back: its folder is synced after the name was taken."""
    fsync, synced = os.fsync, list[bytes]()

    def watch(descriptor: int) -> None:
        fsync(descriptor)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", watch)
    path = tmp_path / "file"
    for content in (b"small", b"smaller", bytes(LARGE_BYTES), bytes(LARGE_BYTES + 1)):
        write_file(path, content)
        assert synced.pop() == content and not synced


def test_a_new_file_is_written_over_no_other(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in (b"first", b"second"):
        write_file(path, content, mode=0o600, is_new=True)
        assert path.read_bytes() == b"first" and path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_json_reads_back_and_damage_has_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    assert read_json(path) is None
    write_json(path, {"b": 1, "a": ["ü", None]})
    assert read_json(path) == {"a": ["ü", None], "b": 1}
    for damaged in (b"", b'{"a": 1', b"[1]", b"\xff"):
        path.write_bytes(damaged)
        with pytest.raises(StateError, match="move it away"):
            read_json(path)


def test_tensors_read_back_bit_by_bit_and_damage_has_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "tensors"
    assert read_tensors(path) is None
    values = torch.tensor([0.0, -0.0, 1e-45, 3e38])
    write_tensors(path, {"x": values, "n": torch.arange(3, dtype=torch.uint8)}, {"fact": "1"})
    found = read_tensors(path)
    assert found is not None
    tensors, facts = found
    assert same(tensors["x"], values) and tensors["n"].tolist() == [0, 1, 2] and facts == {"fact": "1"}
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"fact": "1"}
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StateError, match="move it away"):
        read_tensors(path)


@pytest.mark.parametrize("size", [LARGE_BYTES // 8, LARGE_BYTES // 4 + 1])  # both sides of what is written over
def test_what_was_read_stays_what_it_was_when_the_file_is_written_again(tmp_path: Path, size: int) -> None:
    path = tmp_path / "tensors"
    write_tensors(path, {"x": torch.full((size,), 1.0)}, {})
    found = read_tensors(path)
    assert found is not None
    for value in (2.0, 3.0, 4.0):
        write_tensors(path, {"x": torch.full((size,), value)}, {})
    assert same(found[0]["x"], torch.full((size,), 1.0))


def test_the_same_values_need_not_be_the_same_bits() -> None:
    assert not same(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert same(torch.tensor([torch.nan]), torch.tensor([torch.nan]))


def test_a_large_file_s_last_content_is_the_spare_that_is_written_over(tmp_path: Path) -> None:
    path, size = tmp_path / "state", LARGE_BYTES
    for number in range(1, 6):
        content = bytes([number]) * (size + number % 3)
        write_file(path, content)
        assert path.read_bytes() == content
        assert len(list(tmp_path.iterdir())) == min(number, 2)
    first = {entry.stat().st_ino for entry in tmp_path.iterdir()}
    write_file(path, bytes(size))
    assert {entry.stat().st_ino for entry in tmp_path.iterdir()} == first


@pytest.mark.parametrize("call", ["link", "replace", "fsync"])
def test_a_kill_anywhere_in_a_large_write_leaves_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path, old, new = tmp_path / "state", b"o" * LARGE_BYTES, b"n" * LARGE_BYTES
    write_file(path, b"x" * LARGE_BYTES)
    write_file(path, old)
    for after in range(3):
        with monkeypatch.context() as patch:
            owner = Path if call == "replace" else os
            real, calls = getattr(owner, call), iter(range(10))

            def killed(*arguments: object, real: Callable[..., object] = real, calls: Iterator[int] = calls) -> object:
                if next(calls) == after:  # noqa: B023
                    raise KeyboardInterrupt
                return real(*arguments)

            patch.setattr(owner, call, killed)
            with suppress(KeyboardInterrupt):
                write_file(path, new)
        assert path.read_bytes() in (old, new)
        write_file(path, old)
        assert path.read_bytes() == old
