"""Every place keeps one contract, whatever client talks to it: a folder, a bucket of a real server, the hub's API."""

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from servers import serving

from configs.content import content_id_of
from configs.errors import ConfigError, DataError, NetworkError, ShoalError, StateError, UsageError
from configs.outlets import read_target
from peer.publish.opening import open_place
from peer.publish.places import PACED_BYTES, Pace, Paced, Place

Open = Callable[[str, Pace | None], Place]


@pytest.fixture(params=["folder", "s3", "hub"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open the place below a prefix, again and again."""
    if request.param != "folder":
        request.getfixturevalue(request.param)
    root = {"folder": str(tmp_path / "there"), "s3": "s3://fish/there", "hub": "hf://me/fish/there"}[request.param]
    return lambda prefix, pace=None: open_place(read_target(root).below(prefix), pace)  # type: ignore[misc]


def test_what_is_put_is_there(opened: Open, tmp_path: Path) -> None:
    place, large = opened("a", None), os.urandom(20_000)
    assert place.sizes() == {} and place.read("last.json", 10) is None
    place.put("parts/1.bin", large)
    place.put("parts/2.bin", memoryview(b"two"))
    place.commit("last.json", b"{}")
    again = opened("a", None)
    assert again.sizes() == {"parts/1.bin": 20_000, "parts/2.bin": 3, "last.json": 2}
    assert again.sizes("parts") == {"parts/1.bin": 20_000, "parts/2.bin": 3}
    assert again.read("parts/1.bin", 20_000) == large and again.read("last.json", 2) == b"{}"
    with pytest.raises(DataError, match="has 20000 bytes, and at most 19999 are taken"):
        again.read("parts/1.bin", 19_999)
    assert opened("", None).sizes().keys() == {"a/parts/1.bin", "a/parts/2.bin", "a/last.json"}
    assert opened("b", None).sizes() == {}
    again.commit("last.json", b"[]", ["parts/2.bin"])
    assert opened("a", None).sizes() == {"parts/1.bin": 20_000, "last.json": 2}
    again.fetch("parts/1.bin", tmp_path / "new" / "one.bin")
    assert (tmp_path / "new" / "one.bin").read_bytes() == large
    with pytest.raises(DataError, match="is not there any more"):
        again.fetch("parts/2.bin", tmp_path / "two.bin")


def test_files_keep_their_names(opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(os.urandom(50_000))
    content_id = content_id_of(path.read_bytes())
    place = opened("model", None)
    assert place.put_file("expert.0/model.safetensors", path, content_id)
    place.commit("list.json", b"{}")
    assert opened("model", None).read("expert.0/model.safetensors", 50_000) == path.read_bytes()
    opened("model", None).put_file("expert.0/model.safetensors", path, content_id)


def test_what_is_sent_waits_for_its_turn(opened: Open, request: pytest.FixtureRequest) -> None:
    counts: list[int] = []
    data = os.urandom(300_000)
    place = opened("paced", counts.append)
    place.put("parts/1.bin", data)
    place.commit("last.json", b"{}")
    assert opened("paced", None).read("parts/1.bin", 300_000) == data
    if "folder" in request.node.name:  # it is no uplink
        assert counts == []
    else:
        assert sum(counts) == 300_000 and max(counts) <= PACED_BYTES


def test_a_pace_can_end_a_transfer(s3: object) -> None:
    def end(count: int) -> None:
        raise InterruptedError

    place = open_place(read_target("s3://fish/x"), end)
    with pytest.raises(InterruptedError):
        place.put("parts/1.bin", bytes(200_000))
    assert open_place(read_target("s3://fish/x")).sizes() == {}


def test_reading_to_sign_is_no_sending() -> None:
    counts: list[int] = []
    body = Paced(b"x" * 10, counts.append)
    assert body.read() == b"x" * 10
    body.seek(0, io.SEEK_SET)
    body.signal_transferring()
    assert body.read(4) + body.read(100) + body.read(1) == b"x" * 10 and sum(counts) == 10


def test_no_bucket_is_one_line(s3: object) -> None:
    for act in (lambda place: place.sizes(), lambda place: place.put("a", b"b")):
        with pytest.raises(UsageError, match="there is no bucket nowhere; make it, or name another"):
            act(open_place(read_target("s3://nowhere/x")))


def test_no_key_is_one_line(s3: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no key for it is known; set AWS_PROFILE, or AWS_ACCESS_KEY_ID"):
        open_place(read_target("s3://fish/x")).put("a", b"b")


def test_no_server_is_one_line(s3: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setattr("peer.publish.bucket.ATTEMPTS", 1)
    with pytest.raises(NetworkError, match=r"Could not connect .* AWS_ENDPOINT_URL_S3 right"):
        open_place(read_target("s3://fish/x")).sizes()


def test_a_token_that_may_not_is_one_line(hub: object, monkeypatch: pytest.MonkeyPatch) -> None:
    place = open_place(read_target("hf://me/fish"))
    monkeypatch.setenv("HF_TOKEN", "read-only")
    with pytest.raises(UsageError, match=r"the token may not do that \(403\); set HF_TOKEN"):
        place.put("parts/1.bin", b"x")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="set HF_TOKEN"):
        open_place(read_target("hf://me/fish")).put("parts/1.bin", b"x")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("file systems are mounted by root alone")
    try:
        place = open_place(read_target(str(mount / "there")))
        place.put("parts/1.bin", bytes(100_000))
        with pytest.raises(StateError, match=r"the disk is full, so .*2\.bin was not written; free at least 1 MiB"):
            place.put("parts/2.bin", bytes(400_000))
        assert place.sizes() == {"parts/1.bin": 100_000}
        (tmp_path / "file").write_bytes(bytes(400_000))
        with pytest.raises(StateError, match="the disk is full"):
            place.put_file("model.bin", tmp_path / "file", "")
        assert place.sizes() == {"parts/1.bin": 100_000}
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"s3://fish needs a library; .* pip install 'shoal\[s3\]'"):
        open_place(read_target("s3://fish"))


def test_errors_are_of_the_tree() -> None:
    from peer.publish import bucket, hub

    assert issubclass(bucket._NotThere, ShoalError) and issubclass(hub._NotThere, ShoalError)


def test_a_key_that_may_not_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("moto.server")
    model = tmp_path / "model.bin"
    model.write_bytes(b"x")
    with serving("s3_server.py", INITIAL_NO_AUTH_ACTION_COUNT="3") as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        session = boto3.session.Session(region_name="us-east-1")
        session.client("s3").create_bucket(Bucket="fish")
        session.client("iam").create_user(UserName="guest")
        guest = session.client("iam").create_access_key(UserName="guest")["AccessKey"]
        place = open_place(read_target("s3://fish/x"))
        with pytest.raises(UsageError, match=r"the key is not, or no longer, valid \(InvalidAccessKeyId\); set"):
            place.put("a", b"b")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", guest["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", guest["SecretAccessKey"])
        place = open_place(read_target("s3://fish/x"))
        for act in (
            lambda: place.put("a", b"b"),
            lambda: place.put_file("a", model, ""),
            lambda: place.sizes(),
            lambda: place.read("a", 1),
        ):
            with pytest.raises(UsageError, match=r"s3://fish/x refuses: its key lacks a right; it needs s3:ListBucket"):
                act()
