"""What the swarms in one loop share."""

import os
from collections.abc import Iterator

import pytest

from dht.identity import Identity

MOST = 12  # members of a swarm


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    folder = tmp_path_factory.mktemp("keys")
    return [Identity.load_or_create(folder / f"{n}.key") for n in range(MOST)]


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No power is cut here: what a kill leaves is what was renamed."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield
