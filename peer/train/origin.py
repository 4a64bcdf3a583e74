"""What a pretrained model says of itself beside its weights: kept through a run, and found again in what is fused.

A few facts stand in the run spec. The small files (chat template, generation and tokenizer configuration) are never
taken from a peer, as a template is a program: who founds a run keeps those of its own directory, and anybody can name
a copy of the model when it fuses.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from configs.errors import DataError
from configs.files import read_bytes, read_json, write_file
from configs.load import describe
from configs.run import OriginSpec

GENERATION_FILE = "generation_config.json"
FILES = (  # beside config.json, tokenizer.json and the weights
    GENERATION_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
MAX_FILE_BYTES = 1 << 22
FOLDER = "origin"  # in a state directory
CARD = "README.md"
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # as safetensors calls them
REMEDY = "name the directory of a Hugging Face model"


def read_origin(folder: Path, longest: int) -> OriginSpec:
    """Return what the model in `folder` says of itself; it reads at most `longest` tokens. Raises DataError."""
    config = read_json(folder / "config.json", REMEDY, DataError) or {}
    generation = read_json(folder / GENERATION_FILE, REMEDY, DataError) or {}

    def token(key: str) -> Any:
        return generation.get(key) if generation.get(key) is not None else config.get(key)

    ends = token("eos_token_id")
    card = _card(folder)
    name = str(config.get("_name_or_path") or "")
    try:
        return OriginSpec(
            name=name if "/" in name and not Path(name).exists() else folder.resolve().name,
            licence=card.get("license", ""),
            dtype=_dtype(folder, config),
            context_length=longest,
            begin=token("bos_token_id"),
            ends=() if ends is None else tuple(ends) if isinstance(ends, list) else (ends,),
            pad=token("pad_token_id"),
        )
    except ValidationError as error:
        raise DataError(describe(error, str(folder))) from None


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the small files of a model's directory. Raises DataError if one is too large, or cannot be read."""
    found = {}
    for name in FILES:
        data = read_bytes(folder / name, REMEDY, DataError)
        if data is None:
            continue
        if len(data) > MAX_FILE_BYTES:
            raise DataError(
                f"{folder / name} has {len(data)} bytes, and at most {MAX_FILE_BYTES} are taken; shorten or remove it"
            )
        found[name] = bytes(data)
    return found


def keep_files(files: Mapping[str, bytes], state_dir: Path) -> None:
    """Write a model's small files into a state directory. Raises StateError."""
    for name, data in files.items():
        write_file(state_dir / FOLDER / name, data)


def _dtype(folder: Path, config: Mapping[str, Any]) -> str:
    """Return in which of the known dtypes all of the weights can be kept: what they are in, or float32."""
    found = set()
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                found |= {DTYPES.get(file.get_slice(name).get_dtype(), "float32") for name in names}
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} cannot be read: {error}; take another copy of the model") from None
    return found.pop() if len(found) == 1 else "float32"


def _card(folder: Path) -> dict[str, str]:
    """Return the simple lines at the head of a model card: `license: apache-2.0`."""
    data = read_bytes(folder / CARD, REMEDY, DataError)
    if data is None or data[:4] != b"---\n":
        return {}
    head = bytes(data[4 : 1 << 16]).decode(errors="replace").split("\n---", 1)[0]
    pairs = (line.partition(":") for line in head.splitlines() if not line.startswith((" ", "-")))
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
