"""A corpus that is written to a store: the same bytes as here, whole or not yet one, in spite of errors and kills.

`docs/guide/your-own-data.md` shows the command with a bucket as its `--out`, which is typed here.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

import shoal
from configs.errors import ConfigError, DataError, NetworkError, UsageError
from peer.commands.main import main
from peer.corpus.data import CORPUS_FILE, Corpus, open_corpus
from peer.corpus.remote import RemoteCorpus, open_remote
from peer.prepare.delivery import Delivery
from peer.prepare.engine import job_of, prepare
from peer.prepare.job import Job
from peer.prepare.plan import Plan
from peer.sources.documents import Reading
from peer.sources.listing import Listing

GB = 10**9
PLAN = Plan(vocab_size=300, context_length=8, shard_tokens=2000)
OPTIONS = ["--vocab-size", "300", "--context-length", "8", "--shard-tokens", "2000"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for domain in ("salt", "sand"):
        (tmp_path / "texts" / domain).mkdir(parents=True)
        for number in range(60):
            (tmp_path / "texts" / domain / f"{number}.txt").write_text(f"{domain} {number} " * 30)
    return tmp_path / "texts"


@pytest.fixture
def job(texts: Path) -> Job:
    return job_of([texts], PLAN, Reading(), Listing())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shoal"


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def silent(stage: str, done: int, total: int) -> None:
    """Show nothing."""


def check_is_same(url: str, here: Corpus, folder: Path) -> RemoteCorpus:
    """See that what `shoal start --data URL` opens is a corpus that was prepared here."""
    corpus = open_remote(url, folder, GB)
    assert corpus.info == here.info and corpus.tokenizer_json() == here.tokenizer_json()
    cache = corpus.cache()
    for domain in corpus.info.domains:
        assert corpus.heldout(domain).tolist() == here.heldout(domain).tolist()
        for shard in domain.shards:
            cache.obtain(shard, lambda path, shard=shard: corpus.fetch(shard, path))  # type: ignore[misc]
            assert corpus.blob(shard.content_id).read_bytes() == here.blob(shard.content_id).read_bytes()
    return corpus


def prepared_here(texts: Path, folder: Path) -> Corpus:
    prepare([texts], folder, PLAN)
    return open_corpus(folder)


@pytest.mark.parametrize("kind", ["s3", "file", "memory"])
def test_a_corpus_in_a_store_is_what_start_reads(
    kind: str, texts: Path, tmp_path: Path, cache: Path, request: pytest.FixtureRequest, capsys: Any
) -> None:
    if kind == "s3":
        url = f"s3://{request.getfixturevalue('bucket')}/deep/corpus"
    elif kind == "memory":
        request.getfixturevalue("memory")
        url = "memory://deep/corpus"
    else:
        url = (tmp_path / "away").as_uri()
    assert main(["prepare", str(texts), "--out", url, *OPTIONS]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("salt: ") and said[-1].endswith(f"shoal start --config tiny --data {url}")
    check_is_same(url, prepared_here(texts, tmp_path / "here"), tmp_path / "copy")
    assert not list((cache / "prepared").iterdir()), "nothing stays here"
    assert main(["prepare", str(texts), "--out", url, *OPTIONS]) == 2
    assert f"{url} is not empty: there is " in capsys.readouterr().err


def test_a_place_with_files_is_refused_before_any_work(memory: Any, job: Job, cache: Path) -> None:
    memory.pipe("/full/notes.txt", b"mine")
    with pytest.raises(DataError, match=r"memory://full is not empty: there is notes\.txt; choose another place"):
        Delivery("memory://full").prepare(job, silent)
    memory.pipe("/deep/other/notes.txt", b"mine")
    with pytest.raises(DataError, match=r"there is other/; choose"):
        Delivery("memory://deep").prepare(job, silent)
    assert not cache.exists()


def test_what_cannot_be_written_is_kept_and_the_same_command_goes_on(
    texts: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    url, command = f"s3://{bucket}/corpus", ["prepare", str(texts), "--out", f"s3://{bucket}/corpus", *OPTIONS]
    put, written = Delivery._put, []

    def cut_off(self: Delivery, name: str) -> None:
        if len(written) == 3:
            self._root = "herd"  # a bucket that is not there
        put(self, name)
        written.append(name)

    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "_put", cut_off)
        assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{url} cannot be written to: " in said and "the same command then only writes it" in said
    kept = Path(said.partition("is kept in ")[2].partition(",")[0])
    assert open_corpus(kept).info.domains
    with monkeypatch.context() as patch:
        patch.setattr("peer.prepare.delivery.Engine", None)  # nothing is prepared again
        patch.setattr(Delivery, "_put", lambda self, name: (written.append(name), put(self, name)))
        assert main(command) == 0
    blobs = [name for name in written if name.startswith("blobs/")]
    assert len(set(blobs)) == len(blobs) > 3, "none is written twice"
    out = capsys.readouterr().out
    assert "held out (" in out and out.splitlines()[-1].endswith(f"--data {url}")
    assert not kept.exists()
    check_is_same(url, prepared_here(texts, tmp_path / "here"), tmp_path / "copy")


def test_a_bucket_that_is_not_there_is_told_before_any_work(bucket: str, job: Job, cache: Path) -> None:
    with pytest.raises(NetworkError, match=r"s3://herd/corpus cannot be looked at: .* see whether the place is there"):
        Delivery("s3://herd/corpus").prepare(job, silent)
    assert not cache.exists()


def test_what_is_said_of_tasks_is_said_again_when_only_the_upload_is_left(
    tmp_path: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    records = "".join(
        f'{{"input": "{"how many sheep " * (number % 40)}", "target": "{number}"}}\n' for number in range(200)
    )
    (tmp_path / "sheep.jsonl").write_text(records)
    command = ["prepare", str(tmp_path / "sheep.jsonl"), "--out", "memory://sheep", "--vocab-size", "300"]
    here = ["prepare", str(tmp_path / "sheep.jsonl"), "--out", str(tmp_path / "here"), "--vocab-size", "300"]
    for each in (command, here):
        each += ["--context-length", "32"]

    def fail(self: Delivery, name: str) -> None:
        raise OSError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(Delivery, "_put", fail)
        assert main(command) == 1
    assert main(here) == 0
    said = capsys.readouterr().out
    assert "inputs lost their beginning" in said
    assert main(command) == 0
    assert capsys.readouterr().out == said.replace(str(tmp_path / "here"), "memory://sheep")


def test_other_text_is_prepared_anew_where_an_upload_had_failed(
    texts: Path, tmp_path: Path, memory: Any, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Delivery, name: str) -> None:
        raise OSError("no route")

    delivery = Delivery("memory://corpus")
    with monkeypatch.context() as patch, pytest.raises(NetworkError, match="cannot be written to: no route"):
        patch.setattr(Delivery, "_put", fail)
        delivery.prepare(job, silent)
    first = open_corpus(delivery.folder).info
    (texts / "sand" / "7.txt").write_text("something else " * 99)
    delivery.prepare(job_of([texts], PLAN, Reading(), Listing()), silent)
    assert open_corpus(delivery.folder).info != first
    check_is_same("memory://corpus", prepared_here(texts, tmp_path / "here"), tmp_path / "copy")


KILLED = """
import os, sys
from pathlib import Path
from peer.commands.main import main
from peer.prepare.delivery import Delivery
put, left = Delivery._put, [int(sys.argv[1])]
def killed(self, name):
    if not left[0]:
        whole = (self.folder / name).read_bytes()
        (Path(self._root) / name).write_bytes(whole[: len(whole) // 2])
        os.kill(os.getpid(), 9)
    left[0] -= 1
    put(self, name)
Delivery._put = killed
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("after", [0, 3, "last"])
def test_a_run_that_is_killed_while_it_writes_goes_on(texts: Path, tmp_path: Path, after: int | str) -> None:
    here = prepared_here(texts, tmp_path / "here")
    files = [path for path in here.path.rglob("*") if path.is_file()]
    count = len(files) - 1 if after == "last" else int(after)
    url = (tmp_path / "away").as_uri()
    command = ["prepare", str(texts), "--out", url, *OPTIONS]
    killed = subprocess.run([sys.executable, "-c", KILLED, str(count), *command], env=os.environ, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    if after != "last":
        assert not (tmp_path / "away" / CORPUS_FILE).exists(), "it comes last"
    assert main(command) == 0
    check_is_same(url, here, tmp_path / "copy")


def test_python_writes_to_a_store_and_opens_what_is_there(texts: Path, tmp_path: Path, memory: Any) -> None:
    corpus = shoal.prepare(texts, "memory://by/python", vocab_size=300, context_length=8, shard_tokens=2000)
    assert corpus.name == "memory://by/python"
    assert corpus.info == prepared_here(texts, tmp_path / "here").info
    assert len(corpus.heldout(corpus.info.domains[0]))


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("https://host/corpus", UsageError, "https://host/corpus cannot be written to; give a folder, or a URL such"),
        ("gopher://host/corpus", ConfigError, "gopher://host/corpus is no place that is known"),
    ],
)
def test_places_that_nothing_can_be_written_to(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Delivery(url)


def test_a_store_that_is_away_is_told_before_any_work(
    bucket: str, job: Job, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match=r"s3://fish/corpus cannot be looked at: .*see whether the place") as said:
        Delivery("s3://fish/corpus").prepare(job, silent)
    assert "\n" not in str(said.value) and "is kept" not in str(said.value)
    assert not cache.exists()
