"""Corpora at URLs, through real file systems and a real S3 server: what is read, and the line where it cannot be."""

import logging
import shutil
import socket
from pathlib import Path

import pytest
from servers import Server, upload

from configs.errors import ConfigError, DataError, NetworkError, UsageError
from peer.corpus import stores
from peer.corpus.blob_cache import DamagedBlobError
from peer.corpus.data import BLOBS, Corpus, open_corpus
from peer.corpus.remote import RemoteCorpus, open_remote, opened_corpus
from peer.corpus.stores import PIECE_BYTES, AbsentError, Store
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan

GB = 10**9


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("data") / "corpus"
    texts = {name: [f"{name} {number} " * 40 for number in range(50)] for name in ("salt", "sand")}
    prepare_texts(texts, path, Plan(300, context_length=8, shard_tokens=1000))
    return open_corpus(path)


def check_is_whole(corpus: RemoteCorpus, prepared: Corpus) -> None:
    """See that all that is small is here, no shard, and that a shard comes as it was prepared."""
    assert corpus.info == prepared.info
    assert corpus.tokenizer_json() == prepared.tokenizer_json()
    cache = corpus.cache()
    for domain in corpus.info.domains:
        assert corpus.heldout(domain).tolist() == prepared.heldout(domain).tolist()
        assert corpus.counts(domain).tolist() == prepared.counts(domain).tolist()
        for shard in domain.shards:
            assert not corpus.blob(shard.content_id).exists()
            cache.obtain(shard, lambda path, shard=shard: corpus.fetch(shard, path))  # type: ignore[misc]
            assert corpus.blob(shard.content_id).read_bytes() == prepared.blob(shard.content_id).read_bytes()


def test_a_corpus_in_a_bucket(tmp_path: Path, prepared: Corpus, s3_server: Server, bucket: str) -> None:
    upload(s3_server, "texts/corpus", prepared.path)
    check_is_whole(open_remote(f"s3://{bucket}/texts/corpus/", tmp_path, GB), prepared)


def test_a_corpus_at_a_file_url(tmp_path: Path, prepared: Corpus) -> None:
    check_is_whole(open_remote(prepared.path.as_uri(), tmp_path, GB), prepared)


def test_a_corpus_that_is_read_once_is_copied_for_so_long(tmp_path: Path, prepared: Corpus) -> None:
    with opened_corpus(prepared.path.as_uri()) as corpus:
        assert corpus.name == prepared.path.as_uri() and corpus.info == prepared.info
        for domain in corpus.info.domains:
            assert corpus.heldout(domain).tolist() == prepared.heldout(domain).tolist()
            assert not corpus.blob(domain.shards[0].content_id).exists()
    with opened_corpus(prepared.path.as_uri(), has_shards=True) as corpus:
        assert open_corpus(corpus.path).info == prepared.info  # which looks at every file
    assert not corpus.path.exists()
    with opened_corpus(str(prepared.path)) as corpus:
        assert corpus.path == prepared.path
    with (
        pytest.raises(DataError, match=r"nothing/corpus\.json is not there"),
        opened_corpus((tmp_path / "nothing").as_uri()),
    ):
        pass


def test_a_corpus_in_a_file_system_of_fsspec(tmp_path: Path, prepared: Corpus) -> None:
    import fsspec

    fsspec.filesystem("memory").put(str(prepared.path), "/somewhere/corpus", recursive=True)
    check_is_whole(open_remote("memory://somewhere/corpus", tmp_path, GB), prepared)


def test_what_is_not_in_a_bucket_is_named(tmp_path: Path, bucket: str) -> None:
    with pytest.raises(AbsentError, match=r"s3://fish/none/corpus\.json is not there; name the folder"):
        open_remote("s3://fish/none", tmp_path, GB)
    with pytest.raises(AbsentError, match=r"s3://herd/corpus/corpus\.json is not there"):
        open_remote("s3://herd/corpus", tmp_path, GB)


