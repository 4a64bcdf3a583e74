import sys
from pathlib import Path

import pytest
from status_example import example

from configs.errors import ConfigError, StateError
from peer.http.curves import open_curves


def test_no_folder_no_curves() -> None:
    with open_curves(None) as record:
        record(example())


def test_curves_are_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with open_curves(tmp_path / "curves") as record:
        record(example())
    events = accumulator.EventAccumulator(str(tmp_path / "curves"))
    events.Reload()
    (loss,) = events.Scalars("loss/train")
    assert (loss.step, pytest.approx(loss.value)) == (800_000, 3.2)


def test_a_missing_extra_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'shoal\[tensorboard\]'"), open_curves(tmp_path):
        pass


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written"), open_curves(tmp_path / "file"):
        pass
