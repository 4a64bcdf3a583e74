"""Temporary files of a process that may be killed: noted, so that the next process in the same place removes them.

Who ends in peace removes its own. After a SIGKILL or a power cut nobody does, and each crash would leave some more.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from configs.errors import ShoalError
from configs.files import discard, write_json

NOTE = "temporary.json"  # in a state directory
PREFIXES = ("shoal-", "pymp-", "hivemind-")  # of what is noted; a note that names anything else is not believed


def note_temporary(note: Path, paths: Sequence[Path]) -> None:
    """Write down, in `note`, which temporary files and folders this process has. Raises StateError."""
    write_json(note, {"pid": os.getpid(), "paths": [str(path) for path in paths]})


@contextmanager
def remove_noted(note: Path) -> Iterator[None]:
    """Remove what a process that was killed has noted, and, in the end, the note of this one, which has ended in peace.

    For a place that one process has at a time. A note that is damaged is passed over. Peace is a ShoalError as well.
    """
    _remove(note)
    try:
        yield
    except ShoalError:
        discard(note)
        raise
    discard(note)


def _remove(note: Path) -> None:
    try:
        said = json.loads(note.read_bytes())
        pid, paths = int(said["pid"]), [Path(str(path)) for path in said["paths"]]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if _lives(pid):  # it is this one, which holds the place once more, or the one of whose place this is a copy
        return
    for path in paths:
        if path.parent in (Path(tempfile.gettempdir()), Path("/tmp")) and path.name.startswith(PREFIXES):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is somebody else's
        return True
    return pid > 0
