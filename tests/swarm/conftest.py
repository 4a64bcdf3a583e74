from collections.abc import Iterator
from pathlib import Path

import pytest
from mistake import MICRO, Daemon, make_corpus, running, shoal


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("songs") / "corpus")


@pytest.fixture(scope="module")
def founder(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Iterator[Daemon]:
    """A daemon to make mistakes with."""
    state_dir = tmp_path_factory.mktemp("founder") / "state"
    with running(shoal("start", "--config", MICRO, "--data", str(corpus)), state_dir) as daemon:
        yield daemon
    assert daemon.process.returncode == 0