def test_without_a_key_the_line_says_how_to_give_one(
    tmp_path: Path, prepared: Corpus, s3_server: Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(s3_server, "corpus", prepared.path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match=r"may not be read .*set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as said:
        open_remote("s3://fish/corpus", tmp_path / "here", GB)
    assert "\n" not in str(said.value) and not isinstance(said.value, DataError)


def test_a_store_that_is_away_is_told_from_a_wrong_place(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(NetworkError, match=r"cannot be read: .*see whether the store is up"):
        open_remote("s3://fish/corpus", tmp_path, GB)


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("gopher://host/corpus", ConfigError, "gopher://host/corpus is no place that is known .*such as s3://"),
        ("file:///none/corpus", DataError, r"file:///none/corpus/corpus\.json is not there; name the folder"),
    ],
)
def test_wrong_urls(tmp_path: Path, url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_remote(url, tmp_path, GB)


def test_a_store_without_its_library_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    load = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("requests"):
            raise ImportError(name)
        return load(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(__import__("sys").modules, "fsspec.implementations.webhdfs", raising=False)
    with pytest.raises(ConfigError, match="needs a library; install it with: pip install requests"):
        open_remote("webhdfs://host:9870/corpus", tmp_path, GB)


def copy_of(prepared: Corpus, folder: Path) -> Path:
    return Path(shutil.copytree(prepared.path, folder))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("corpus.json", b"{}", r"corpus\.json is damaged .*prepare the corpus again"),
        ("tokenizer.json", b"{}", r"tokenizer\.json is missing or is not the one"),
        ("heldout", b"", "is damaged where it comes from"),
        ("heldout", None, "is not there; name the folder of a whole corpus"),
    ],
)
def test_a_damaged_corpus_is_refused_by_its_url(
    tmp_path: Path, prepared: Corpus, file: str, content: bytes | None, message: str
) -> None:
    store = copy_of(prepared, tmp_path / "store")
    path = store / (f"{BLOBS}/{prepared.info.domains[0].heldout.content_id}" if file == "heldout" else file)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_remote(store.as_uri(), tmp_path / "here", GB)


def test_what_was_copied_will_do_while_the_store_is_away(
    tmp_path: Path,
    prepared: Corpus,
    s3_server: Server,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    upload(s3_server, "corpus", prepared.path)
    open_remote("s3://fish/corpus", tmp_path, GB)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING):
        assert open_remote("s3://fish/corpus", tmp_path, GB).info == prepared.info
    assert "going on with the copy of last time" in caplog.text


def test_a_shard_that_is_damaged_in_its_store_is_named(tmp_path: Path, prepared: Corpus) -> None:
    store = copy_of(prepared, tmp_path / "store")
    corpus = open_remote(store.as_uri(), tmp_path / "here", GB)
    shard = prepared.info.domains[0].shards[0]
    (store / BLOBS / shard.content_id).write_bytes(b"cut")
    with pytest.raises(DamagedBlobError, match=shard.content_id):
        corpus.cache().obtain(shard, lambda path: corpus.fetch(shard, path))


def test_a_fetch_ends_when_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(3 * PIECE_BYTES))
    came: list[int] = []

    def on_piece(size: int) -> None:
        came.append(size)
        if len(came) == 2:
            raise NetworkError("enough")

    with pytest.raises(NetworkError, match="enough"):
        Store(tmp_path.as_uri()).fetch("large", tmp_path / "copy", on_piece)
    assert came == [PIECE_BYTES] * 2


def test_a_store_that_says_nothing_counts_as_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would wait for ever."""
    pytest.importorskip("requests")
    monkeypatch.setattr(stores, "SILENT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:  # nobody accepts
        url = f"webhdfs://127.0.0.1:{server.getsockname()[1]}/corpus"
        with pytest.raises(NetworkError, match=r"corpus\.json: the store has not answered for 0 s; see whether"):
            open_remote(url, tmp_path, GB)
