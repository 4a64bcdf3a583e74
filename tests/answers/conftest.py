"""A small fused model that tests of answers share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fused_example import BRANCHES, write_fused

from configs.run import RunSpec
from peer.fused.routed import RoutedModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, smallest_run: Callable[..., RunSpec]) -> Path:
    return write_fused(tmp_path_factory.mktemp("models") / "fused", smallest_run(**BRANCHES))


@pytest.fixture(scope="module")
def model(folder: Path) -> RoutedModel:
    return RoutedModel.load(folder)
