"""Text in a real HDFS, read by each client that Shoal meets; left out until `python -m benchmarks.hdfs` was run."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from benchmarks.hdfs import Hdfs, is_there, open_hdfs
from peer.prepare.engine import prepare
from peer.prepare.plan import Plan
from peer.prepare.spark import open_cluster

HAS_CLIENTS = all(importlib.util.find_spec(name) is not None for name in ("pyspark", "hdfs_native"))
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (is_there() and HAS_CLIENTS), reason="needs Java, shoal[spark] and benchmarks.hdfs"),
]

TEXTS = {
    "one.txt": "".join(f"Whale {number} swims. {'It swims. ' * 99}\n\n" for number in range(3000)),
    "deep/zwei drei.txt": "".join(f"Ein Wal schwämme, 鯨 {number}.\n\n" for number in range(999)),
    "empty.txt": "",
}


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    with open_hdfs(tmp_path_factory.mktemp("hdfs")) as served:
        system, _ = fsspec.core.url_to_fs(served.url)
        for name, text in TEXTS.items():
            system.makedirs(f"/texts/{name}".rpartition("/")[0], exist_ok=True)
            with system.open(f"/texts/{name}", "wb") as file:
                file.write(text.encode())
        yield served


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digest(url: str) -> bytes:
    with fsspec.open(url, "rb") as file:
        return hashlib.sha256(file.read()).digest()


@pytest.mark.parametrize("client", ["url", "web_url"])
def test_fsspec_reads_it_without_java(hdfs: Hdfs, client: str) -> None:
    root = f"{getattr(hdfs, client)}/texts"
    system, path = fsspec.core.url_to_fs(root)
    found = {name.rpartition("/texts/")[2]: entry["size"] for name, entry in system.find(path, detail=True).items()}
    assert found == {name: len(text.encode()) for name, text in TEXTS.items()}
    for name, text in TEXTS.items():
        with fsspec.open(f"{root}/{name}", "rb") as file:
            assert file.read() == text.encode()
    with fsspec.open(f"{root}/one.txt", "rb") as file:  # as a reader that goes on in the middle, over a block's end
        file.seek((1 << 20) - 5)
        assert file.read(10) == TEXTS["one.txt"].encode()[(1 << 20) - 5 :][:10]


def test_a_corpus_of_what_lies_there_is_that_of_the_same_files_here(hdfs: Hdfs, tmp_path: Path) -> None:
    for name, text in TEXTS.items():
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    plan = Plan(vocab_size=300, context_length=32)
    prepare([tmp_path / "texts"], tmp_path / "here", plan)
    with open_cluster("local-cluster[2,1,1024]") as workers:
        prepare([f"{hdfs.url}/texts"], tmp_path / "there", plan, workers=workers)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_workers_read_it_and_leave_results_there(hdfs: Hdfs) -> None:
    from pyspark import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with open_cluster("local-cluster[2,1,1024]", folder=f"{hdfs.url}/results") as workers:
        results = list(workers.run(digest, [f"{hdfs.url}/texts/{name}" for name in TEXTS]))
        assert results == [hashlib.sha256(text.encode()).digest() for text in TEXTS.values()]
        # Spark's own Hadoop client sees the same.
        seen = workers._context.binaryFiles(f"{hdfs.url}/texts/*.txt").mapValues(len).collect()
    assert sorted((Path(url).name, size) for url, size in seen) == [
        ("empty.txt", 0),
        ("one.txt", len(TEXTS["one.txt"].encode())),
    ]
    system, path = fsspec.core.url_to_fs(f"{hdfs.url}/results")
    assert system.find(path) == []
