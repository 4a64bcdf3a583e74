"""What the swarms in one loop share."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dht.identity import Identity

MOST = 12  # members of a swarm


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    """Always the same ones: who meets whom, and in which order, follows from peer ids, so seeds mean something."""
    folder = shutil.copytree(Path(__file__).parent / "identities", tmp_path_factory.mktemp("keys") / "identities")
    return [Identity.load_or_create(folder / f"{n}.key") for n in range(MOST)]


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a place: a swarm writes some hundred small files for each second of its clock."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="shoal-loop-", dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No power is cut here: what a kill leaves is what was renamed."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield
