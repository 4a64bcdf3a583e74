"""Temporary files of a process that may be killed: noted, so that the next process in the same place removes them.

Who ends in peace removes its own. After a SIGKILL or a power cut nobody does, and each crash would leave some more.

Sockets lie among them, and the path of a socket may have 103 bytes (macOS; Linux 107): where the folder for temporary
files has a long name, a short one is taken.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from configs.errors import ShoalError, UsageError
from configs.files import discard, write_json

log = logging.getLogger(__name__)

SOCKET_BYTES = 103  # of a socket's path, at most
# Of the folder: in it lie a folder of ours, one of Python's multiprocessing, and its socket.
MOST_BYTES = SOCKET_BYTES - 50
NOTE = "temporary.json"  # in a state directory
PREFIXES = ("shoal-", "pymp-", "hivemind-")  # of what is noted; a note that names anything else is not believed


def take_short_folder() -> None:
    """See to it that sockets find room in this process's folder for temporary files, and in that of its children.

    Raises UsageError if no short folder can be written.
    """
    long = tempfile.gettempdir()
    if len(os.fsencode(long)) <= MOST_BYTES:
        return
    for folder in _short_folders():
        if len(os.fsencode(folder)) <= MOST_BYTES and os.access(folder, os.W_OK | os.X_OK):
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
            log.info("the path of %s is too long for sockets; temporary files go to %s", long, folder)
            return
    raise UsageError(
        f"the path of the folder for temporary files is too long for sockets, and /tmp cannot be written: {long}; set "
        f"TMPDIR to a folder whose path has at most {MOST_BYTES} bytes"
    )


def _short_folders() -> list[Path]:
    return [Path("/tmp"), *([Path(own)] if (own := os.environ.get("XDG_RUNTIME_DIR")) else [])]


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
        if path.parent in (Path(tempfile.gettempdir()), *_short_folders()) and path.name.startswith(PREFIXES):
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
