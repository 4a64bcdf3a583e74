"""Local folders, links, archives and remote places give the same files, each once."""

import gzip
import os
import zipfile
from pathlib import Path

import fsspec
import pytest
from folders import RECORDS, TEXT, counts, fill, find, layout, refusal
from servers import Server, s3_client

from peer.sources.skips import Reason


def test_archives_are_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "corpus.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("corpus/wiki/a.txt", "corpus/wiki/valid.txt", "corpus/news/b.txt.gz", "corpus/README.md", "x.png"):
            archive.writestr(name, gzip.compress(TEXT.encode()) if name.endswith("gz") else TEXT)
    files, skips = find(tmp_path / "corpus.zip")
    assert [(file.url, file.domain, file.split, file.compression) for file in files] == [
        (f"zip://corpus/news/b.txt.gz::{tmp_path}/corpus.zip", "news", None, "gzip"),
        (f"zip://corpus/wiki/a.txt::{tmp_path}/corpus.zip", "wiki", None, None),
        (f"zip://corpus/wiki/valid.txt::{tmp_path}/corpus.zip", "wiki", "heldout", None),
    ]
    assert counts(skips) == {Reason.ABOUT: 1, Reason.KIND: 1} and files[1].size_bytes == len(TEXT)
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("a.txt", TEXT)
    fill(tmp_path, "loose.txt")
    assert {file.split for file in find(tmp_path)[0]} == {None, "train", "heldout"}


def test_links_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere", "linked.txt")
    root = fill(tmp_path / "texts", "a/b.txt")
    (root / "a" / "up").symlink_to(root)  # a cycle
    (root / "0-link.txt").symlink_to(root / "a" / "b.txt")  # sorted before what it leads to
    (root / "far").symlink_to(tmp_path / "elsewhere")
    (root / "far again").symlink_to(tmp_path / "elsewhere")
    files, skips = find(root)
    assert [(Path(file.url).name, file.domain) for file in files] == [("b.txt", "a"), ("linked.txt", "far")]
    assert counts(skips) == {Reason.LINKED: 3}


def test_a_link_gives_a_name_to_a_file_that_has_none(tmp_path: Path) -> None:
    root = fill(tmp_path, "blobs/4d7a21", content=RECORDS)
    (root / "snapshots").mkdir()
    (root / "snapshots" / "train.jsonl").symlink_to(root / "blobs" / "4d7a21")  # as the cache of the hub has it
    assert [Path(file.url).name for file in find(root)[0]] == ["train.jsonl"]


def test_a_source_that_is_in_another_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, "texts/wiki/a.txt", "b.txt")
    assert "holds no text" in refusal(tmp_path / "texts", tmp_path / "texts" / "wiki")
    files, skips = find(tmp_path / "b.txt", tmp_path / "texts", tmp_path / "b.txt")
    assert len(files) == 2 and counts(skips) == {Reason.LINKED: 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_what_may_not_be_read_is_counted(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt", "secret.txt", "closed/b.txt")
    (tmp_path / "secret.txt").chmod(0)
    (tmp_path / "closed").chmod(0)
    files, skips = find(tmp_path)
    (tmp_path / "closed").chmod(0o700)
    assert len(files) == 1 and counts(skips) == {Reason.UNREADABLE: 2}


def test_remote_folders_are_listed_like_local_ones(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    root = fill(
        tmp_path / "texts", "wiki/train.txt", "wiki/valid.txt.gz", "news/a.jsonl", "README.md", "logo.png", "e.txt"
    )
    fill(root, "e.txt", content="")
    with zipfile.ZipFile(root / "b.zip", "w") as archive:
        archive.writestr("c.txt", TEXT)
    for path in sorted(root.rglob("*")):
        if path.is_file():
            fs.pipe(f"/listing/texts/{path.relative_to(root)}", path.read_bytes())
    local, local_skips = find(root)
    remote, remote_skips = find("memory://listing/texts")
    assert [file.url.replace("memory://listing/texts", str(root)) for file in remote] == [file.url for file in local]
    assert [(file.domain, file.split, file.form, file.size_bytes) for file in remote] == [
        (file.domain, file.split, file.form, file.size_bytes) for file in local
    ]
    assert counts(local_skips) == counts(remote_skips)
    assert find("memory://listing/texts/wiki/train.txt")[0][0].is_named
    assert find(f"file://{root}")[0] == local


@pytest.fixture
def s3(s3_server: Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.url)
    for name in ("texts/wiki/a.txt", "texts/wiki/valid.jsonl.gz", "texts/README.md"):
        content = gzip.compress(RECORDS.encode()) if name.endswith("gz") else TEXT.encode()
        s3_client(s3_server).put_object(Bucket=bucket, Key=name, Body=content)


@pytest.mark.usefixtures("s3")
def test_an_object_store_is_read_without_more_packages() -> None:
    assert layout("s3://fish/texts") == {"a.txt": "wiki", "valid.jsonl.gz": "wiki heldout"}
    assert "no such file or folder" in refusal("s3://fish/nowhere")


def test_odd_archives_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("./wiki/a.txt", "news\\b.txt", "/c.txt", "empty/"):
            archive.writestr(name, TEXT)
    assert {Path(file.url.partition("::")[0]).name: file.domain for file in find(tmp_path / "a.zip")[0]} == {
        "a.txt": "wiki",
        "news\\b.txt": "news",
        "c.txt": "a",
    }
    raw = bytearray((tmp_path / "a.zip").read_bytes())
    for at in (at for at in range(len(raw)) if raw[at : at + 4] in (b"PK\x01\x02", b"PK\x03\x04")):
        raw[at + (8 if raw[at + 2] == 1 else 6)] |= 1  # as encrypted members are marked
    (tmp_path / "secret.zip").write_bytes(raw)
    fill(tmp_path, "good.txt")
    files, skips = find(tmp_path)
    assert counts(skips) == {Reason.UNREADABLE: 3} and len(files) == 4
    assert "is encrypted; unpack it into a folder" in skips.by_reason[Reason.UNREADABLE].places[0]
