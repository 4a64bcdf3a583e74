"""The version of what a state directory holds, so that an older shoal leaves alone what it would misread.

One number for all files in it. It is raised when a version before could not go on with what this one writes; what an
earlier one has written is always read. A directory that says nothing is of the first.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from configs.errors import StateError
from configs.files import read_model, write_json
from configs.protocol import UPDATE
from configs.text import clean

STATE_FORMAT = 1
FORMAT_FILE = "format.json"


class _Written(BaseModel):
    """Who wrote a state directory last."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    format: int = Field(default=1, ge=1)
    shoal: str = ""  # the version


def check_format(state_dir: Path) -> None:
    """Raise StateError, with the remedy, if a state directory was written by a version that is too new for this one."""
    remedy = "delete it, if no later version of shoal was ever started with this directory"
    written = read_model(state_dir / FORMAT_FILE, _Written, remedy)
    if written is not None and written.format > STATE_FORMAT:
        raise StateError(
            f"{state_dir} was written by shoal {clean(written.shoal) or 'of a later version'} in format "
            f"{written.format}; this version reads up to {STATE_FORMAT}: {UPDATE}, or give another --state-dir"
        )


def write_format(state_dir: Path, version: str) -> None:
    """Say that this version of shoal has written a state directory. Raises StateError if that cannot be written."""
    write_json(state_dir / FORMAT_FILE, {"format": STATE_FORMAT, "shoal": version})
