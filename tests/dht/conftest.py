from pathlib import Path

import pytest

from dht.identity import Identity

RUN_ID = "0123456789abcdef" * 2


@pytest.fixture(scope="session")
def identity_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("identities")
    paths = [folder / str(index) / "identity.key" for index in range(3)]
    for path in paths:
        Identity.load_or_create(path)
    return paths


@pytest.fixture(scope="session")
def identities(identity_paths: list[Path]) -> list[Identity]:
    return [Identity.load_or_create(path) for path in identity_paths]


@pytest.fixture(scope="session")
def run_id() -> str:
    return RUN_ID
