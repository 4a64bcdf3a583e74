"""Reads a preset: TOML, then `SHOAL_…` environment variables, then flags, each over the one before.

An environment variable names a key by its path: `SHOAL_PEER__STATUS_PORT=8080`, `SHOAL_RUN__TOTAL_TOKENS=1000`.
"""

import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from configs.errors import ConfigError
from configs.machine import NO_HINTS, Hints, PeerConfig
from configs.run import Frozen, RunPlan
from configs.unused import without_unused

PRESETS = Path(__file__).parent
FLAGS = {"devices": "--device"}  # that are not called as the key


class Settings(Frozen):
    """What a daemon is told: the run that it would found, if any, and this peer.

    `peer.model_fields_set` are the keys that somebody gave, now or at an earlier start; the others are defaults.
    """

    run: RunPlan | None = None
    peer: PeerConfig = Field(default_factory=PeerConfig)
    hints: Hints = NO_HINTS  # what the preset says for every peer; whoever founds a run passes it on
    given_by: dict[str, str] = Field(default_factory=dict)  # key of `peer` → what gave it now, such as "--port"
    kept: dict[str, Any] = Field(default_factory=dict)  # by the state directory, of earlier starts: `configs/kept.py`
    wants_pretrained: bool = False  # the preset says what it is with a pretrained model, and none was given
    left_out: tuple[str, ...] = ()  # keys of the preset that the strategy does not use which the environment has chosen
    run_variables: tuple[str, ...] = ()  # of the environment, that change the preset a run is founded with


class Machine(BaseSettings):
    """What a preset says of this machine, and the environment."""

    model_config = SettingsConfigDict(
        env_prefix="SHOAL_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    peer: PeerConfig = Field(default_factory=PeerConfig)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment over the file; flags are merged by `load`, which calls this with the file's values."""
        return env_settings, init_settings


class Preset(Machine):
    """A preset as read, and the environment."""

    run: RunPlan | None = None


def preset_path(name: str) -> Path:
    """Return the file of a preset that is given by its path or by its bare name (`tiny`)."""
    path = Path(name)
    if path.suffix != ".toml" and not path.exists():
        path = PRESETS / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise ConfigError(f"no preset at '{name}'; give the path of a TOML file or one of: {known}")
    return path


def load(config: str | None = None, **flags: Any) -> Settings:
    """Read a preset, the environment and `flags` (of the `peer` section; None means not given).

    A preset's table `pretrained` is over its `run` where a run shall begin with a pretrained model (`init_from`).
    Raises ConfigError: names the key, what was given and what is allowed.
    """
    values: dict[str, Any] = {}
    if config is not None:
        path = preset_path(config)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}; mend that line") from None
    given = {key: value for key, value in flags.items() if value is not None}
    tuned = values.pop("pretrained", None)
    changes = tuple(sorted(name for name in os.environ if name.upper().startswith("SHOAL_RUN__")))
    try:
        environment = EnvSettingsSource(Preset)()
        preset, left_out = _preset(values, environment)
        is_tuned = tuned is not None and (given.get("init_from") or preset.peer.init_from) is not None
        if tuned is not None:
            as_tuned = _tuned(values, tuned, environment, str(config))  # always: a mistake there is said at once
            preset, left_out = as_tuned if is_tuned else (preset, left_out)
        peer = PeerConfig.model_validate({**preset.peer.model_dump(exclude_unset=True), **given})
        variables = environment.get("peer", {})
    except ValidationError as error:
        raise ConfigError(describe(error, config or "the environment or flags")) from None
    except SettingsError as error:
        raise ConfigError(f"the environment: {error}; set the variable right, or unset it") from None
    table = values.get("peer", {})
    given_by = (
        {key: f"{config}'s {key}" for key in table}
        | {key: f"SHOAL_PEER__{key.upper()}" for key in variables}
        | {key: FLAGS.get(key, f"--{key.replace('_', '-')}") for key in given}
    )
    hints, wants = Hints.of(table), tuned is not None and not is_tuned
    told = {"hints": hints, "given_by": given_by, "wants_pretrained": wants}
    return Settings(run=preset.run, peer=peer, left_out=tuple(left_out), run_variables=changes, **told)


def _preset(values: dict[str, Any], environment: dict[str, Any]) -> tuple[Preset, list[str]]:
    """Return a preset under the environment, and which of its keys that makes useless. Raises ValidationError.

    Without a `[run]` what the environment says of one founds nothing: it is left to those who ask for a run to say so.
    """
    run = values.get("run")
    if run is None:
        try:
            return Preset(**values), []
        except ValidationError:
            return Preset.model_construct(run=None, peer=Machine(**values).peer), []
    said = environment.get("run")
    kept, left_out = without_unused(run, said) if isinstance(run, dict) and isinstance(said, dict) else (run, [])
    return Preset(**{**values, "run": kept}), left_out


def _tuned(values: dict[str, Any], tuned: Any, environment: dict[str, Any], config: str) -> tuple[Preset, list[str]]:
    """Return a preset with its table `pretrained` over its `run`. Raises ConfigError, which names both."""
    try:
        return _preset({**values, "run": _over(values.get("run"), tuned)}, environment)
    except ValidationError as error:
        raise ConfigError(describe(error, f"{config}, with its [pretrained] over its [run]")) from None


def _over(below: Any, above: Any) -> Any:
    """Return a table with another over it, key by key, however deep; of anything else what is above."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {**below, **{key: _over(below.get(key), value) for key, value in above.items()}}


def describe(error: ValidationError, where: str) -> str:
    """Say in one line which keys of `where` are bad, what was given and what is allowed."""
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "the preset"
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: no such key")
        elif problem["type"] == "missing":
            lines.append(f"{key}: is required")
        elif problem["loc"] and not isinstance(problem["input"], dict):
            lines.append(f"{key} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}")
    return f"{where}: " + "; ".join(lines)
