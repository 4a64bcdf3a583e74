"""Flags are over the environment, that is over the preset; a mistake is one line that names the key."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import PRESETS, load, preset_path
from configs.machine import default_state_dir


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_the_presets_are_valid(preset: str) -> None:
    settings = load(preset)
    assert settings.run is not None and settings.run.name == preset


def test_without_a_preset_there_is_a_peer_and_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert load().run is None
    assert default_state_dir() == tmp_path / "shoal"


def test_flags_are_over_the_environment_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text((PRESETS / "tiny.toml").read_text() + "\n[peer]\nthreads = 2\nport = 1\ncopies = 4\n")
    assert (load(str(preset)).peer.threads, load(str(preset)).peer.port) == (2, 1)
    monkeypatch.setenv("SHOAL_PEER__THREADS", "3")
    monkeypatch.setenv("SHOAL_PEER__PORT", "2")
    monkeypatch.setenv("SHOAL_RUN__TOTAL_TOKENS", "5000000")
    monkeypatch.setenv("SHOAL_RUN__MODEL__NUM_LAYERS", "2")
    settings = load(str(preset), port=9, host=None)
    assert (settings.peer.threads, settings.peer.port, settings.peer.copies) == (3, 9, 4)
    assert settings.peer.host == "0.0.0.0"  # a flag of None was not given
    assert settings.run is not None
    assert settings.run.total_tokens == 5_000_000
    assert (settings.run.model.num_layers, settings.run.model.hidden_size) == (2, 128)  # the rest of a section stays


def test_with_a_pretrained_model_a_preset_is_what_it_says_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    from_nothing, tuned = load("answer"), load("answer", init_from=Path("model"))
    assert from_nothing.run is not None and tuned.run is not None
    assert (from_nothing.run.strategy.kind, tuned.run.strategy.kind) == ("replicas", "adapters")
    assert (from_nothing.wants_pretrained, tuned.wants_pretrained) == (True, False)
    assert not load("tiny").wants_pretrained and not load("tiny", init_from=Path("model")).wants_pretrained
    assert tuned.run.inner.optimizer == "adamw"
    assert tuned.run.rounds.cut_share == from_nothing.run.rounds.cut_share  # what it does not say stays
    monkeypatch.setenv("SHOAL_RUN__INNER__LEARNING_RATE", "0.5")
    assert load("answer", init_from=Path("model")).run.inner.learning_rate == 0.5  # type: ignore[union-attr]
    monkeypatch.setenv("SHOAL_PEER__INIT_FROM", "model")
    assert load("answer").run.strategy.kind == "adapters"  # type: ignore[union-attr]


@pytest.mark.parametrize("given", [{}, {"init_from": Path("model")}])
def test_a_mistake_in_what_a_preset_says_of_pretrained_models_is_said_in_any_case(
    tmp_path: Path, given: dict[str, Path]
) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text((PRESETS / "answer.toml").read_text().replace('"adamw"', '"sgd"'))
    with pytest.raises(ConfigError, match=r"mine.toml, with its \[pretrained\] over .*run.inner.optimizer = 'sgd'"):
        load(str(preset), **given)


def test_one_key_from_the_environment_keeps_a_section_s_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_PEER__COPIES", "5")
    assert (load().peer.copies, load().peer.keep_ticks) == (5, 8)


def test_an_unknown_preset_names_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"no preset at 'huge'.*small.*tiny"):
        preset_path("huge")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("num_layers = 4", "num_layers = 0", ["run.model.num_layers = 0", "greater than or equal to 1"]),
        ("num_layers = 4", "layers = 4", ["run.model.layers: no such key", "run.model.num_layers: is required"]),
        ("num_heads = 4", "num_heads = 3", ["run.model: hidden_size 128 must be a multiple of num_heads 3"]),
        ('kind = "experts"', 'kind = "soup"', ["run.strategy.kind = 'soup'", "'experts'"]),
        ("[run.rounds]", "[pear]\n[run.rounds]", ["pear: no such key"]),
        ("[run.rounds]", "[run.rounds", ["not valid TOML"]),
    ],
)
def test_a_bad_preset_is_one_line(tmp_path: Path, old: str, new: str, says: list[str]) -> None:
    text = (PRESETS / "tiny.toml").read_text()
    assert text.count(old) == 1
    bad = tmp_path / "bad.toml"
    bad.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as error:
        load(str(bad))
    line = str(error.value)
    assert line.startswith(str(bad)) and "\n" not in line
    assert all(part in line for part in says), line


@pytest.mark.parametrize(("name", "value"), [("SHOAL_PEER__PORT", "99999"), ("SHOAL_PEER", "{")])
def test_a_bad_environment_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="the environment") as error:
        load()
    assert "\n" not in str(error.value)


def test_a_bad_flag_is_named() -> None:
    with pytest.raises(ConfigError, match=r"port = 99999"):
        load("tiny", port=99999)
