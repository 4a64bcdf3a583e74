"""What tests of several folders share."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import Server, s3_client, s3_environment, serving

from configs.run import RunSpec


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files, each of which is run by one worker, for its tests share what is dear.

    Whole swarms come first, real ones, which wait much, in turn with those in one loop, which never do; what is short
    fills up the workers in the end.
    """
    real = {item.path for item in items if item.get_closest_marker("swarm")}
    turns: dict[tuple[int, Path], int] = {}  # kind and file → its place among those of its kind

    def place(item: pytest.Item) -> tuple[bool, int]:
        kind = 0 if item.path in real else 1 if item.path.parent.name == "inloop" else 2
        turn = turns.setdefault((kind, item.path), sum(1 for each, _ in turns if each == kind))
        return (kind == 2, turn)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """What was imported stays: looking through it for garbage takes a tenth of the tests' time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """One store for all tests of a process; `bucket` reaches it."""
    pytest.importorskip("moto.server")
    pytest.importorskip("boto3")
    with serving("s3_server.py") as server:
        yield server


@pytest.fixture
def bucket(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket, `fish`; its store is in the environment, as any other would be."""
    for name, value in s3_environment(s3_server).items():
        monkeypatch.setenv(name, value)
    s3_client(s3_server).create_bucket(Bucket="fish")
    yield "fish"
    s3_server.ask("/moto-api/reset", "POST")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A small model is slower on several threads, and very slow where other processes are busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def smallest_run() -> Callable[..., RunSpec]:
    """Make the spec of a run with the smallest model there is; each section given goes over the one here."""
    sizes = {"vocab_size": 300, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "num_kv_heads": 1, "mlp_size": 8}

    def make(**sections: object) -> RunSpec:
        return RunSpec.model_validate(
            {
                "total_tokens": 10**9,
                "model": {**sizes, "context_length": 8},
                "strategy": {"kind": "replicas"},
                "inner": {"learning_rate": 0.1, "batch_tokens": 8},
                "rounds": {"tick_seconds": 1, "double_tokens": 10**9},
                "genesis": 0.0,
                "tokenizer_sha256": "0" * 64,
                "end_of_text": 0,
                **sections,
            }
        )

    return make
