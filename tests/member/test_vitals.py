"""What a peer sees of its machine while it works."""

from pathlib import Path

import pytest

from configs.run import RunSpec
from peer.member.vitals import (
    BUSY_LOOKS,
    FOLDER_S,
    LEAST_DISK_BYTES,
    LOOK_S,
    Looker,
    memory_of_family,
    needed_disk_bytes,
    size_of,
)


def test_a_look_finds_the_disk_the_memory_and_the_folder(tmp_path: Path) -> None:
    now = [1000.0]
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 1234)
    looker = Looker(tmp_path, lambda: now[0])
    assert looker.is_due() and looker.vitals.disk_free_bytes is None
    looker.look()
    assert not looker.is_due()
    vitals = looker.vitals
    assert vitals.disk_bytes == 1234 == size_of(tmp_path)
    assert vitals.disk_free_bytes and vitals.memory_free_bytes and vitals.memory_bytes > 10 << 20
    (tmp_path / "other").write_bytes(b"y")
    now[0] += LOOK_S
    assert looker.is_due()
    looker.look()
    assert looker.vitals.disk_bytes == 1234, "it walks through the folder now and then only"
    now[0] += FOLDER_S
    looker.look()
    assert looker.vitals.disk_bytes == 1235


def test_what_others_take_of_the_cores_is_told_after_as_many_looks_as_make_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = iter([None, 1.0, *[0.4] * BUSY_LOOKS])
    looker = Looker(tmp_path)
    monkeypatch.setattr("peer.member.cores.OtherPrograms.look", lambda self, cores: next(shares))
    told = []
    for _ in range(BUSY_LOOKS + 2):
        looker.look()
        told.append(looker.vitals.taken_share)
    assert told[:-2] == [None] * BUSY_LOOKS
    assert told[-2:] == [pytest.approx(0.5), pytest.approx(0.4)]


def test_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    looker = Looker(tmp_path / "gone")
    looker.look()
    assert looker.vitals.disk_free_bytes is None and looker.vitals.disk_bytes == 0


def test_a_large_model_needs_more_disk(smallest_run: object) -> None:
    assert needed_disk_bytes(None) == LEAST_DISK_BYTES
    assert memory_of_family() > 0


@pytest.mark.parametrize("hidden", [64, 2048])
def test_what_a_state_needs_is_counted(hidden: int, smallest_run: object) -> None:
    spec: RunSpec = smallest_run(  # type: ignore[operator]
        model={
            "vocab_size": 258, "hidden_size": hidden, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1,
            "mlp_size": 4 * hidden, "context_length": 32,
        },
        inner={"learning_rate": 0.1, "batch_tokens": 32},
    )  # fmt: skip
    assert (needed_disk_bytes(spec) > LEAST_DISK_BYTES) is (hidden > 64)
