"""A preset's keys that the chosen strategy does not use are left out; what somebody gave himself is refused."""

from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.load import PRESETS, load
from configs.unused import without_unused

TINY = (PRESETS / "tiny.toml").read_text()


def chosen(monkeypatch: pytest.MonkeyPatch, kind: str, **other: str) -> None:
    for key, value in {"STRATEGY__KIND": kind, **other}.items():
        monkeypatch.setenv(f"SHOAL_RUN__{key}", value)


@pytest.mark.parametrize(
    ("kind", "extra", "left_out"),
    [
        ("replicas", "", ("strategy.common_tokens",)),
        ("replicas", "parts = 2\n", ()),  # of which the common phase has an end
        ("branches", "parts = 2\n", ("strategy.parts",)),
        ("adapters", "", ("inner.optimizer",)),  # muon, which adapters have no use for
        ("experts", "parts = 2\n", ("strategy.parts",)),
        ("branches", "[run.model.adapter]\nrank = 4\n", ("model.adapter",)),
    ],
)
def test_what_the_chosen_strategy_does_not_use(
    kind: str, extra: str, left_out: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "replicas" if "parts" in extra else "experts"
    preset = TINY.replace('kind = "experts"\n', f'kind = "{own}"\n{extra if "parts" in extra else ""}')
    path = tmp_path / "mine.toml"
    path.write_text(preset + ("" if "parts" in extra else f"\n{extra}"))
    if kind == own == "replicas":
        monkeypatch.setenv("SHOAL_RUN__TOTAL_TOKENS", "5000000")
    chosen(monkeypatch, kind)
    settings = load(str(path))
    assert settings.run is not None and settings.run.strategy.kind == kind
    assert settings.left_out == left_out


def test_fewer_tokens_than_the_common_phase_of_a_strategy_that_was_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(monkeypatch, "replicas", TOTAL_TOKENS="1000")
    run = load("tiny").run
    assert run is not None and (run.strategy.common_tokens, run.total_tokens) == (0, 1000)


@pytest.mark.parametrize(
    ("kind", "other", "says"),
    [
        ("branches", {"STRATEGY__PARTS": "2"}, "parts is only for kind replicas, not for branches"),
        ("branches", {"MODEL__ADAPTER__RANK": "4"}, "model.adapter is only for strategy.kind adapters"),
        ("adapters", {"INNER__OPTIMIZER": "muon"}, "inner.optimizer muon is for whole matrices"),
        ("replicas", {"STRATEGY__COMMON_TOKENS": "5000000"}, "common_tokens 5000000 exceeds total_tokens 4000000"),
    ],
)
def test_what_somebody_gave_himself_is_refused(
    kind: str, other: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(monkeypatch, kind, **other)
    with pytest.raises(ConfigError, match=says):
        load("tiny")


def test_a_preset_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(TINY.replace('kind = "experts"', 'kind = "experts"\nparts = 2'))
    with pytest.raises(ConfigError, match="parts is only for kind replicas"):
        load(str(path))


def test_tables_that_are_none_stay_as_they_are() -> None:
    """What is wrong with them is said by whoever reads them."""
    run = {"strategy": "soup", "model": 3}
    assert without_unused(run, {"strategy": {"kind": "branches"}}) == (run, [])
