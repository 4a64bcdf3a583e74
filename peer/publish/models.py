"""Pushes and pulls fused models: files by their own names, so that anything that loads models loads them there."""

import re
from collections.abc import Callable
from pathlib import Path

from configs.errors import DataError, UsageError
from configs.files import disk_errors, put_in_place
from configs.outlets import Target
from peer.publish.manifest import MAX_MANIFEST_BYTES, MODEL, MODEL_PATH, Model, ModelFile, read_model_files
from peer.publish.opening import open_place
from peer.publish.places import content_id_of_file

Report = Callable[[str, int, int], None]  # what, done, of how many


def push_model(folder: Path, target: Target, report: Report) -> tuple[int, int]:
    """Push a model; return how many files were sent, and of how many. The list of them is written last.

    What an interrupted push has sent is not sent again. On the hub all appears in one commit; elsewhere the list of
    another model is removed first, so that nobody takes a mixture for a model.
    Raises UsageError (no model), and what the place raises.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [path for path in paths if not any(p.startswith(".") for p in path.relative_to(folder).parts)]
    names = [path.relative_to(folder).as_posix() for path in paths]
    if not {"config.json", "shoal.json", "adapter_config.json", "model.gguf"} & {path.name for path in paths}:
        raise UsageError(f"{folder} holds no model; `shoal fuse` writes one")
    if strange := [name for name in names if not re.fullmatch(MODEL_PATH, name)]:
        raise UsageError(f"{folder / strange[0]}: only letters, digits and _.+- may be in a name; rename the file")
    files = [
        ModelFile(path=name, content_id=content_id_of_file(path), size_bytes=path.stat().st_size)
        for name, path in zip(names, paths, strict=True)
        if name != MODEL
    ]
    place, manifest = open_place(target), Model(files=tuple(files))
    data = manifest.model_dump_json(indent=1).encode()
    before = place.read(MODEL, MAX_MANIFEST_BYTES)
    if before == data:
        return 0, len(files)
    if before is not None:
        place.commit(MODEL, b"", [MODEL])
    sent = 0
    for done, file in enumerate(files):
        report("pushing", done, len(files))
        sent += place.put_file(file.path, folder / file.path, file.content_id)
    place.commit(MODEL, data)
    report("pushing", len(files), len(files))
    return sent, len(files)


def pull_model(target: Target, folder: Path, report: Report) -> int:
    """Write a model that was pushed into a folder; return how many files it has. Raises UsageError, DataError."""
    place = open_place(target)
    data = place.read(MODEL, MAX_MANIFEST_BYTES)
    if data is None:
        raise UsageError(
            f"{target} holds neither a checkpoint nor a model of ours, or one that is just being pushed; look at "
            "the target, or try again"
        )
    files = read_model_files(data, f"{target}/{MODEL}").files
    for done, file in enumerate(files):
        report("pulling", done, len(files))
        path = folder / file.path
        if path.is_file() and path.stat().st_size == file.size_bytes and content_id_of_file(path) == file.content_id:
            continue
        beside = path.with_name(f".{path.name}.part")
        place.fetch(file.path, beside)
        if content_id_of_file(beside) != file.content_id:
            beside.unlink()
            raise DataError(f"{file.path} at {target} is not what its list says; push the model again")
        with disk_errors(path):
            put_in_place(beside, path)
    report("pulling", len(files), len(files))
    return len(files)
