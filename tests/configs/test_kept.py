"""What a machine was told comes back at its next start, over the founder's hints and under what is given then."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from configs.errors import StateError
from configs.kept import MACHINE_FILE, recall, spell_kept, to_keep, unknown_keys, with_kept
from configs.load import Settings, load
from configs.machine import NO_HINTS, Hints, PeerConfig

LAYERS = ["default", "hint", "kept", "preset", "environment", "flag"]  # each goes over those before it
VALUES = {layer: number for number, layer in enumerate(LAYERS)}  # of `threads`, whose default is 0


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Settings]:
    """Return a function that gives `threads` by some of the layers and returns what comes of it."""

    def tell(*layers: str) -> Settings:
        preset = tmp_path / "mine.toml"
        preset.write_text(f"[peer]\nthreads = {VALUES['preset']}\n" if "preset" in layers else "")
        if "environment" in layers:
            monkeypatch.setenv("SHOAL_PEER__THREADS", str(VALUES["environment"]))
        flags = {"threads": VALUES["flag"]} if "flag" in layers else {}
        settings = load(str(preset), state_dir=tmp_path, **flags)
        settings = with_kept(settings, {"threads": VALUES["kept"]} if "kept" in layers else {})
        hints = Hints(threads=VALUES["hint"]) if "hint" in layers else NO_HINTS
        taken = hints.new_to(settings.peer)
        return settings.model_copy(update={"peer": settings.peer.model_copy(update=taken)})

    return tell


PAIRS = [(below, above) for at, above in enumerate(LAYERS) for below in LAYERS[:at]]


@pytest.mark.parametrize(("below", "above"), PAIRS)
def test_each_layer_goes_over_those_before_it(told: Callable[..., Settings], below: str, above: str) -> None:
    assert told(below, above).peer.threads == VALUES[above]


def test_all_layers_at_once(told: Callable[..., Settings]) -> None:
    assert told(*LAYERS).peer.threads == VALUES["flag"]


def test_there_is_a_pair_for_every_step() -> None:
    assert set(pairwise(LAYERS)) <= set(PAIRS) and len(PAIRS) == 15


def test_only_what_was_given_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOAL_PEER__UP_MBIT", "20")
    preset = tmp_path / "mine.toml"
    preset.write_text('[peer]\nthreads = 2\nannounce = ["/ip4/203.0.113.7/tcp/4001"]\n')
    one_start: dict[str, Any] = {"initial_peers": ("x",), "run_id": "0" * 32, "init_from": Path("llama")}
    settings = load(str(preset), state_dir=tmp_path, data=Path("corpus"), port=4001, private=True, **one_start)
    kept = to_keep(settings)
    assert kept == {
        "announce": ["/ip4/203.0.113.7/tcp/4001"],
        "data": str(tmp_path / "corpus"),  # absolute: the next start may be from elsewhere
        "port": 4001,
        "private": True,
        "threads": 2,
        "up_mbit": 20.0,
    }
    monkeypatch.delenv("SHOAL_PEER__UP_MBIT")
    (tmp_path / MACHINE_FILE).write_text(json.dumps(kept))
    again = recall(load(state_dir=tmp_path))
    gone = {"initial_peers": (), "run_id": None, "init_from": None}
    assert again.peer == settings.peer.model_copy(update={**gone, "data": tmp_path / "corpus"})
    assert to_keep(again) == kept  # also of a start that gave nothing


def test_a_hint_is_not_kept(tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path)
    assert Hints(threads=1).new_to(settings.peer) == {"threads": 1} and to_keep(settings) == {}


def test_without_a_file_nothing_changes(tmp_path: Path) -> None:
    settings = load("tiny", state_dir=tmp_path)
    assert recall(settings) == settings and spell_kept(settings) is None
    (tmp_path / "a file").touch()
    beneath = load("tiny", state_dir=tmp_path / "a file")
    assert recall(beneath) == beneath  # whose lock says what is wrong


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is damaged"),
        (b'{"port": 4001,}', "is damaged"),
        (b"\xff\xfe", "is damaged"),
        (b"[1]", "it holds no object"),
        (b'{"port": 99999}', "port = 99999"),
        (b'{"up_mbit": NaN}', "up_mbit"),
        (b'{"data": 3}', "data = 3"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / MACHINE_FILE).write_bytes(content)
    with pytest.raises(StateError) as error:
        recall(load("tiny", state_dir=tmp_path))
    line = str(error.value)
    assert line.startswith(str(tmp_path / MACHINE_FILE)) and "\n" not in line
    assert says in line and "correct it, or delete it" in line


def test_what_a_later_version_keeps_is_passed_over_and_left(tmp_path: Path) -> None:
    kept = {"a_new_key": [1], "port": 4001, "run_id": "0" * 32}  # the last one by hand
    (tmp_path / MACHINE_FILE).write_text(json.dumps(kept))
    settings = recall(load(state_dir=tmp_path))
    assert (settings.peer.port, settings.peer.run_id) == (4001, None)
    assert unknown_keys(settings) == ["a_new_key", "run_id"]
    assert to_keep(settings) == kept


def test_what_comes_back_and_what_replaces_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = {"data": "/x/corpus", "port": 4001, "threads": 2, "log_level": "debug", "devices": ["cpu"], "host": "::"}
    monkeypatch.setenv("SHOAL_PEER__LOG_LEVEL", "info")
    flags: dict[str, Any] = {"port": 4002, "devices": ("cuda:0", "cuda:1"), "host": "::"}
    preset = tmp_path / "mine.toml"
    preset.write_text("[peer]\nthreads = 1\n")
    settings = with_kept(load(str(preset), state_dir=tmp_path, **flags), kept)
    assert spell_kept(settings) == (
        f"kept settings of this machine (from {tmp_path / MACHINE_FILE}): data /x/corpus; "
        "--device cuda:0 and cuda:1 replaces cpu; SHOAL_PEER__LOG_LEVEL info replaces debug; "
        f"--port 4002 replaces 4001; {preset}'s threads 1 replaces 2"
    )
    said = spell_kept(with_kept(load(state_dir=tmp_path), {"private": True, "announce": []}))
    assert said is not None and said.endswith(": announce none, private yes")
    same = with_kept(load(state_dir=tmp_path, port=4001), {"port": 4001})
    assert spell_kept(same) is None


def test_another_value_is_kept_from_then_on(tmp_path: Path) -> None:
    settings = with_kept(load(state_dir=tmp_path, port=4002, private=False), {"port": 4001, "private": True})
    assert to_keep(settings) == {"port": 4002, "private": False}


def test_a_preset_s_hints_are_what_goes_for_every_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHOAL_PEER__COPIES", "5")
    preset = tmp_path / "mine.toml"
    preset.write_text('[peer]\nthreads = 2\nport = 4001\nprecision = "float32"\nkeep_ticks = 5000\n')
    settings = load(str(preset), threads=8)
    assert settings.peer.keep_ticks == 5000
    assert settings.hints == Hints(
        threads=2, precision="float32"
    )  # neither the founder's own nor what is out of bounds
    assert load().hints == NO_HINTS and NO_HINTS.model_dump() == {}


def test_hints_say_only_what_they_change() -> None:
    hints = Hints(threads=4, copies=3, precision="bfloat16")
    assert hints.new_to(PeerConfig(precision="float32")) == {"threads": 4}  # 3 copies are the default
    assert Hints(threads=0).new_to(PeerConfig()) == {}
