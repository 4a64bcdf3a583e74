"""What cannot begin is said before anything is imported for it."""

from pathlib import Path

import pytest

from configs.errors import ConfigError, DataError, UsageError
from configs.load import load
from peer.commands.beginning import RUN_FILE, check_fuse, check_start, founds


def test_who_has_neither_run_nor_address_needs_a_preset(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to found"):
        check_start(load(state_dir=tmp_path))
    check_start(load("tiny", state_dir=tmp_path))
    (tmp_path / RUN_FILE).touch()
    assert not founds(load(state_dir=tmp_path))
    check_start(load(state_dir=tmp_path))  # goes on with its run


def test_data_addresses_and_models_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a prepared corpus"):
        check_start(load("tiny", state_dir=tmp_path, data=tmp_path))
    with pytest.raises(UsageError, match="is not a multiaddr"):
        check_start(load(state_dir=tmp_path, initial_peers=("nobody",)))
    with pytest.raises(UsageError, match="--private needs the data"):
        check_start(load("tiny", state_dir=tmp_path, private=True))
    with pytest.raises(DataError, match="is no Hugging Face model"):
        check_start(load("summarize", state_dir=tmp_path, init_from=tmp_path))


def test_a_fused_model_needs_sources_and_an_empty_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a directory nor an address"):
        check_fuse(["nowhere"], tmp_path / "model")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="already exists and is not empty"):
        check_fuse([str(tmp_path)], tmp_path)
    check_fuse([str(tmp_path)], tmp_path / "model")
