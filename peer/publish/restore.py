"""Takes a published checkpoint back into a state directory: to fuse it, or to go on with its run.

Several peers may have published below one target: of each block the newest state is taken. Nothing is believed before
its hash is right. (Nor is torch needed: `shoal start` does this before anything else.)
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from configs.content import content_id_of
from configs.errors import DataError, UsageError
from configs.files import disk_errors, put_in_place
from configs.outlets import Target
from peer.publish.manifest import CHECKPOINT, MAX_MANIFEST_BYTES, MAX_PART_BYTES, Checkpoint, CheckpointFile
from peer.publish.manifest import read_checkpoint as read
from peer.publish.opening import open_place
from peer.publish.places import Place, content_id_of_file

log = logging.getLogger(__name__)

RUN_FILE = "run.json"

Found = tuple[Place, Checkpoint]


def holds_checkpoint(target: Target) -> bool:
    """Whether a checkpoint was published below a target; raises what the place raises."""
    return any(name.rpartition("/")[2] == CHECKPOINT for name in open_place(target).sizes())


def restore(target: Target, folder: Path) -> Checkpoint:
    """Write the newest state of a run that was published below `target` into a state directory.

    What lies there whole, of a restore that was interrupted, is not fetched again; the run is written last. Returns the
    newest checkpoint. Raises UsageError (nothing is there, or several runs), DataError (damaged), and what the place
    raises.
    """
    found = _checkpoints(target)
    runs = sorted({checkpoint.run_id for _, checkpoint in found})
    if not runs:
        raise UsageError(f"{target} holds no checkpoint; `shoal start --publish TARGET` pushes them")
    if len(runs) > 1:
        raise UsageError(f"{target} holds several runs ({', '.join(runs)}): say which, as in {target.below(runs[0])}")
    newest = max((checkpoint for _, checkpoint in found), key=lambda each: each.published_at)
    files = _chosen(found)
    for path in sorted(files, key=lambda path: path == RUN_FILE):
        _fetch(*files[path], folder / path)
    return newest


def _checkpoints(target: Target) -> list[Found]:
    place = open_place(target)
    found = []
    for name in sorted(place.sizes()):
        folder, _, last = f"/{name}".rpartition("/")
        if last == CHECKPOINT and (data := place.read(name, MAX_MANIFEST_BYTES)) is not None:
            where = target.below(folder.strip("/"))
            found.append((open_place(where), read(data, f"{target}/{name}")))
    return found


def _chosen(found: Sequence[Found]) -> dict[str, tuple[Place, CheckpointFile]]:
    """Return each file of the newest version, and of one version that of the newest checkpoint; pure."""
    chosen: dict[str, tuple[Place, CheckpointFile]] = {}
    for place, checkpoint in sorted(found, key=lambda each: each[1].published_at):
        for file in checkpoint.files:
            if file.path not in chosen or file.version >= chosen[file.path][1].version:
                chosen[file.path] = place, file
    return chosen


def _fetch(place: Place, file: CheckpointFile, path: Path) -> None:
    if path.is_file() and path.stat().st_size == file.size_bytes and content_id_of_file(path) == file.content_id:
        return
    beside = path.with_name(f".{path.name}.part")
    with disk_errors(path, file.size_bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as out:
                for data in _parts(place, file):
                    out.write(data)
                out.flush()
            if content_id_of_file(beside) != file.content_id:
                raise DataError(f"{file.path} is damaged where it was published; push it again")
            put_in_place(beside, path)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


def _parts(place: Place, file: CheckpointFile) -> Iterator[bytes]:
    for part in file.parts:
        data = place.read(part.name, MAX_PART_BYTES)
        if data is None:
            raise DataError(f"{part.name} of {file.path} is not there: a newer checkpoint took its place; try again")
        if len(data) != part.size_bytes or content_id_of(data) != part.content_id:
            raise DataError(f"{part.name} of {file.path} is damaged where it was published; delete it, and push again")
        yield data
