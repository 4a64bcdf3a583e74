"""What stands in a manifest: the files of a checkpoint or of a model, and the parts that a checkpoint's are cut into.

It is written last: whoever reads it finds all that it names. A checkpoint of run R by peer P lies below `R/P/` of a
target, as `shoal-checkpoint.json` and `parts/CONTENT_ID.bin`; a model lies there as it is, with `shoal-files.json`.
"""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from configs.content import CHUNK_BYTES
from configs.errors import DataError
from configs.files import first_problem
from configs.names import Count, Digest, Label, WallSeconds

CHECKPOINT, MODEL = "shoal-checkpoint.json", "shoal-files.json"
PARTS = "parts"
PART_BYTES = 64 * CHUNK_BYTES  # 16 MiB
MAX_PART_BYTES = 1 << 28
MAX_MANIFEST_BYTES = 1 << 26
# Of a checkpoint: nothing else of a state directory is taken, least of all a key.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
CHECKPOINT_PATH = (
    r"^(run\.json|domains\.bin|hints\.json|corpus/tokenizer\.json|corpus/blobs/[0-9a-f]{64}|"
    rf"(blocks|origin)/{_NAME})$"
)
MODEL_PATH = rf"^({_NAME}/)*{_NAME}$"
MAX_PATH_CHARS = 400

_STRICT = ConfigDict(frozen=True, extra="ignore", strict=True)


class Part(BaseModel):
    """A piece of a file."""

    model_config = _STRICT

    content_id: Digest
    size_bytes: Annotated[int, Field(gt=0, le=MAX_PART_BYTES)]

    @property
    def name(self) -> str:
        """Where it lies below the manifest's folder."""
        return f"{PARTS}/{self.content_id}.bin"


class CheckpointFile(BaseModel):
    """A file of a state directory, and its parts in order."""

    model_config = _STRICT

    path: Annotated[str, Field(max_length=MAX_PATH_CHARS, pattern=CHECKPOINT_PATH)]
    content_id: Digest
    size_bytes: Count
    parts: Annotated[tuple[Part, ...], Field(max_length=1 << 20)]
    version: Count = 0  # of a block: the outer steps that it has taken


class Checkpoint(BaseModel):
    """One peer's state, as it was at a moment."""

    model_config = _STRICT

    format: Literal[1] = 1
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    run_name: Label
    peer_id: Label
    age: Count  # tokens
    published_at: WallSeconds
    files: Annotated[tuple[CheckpointFile, ...], Field(max_length=4096)]

    @model_validator(mode="after")
    def _sums_up(self) -> "Checkpoint":
        for file in self.files:
            if sum(part.size_bytes for part in file.parts) != file.size_bytes:
                raise ValueError(f"the parts of {file.path} are not as large as it is")
        return self

    def parts(self) -> Iterator[Part]:
        """Yield the parts of all files."""
        return (part for file in self.files for part in file.parts)


class ModelFile(BaseModel):
    """A file of a model."""

    model_config = _STRICT

    path: Annotated[str, Field(max_length=MAX_PATH_CHARS, pattern=MODEL_PATH)]
    content_id: Digest
    size_bytes: Count


class Model(BaseModel):
    """A fused model."""

    model_config = _STRICT

    format: Literal[1] = 1
    files: Annotated[tuple[ModelFile, ...], Field(max_length=65_536)]


def read_checkpoint(data: bytes, where: str) -> Checkpoint:
    """Read a manifest that may be anybody's. Raises DataError."""
    try:
        return Checkpoint.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{where} is no checkpoint that this version reads: {first_problem(error)}") from None


def read_model_files(data: bytes, where: str) -> Model:
    """Read a manifest that may be anybody's. Raises DataError."""
    try:
        return Model.model_validate_json(data)
    except ValidationError as error:
        raise DataError(f"{where} is no list of files that this version reads: {first_problem(error)}") from None
