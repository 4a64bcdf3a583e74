"""Trackers and targets as users name them; a password in one is refused, and never shown."""

from pathlib import Path

import pytest

from configs.errors import ConfigError, UsageError
from configs.kept import to_keep
from configs.load import load
from configs.machine import PeerConfig
from configs.outlets import Every, Outlet, Target, is_remote, read_every, read_outlet, read_target, redacted


def test_outlets_are_kind_and_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_outlet("wandb:team/fish") == Outlet("wandb", "team/fish")
    assert read_outlet("mlflow:sqlite:////x/y.db") == Outlet("mlflow", "sqlite:////x/y.db")
    assert read_outlet("otel") == Outlet("otel", "") and str(read_outlet("otel")) == "otel"
    assert read_outlet("tensorboard:curves") == Outlet("tensorboard", str(tmp_path / "curves"))
    assert str(read_outlet("otel:http://h:4318")) == "otel:http://h:4318"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("comet:x", "'comet' is no tracker; there are tensorboard:DIR, wandb:PROJECT, mlflow:URI, otel:ENDPOINT"),
        ("tensorboard", "tensorboard needs a folder: tensorboard:DIR"),
        ("mlflow:https://me:hush@host", "say just mlflow, and set MLFLOW_TRACKING_URI"),
        ("otel:http://me:hush@host:4318", "set OTEL_EXPORTER_OTLP_HEADERS"),
    ],
)
def test_what_is_no_outlet_is_said(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_outlet(text)
    assert told in str(caught.value) and "hush" not in str(caught.value)


def test_targets_are_folders_buckets_and_repositories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_target("out") == Target("folder", str(tmp_path / "out")) == read_target(f"file://{tmp_path}/out")
    assert read_target("s3://fish/a/b/") == Target("s3", "fish", "a/b")
    assert read_target("hf://me/fish") == Target("hub", "me/fish")
    assert read_target("hf://me/fish/x") == Target("hub", "me/fish", "x")
    for text in ("s3://fish", "s3://fish/a/b", "hf://me/fish", "hf://me/fish/x", str(tmp_path)):
        assert str(read_target(text)) == text
    assert str(read_target("s3://fish").below("run", "peer")) == "s3://fish/run/peer"
    assert is_remote("s3://x") and not is_remote("x") and not is_remote("/ip4/1.2.3.4/tcp/1")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gs://x", "'gs://x' is no target; there are a folder, s3://BUCKET/PREFIX, hf://USER/REPO"),
        ("s3://", "no target of the form s3://BUCKET/PREFIX"),
        ("s3://UPPER", "no target of the form s3://BUCKET/PREFIX"),
        ("hf://me", "no target of the form hf://USER/REPO"),
        ("s3://fish/../x", "leave out '.' and '..'"),
        ("s3://KEY:hush@fish", "use AWS_PROFILE, AWS_ACCESS_KEY_ID"),
        ("hf://hush@me/fish", "use `hf auth login`, or set HF_TOKEN"),
        ("ftp://me:hush@host/x", "is no target"),
    ],
)
def test_what_is_no_target_is_said(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_target(text)
    assert told in str(caught.value) and "hush" not in str(caught.value)


def test_intervals() -> None:
    assert read_every("20 rounds") == Every(20, "rounds") and read_every("1 minutes") == Every(1, "minutes")
    for text in ("0 rounds", "20", "1 hour", "-1 minutes"):
        with pytest.raises(UsageError, match="say it as in '20 rounds' or '30 minutes'"):
            read_every(text)


def test_a_config_keeps_them_and_never_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(None, track=("tensorboard:curves", "wandb:fish"), publish="out", tensorboard=Path("more"))
    kept = to_keep(settings)
    assert kept["track"] == [f"tensorboard:{tmp_path}/curves", "wandb:fish"]
    assert kept["publish"] == str(tmp_path / "out")
    assert [str(outlet) for outlet in settings.peer.outlets] == [f"tensorboard:{tmp_path}/more", *kept["track"]]
    (tmp_path / "mine.toml").write_text('[peer]\ntrack = ["mlflow:https://me:hush@host"]\n')
    monkeypatch.setenv("SHOAL_PEER__PUBLISH_EVERY", "1 minutes")
    for config, flags in (("mine.toml", {}), (None, {"publish": "s3://KEY:hush@fish"})):
        with pytest.raises(ConfigError) as caught:
            load(config, **flags)  # type: ignore[arg-type]
        assert "hush" not in str(caught.value) and "no place in a" in str(caught.value)
    with pytest.raises(ConfigError, match="track names one place twice"):
        load(None, track=("wandb:x", "wandb:x"))


def test_urls_lose_their_passwords() -> None:
    assert redacted("no https://me:hush@host/x today") == "no https://…@host/x today"
    assert PeerConfig().outlets == ()
