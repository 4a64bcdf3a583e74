"""What this machine was told once and need not be told again: `machine.json` in the state directory.

In it are the settings that a preset, the environment or a flag gave, never defaults or hints. They come back at the
next start, under whatever is given then. The daemon writes the file (`peer/daemon.py`) when it has begun: a start
that fails, at a taken port for instance, changes nothing.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from configs.errors import StateError
from configs.files import read_json, write_json
from configs.limits import Limits
from configs.load import Settings, describe
from configs.machine import PeerConfig

MACHINE_FILE = "machine.json"
FOR_ONE_START = frozenset(
    {"state_dir", "initial_peers", "run_id", "init_from", "base", "closed", "invitation", "status_token"}
)
KEYS = PeerConfig.model_fields.keys() - FOR_ONE_START
REMEDY = "correct it, or delete it and give this machine's settings anew"


def recall(settings: Settings) -> Settings:
    """Return `settings` with what their state directory keeps, wherever nothing was given now.

    Raises StateError, which names the file, if that is damaged.
    """
    path = settings.peer.state_dir / MACHINE_FILE
    kept = read_json(path, REMEDY)
    if kept is None:
        return settings
    try:
        return with_kept(settings, kept)
    except ValidationError as error:
        raise StateError(f"{describe(error, str(path))}; {REMEDY}") from None


def with_kept(settings: Settings, kept: dict[str, Any]) -> Settings:
    """Return `settings` with what is `kept` under what was given. Raises ValidationError if it is not allowed."""
    known = PeerConfig.model_validate({key: value for key, value in kept.items() if key in KEYS})
    given = settings.peer.model_dump(exclude_unset=True)
    peer = PeerConfig.model_validate({**known.model_dump(exclude_unset=True), **given})
    return settings.model_copy(update={"peer": peer, "kept": kept})


def to_keep(settings: Settings) -> dict[str, Any]:
    """Return what the state directory shall keep, as JSON. What a later version keeps there is left as it is."""
    return {**settings.kept, **_as_json(settings.peer)}


def keep_limits(state_dir: Path, change: Limits) -> None:
    """Write the limits that were changed to what is kept: they hold at the next start, too. Raises StateError."""
    path = state_dir / MACHINE_FILE
    write_json(path, {**(read_json(path, REMEDY) or {}), **change.model_dump(exclude_unset=True)})


def unknown_keys(settings: Settings) -> list[str]:
    """Return the keys that are kept, by another version or by hand, and that mean nothing here."""
    return sorted(settings.kept.keys() - KEYS)


def spell_kept(settings: Settings) -> str | None:
    """Say in one line which kept settings come back and what replaces the others; None if there is nothing to say."""
    now, before = _as_json(settings.peer), {key: settings.kept[key] for key in sorted(settings.kept.keys() & KEYS)}
    back = {key: now[key] for key in before if key not in settings.given_by}
    replaced = [
        f"{settings.given_by[key]} {_spelled(now[key])} replaces {_spelled(value)}"
        for key, value in before.items()
        if key in settings.given_by and now[key] != value
    ]
    parts = [*([spell(back)] if back else []), *replaced]
    if not parts:
        return None
    return f"kept settings of this machine (from {settings.peer.state_dir / MACHINE_FILE}): {'; '.join(parts)}"


def spell(values: dict[str, Any]) -> str:
    """Return settings as people read them: `data /x/corpus, port 4001`."""
    return ", ".join(f"{key} {_spelled(value)}" for key, value in values.items())


def _as_json(peer: PeerConfig) -> dict[str, Any]:
    """Return what was given of `peer` and may be kept. Paths are absolute: the next start may be from elsewhere."""
    given = peer.model_dump(include=peer.model_fields_set & KEYS)
    return {
        key: str(value.absolute()) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for key, value in given.items()
    }


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " and ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
