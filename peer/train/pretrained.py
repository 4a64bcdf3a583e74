"""A Hugging Face directory with which a run is founded: the sizes of its model, and the parameters.

Of a plain Llama JSON and safetensors are read; any other causal LM is read by its family (`family.py`). Nothing is run,
and what no run can have is refused in one line.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from configs.content import content_id_of_pieces
from configs.errors import DataError
from configs.files import discard, disk_errors, put_in_place, read_bytes, read_json
from configs.load import describe
from configs.run import ModelSpec, OriginSpec, RunSpec
from peer.corpus.data import TOKENIZER_FILE, Corpus
from peer.train.adapters import base_dtype
from peer.train.origin import read_origin
from peer.train.partition import parameter_shapes

ARCHITECTURE = "LlamaForCausalLM"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
FREQUENCIES = ".rotary_emb.inv_freq"  # in old files; they follow from rope_theta
WIDENED = (torch.float32, torch.float16, torch.bfloat16)

SIZES = {  # of a ModelSpec → as Transformers calls them
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "mlp_size": "intermediate_size",
}
ONLY = {  # key of config.json → the value that every run has, and that Transformers takes when the key is not there
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}


def read_pretrained(folder: Path, plan: ModelSpec) -> tuple[ModelSpec, OriginSpec]:
    """Return what the model in `folder` is, and what it says of itself.

    It is to be trained with the context length and the adapter of `plan`.

    Raises DataError: no such directory, or a model that no run can have; says which key of its config.json is why.
    """
    path = folder / CONFIG
    config = _read_json(path)
    spec, longest = _described(path, config, plan)
    origin = read_origin(folder, longest)
    if spec.adapter is not None:
        adapter = spec.adapter.model_copy(update={"base_dtype": origin.dtype})
        spec = spec.model_copy(update={"adapter": adapter})
    return spec, origin


def _described(path: Path, config: Mapping[str, Any], plan: ModelSpec) -> tuple[ModelSpec, int]:
    """Return the sizes of a model, and the longest text that it reads.

    Raises DataError.
    """
    rope = {key: config.get(key) or {} for key in ("rope_scaling", "rope_parameters")}
    if not all(isinstance(part, dict) for part in rope.values()):
        raise DataError(f"{path}: rope_scaling and rope_parameters must be tables; take the model as it was published")
    rotary = {**rope["rope_scaling"], **rope["rope_parameters"]}
    if not _is_plain(config, rotary):
        return _of_its_family(path, config, plan)
    lacking = [key for key in (*SIZES.values(), "max_position_embeddings") if key not in config]
    if lacking:
        raise DataError(f"{path} does not say {', '.join(lacking)}; add what is missing")
    try:
        spec = ModelSpec.model_validate(
            {own: config[key] for own, key in SIZES.items()}
            | {
                "num_kv_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
                "context_length": plan.context_length,
                "adapter": plan.adapter,
                "rope_theta": rotary.get("rope_theta", config.get("rope_theta", 10_000.0)),
                "rms_norm_eps": config.get("rms_norm_eps", 1e-6),
                "tie_embeddings": config.get("tie_word_embeddings", False),
            }
        )
    except ValidationError as error:
        raise DataError(describe(error, str(path))) from None
    return spec, _longest(path, config["max_position_embeddings"], spec)


def _is_plain(config: Mapping[str, Any], rotary: Mapping[str, Any]) -> bool:
    """Say whether the model is a Llama that a `ModelSpec` describes by its sizes alone."""
    if config.get("model_type") != "llama" or (config.get("architectures") or [ARCHITECTURE]) != [ARCHITECTURE]:
        return False
    if rotary.get("rope_type", rotary.get("type", "default")) != "default":
        return False
    heads, hidden, head_size = (config.get(key) for key in ("num_attention_heads", "hidden_size", "head_dim"))
    has_even_heads = not isinstance(heads, int) or not isinstance(hidden, int) or head_size in (None, hidden // heads)
    return has_even_heads and all(rotary.get(key, config.get(key, value)) == value for key, value in ONLY.items())


def _of_its_family(path: Path, config: Mapping[str, Any], plan: ModelSpec) -> tuple[ModelSpec, int]:
    """Return what a model of another kind is: its sizes with its own configuration, and the longest text it reads."""
    from peer.train import family

    text = family.canonical(config, str(path))
    try:
        full = family.config_of(text)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    heads = full.num_attention_heads
    try:
        spec = ModelSpec.model_validate(
            {own: getattr(full, key) for own, key in SIZES.items() if own != "mlp_size"}
            | {
                "mlp_size": getattr(full, "intermediate_size", None) or 4 * full.hidden_size,
                "num_kv_heads": getattr(full, "num_key_value_heads", None) or heads,
                "context_length": plan.context_length,
                "adapter": plan.adapter,
                "tie_embeddings": bool(full.tie_word_embeddings),
                "config": text,
            }
        )
        parameter_shapes(spec)
    except ValidationError as error:
        raise DataError(describe(error, str(path))) from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except AttributeError as error:
        raise DataError(f"{path} does not say how large the model is ({error}); take another") from None
    return spec, _longest(path, full.max_position_embeddings, spec)


def read_parameters(folder: Path, model: ModelSpec) -> Iterator[Tensor]:
    """Yield the model's parameters in the order of block `model`, float32 in their shapes, one at a time.

    Raises DataError: weights are missing, misshapen, quantized, not finite, or more than `model` has.
    """
    shapes = parameter_shapes(model)
    if model.config is not None:
        from peer.train.family import read_weights

        found = dict(read_weights(folder, model.config))
        for name, shape in shapes:
            yield _checked(folder, name, found[name], shape)
        return
    with ExitStack() as stack:
        files = _open_weights(folder, stack)
        _check_names(folder, {name for name, _ in shapes}, set(files), model)
        for name, shape in shapes:
            yield _read_tensor(folder, files[name], name, shape)
        if model.tie_embeddings and HEAD in files:
            embedding, head = (_read_tensor(folder, files[name], name, shapes[0][1]) for name in (EMBEDDING, HEAD))
            if not torch.equal(embedding, head):
                raise DataError(
                    f"{folder}: {CONFIG} ties {HEAD} to {EMBEDDING}, but their values differ; "
                    "set tie_word_embeddings to false there"
                )


def write_parameters(folder: Path, model: ModelSpec, blobs: Path) -> str:
    """Write the frozen parameters of adapters into the folder `blobs` as one blob, in their own dtype; return its id.

    Raises DataError as `read_parameters`, StateError when the disk is full.
    """
    fresh = blobs / ".base.part"
    with disk_errors(fresh):
        blobs.mkdir(parents=True, exist_ok=True)
        try:
            with fresh.open("wb") as file:
                parameters = (each.to(base_dtype(model)) for each in read_parameters(folder, model))
                name = parameters_id(_written(parameters, file))
                file.flush()
                os.fsync(file.fileno())
            put_in_place(fresh, blobs / name)
        finally:
            discard(fresh)
    return name


def check_base(folder: Path, spec: RunSpec) -> None:
    """Raise DataError if the model in `folder` reads other tokens than a run that began with it."""
    if spec.origin is None:
        raise DataError(f"this run began with no pretrained model, so {folder} is not its base; leave it out")
    if _tokenizer_sha256(folder) != spec.tokenizer_sha256:
        name = spec.origin.name or "a pretrained model"
        raise DataError(
            f"{folder} is not what this run began with ({name}): its {TOKENIZER_FILE} is another; "
            "name a copy of that model, or leave --base out"
        )


def copy_base(folder: Path, spec: RunSpec, blobs: Path) -> None:
    """Take the frozen model of a run of adapters from a copy in `folder`, instead of downloading it.

    Raises DataError if it is another model, StateError when the disk is full.
    """
    check_base(folder, spec)
    if spec.model.adapter is None or spec.initial_id is None or (blobs / spec.initial_id).exists():
        return
    found = write_parameters(folder, spec.model, blobs)
    if found != spec.initial_id:
        discard(blobs / found)
        raise DataError(
            f"{folder} is not what this run began with: its weights are others; "
            "name a copy of that model, or leave --base out"
        )


def check_tokenizer(folder: Path, corpus: Corpus) -> None:
    """Raise DataError if the tokens of `corpus` mean something else to the model in `folder`."""
    found = _tokenizer_sha256(folder)
    if found is None:
        raise DataError(f"{folder} has no {TOKENIZER_FILE}, so nothing says what its tokens mean; add it")
    if found != corpus.info.tokenizer_sha256:
        raise DataError(
            f"{corpus.name} was prepared with another tokenizer than that of {folder}; "
            f"prepare it with --tokenizer {folder}"
        )


def _tokenizer_sha256(folder: Path) -> str | None:
    raw = read_bytes(folder / TOKENIZER_FILE, "name the directory of a Hugging Face model", DataError)
    return None if raw is None else hashlib.sha256(raw).hexdigest()


def parameters_id(parameters: Iterable[Tensor]) -> str:
    """Return the content id of parameters, laid one after the other: what a run spec calls them."""
    return content_id_of_pieces(_bytes_of(parameter) for parameter in parameters)


def _bytes_of(parameter: Tensor) -> memoryview:
    return parameter.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _written(parameters: Iterable[Tensor], file: IO[bytes]) -> Iterator[Tensor]:
    for parameter in parameters:
        file.write(_bytes_of(parameter))
        yield parameter


def _longest(path: Path, longest: Any, spec: ModelSpec) -> int:
    if not isinstance(longest, int) or spec.context_length > longest:
        raise DataError(
            f"{path}: the model reads at most {longest!r} tokens, and run.model.context_length is "
            f"{spec.context_length}; lower it (in the environment: SHOAL_RUN__MODEL__CONTEXT_LENGTH)"
        )
    return longest


def _check_names(folder: Path, wanted: set[str], found: set[str], model: ModelSpec) -> None:
    if lost := sorted(wanted - found):
        is_head = lost == [HEAD]
        hint = f": {CONFIG} says that it is not tied to the embeddings" if is_head else "; take another copy"
        raise DataError(f"{folder}: {len(lost)} tensors are missing, such as {lost[0]}{hint}")
    spare = {name for name in found - wanted if not name.endswith(FREQUENCIES)}
    if model.tie_embeddings:
        spare.discard(HEAD)
    if spare:
        raise DataError(
            f"{folder}: {len(spare)} tensors belong to no plain Llama, such as {min(spare)}; take the plain model"
        )


def _open_weights(folder: Path, stack: ExitStack) -> dict[str, Any]:
    """Return which open file each tensor is in; the files are closed with `stack`."""
    names = [WEIGHTS]
    if not (folder / WEIGHTS).is_file():
        if not (folder / INDEX).is_file():
            raise DataError(f"{folder} has no {WEIGHTS}, and weights are read from nothing else; convert it")
        placed = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
            raise DataError(f"{folder / INDEX} does not say which file each tensor is in; take another copy")
        names = sorted(set(placed.values()))
    files: dict[str, Any] = {}
    for name in names:
        try:
            file = stack.enter_context(safe_open(folder / Path(name).name, framework="pt"))
        except (OSError, SafetensorError) as error:
            raise DataError(f"{folder / name} cannot be read: {error}; take another copy") from None
        files.update(dict.fromkeys(file.keys(), file))
    return files


def _read_tensor(folder: Path, file: Any, name: str, shape: tuple[int, ...]) -> Tensor:
    try:
        tensor: Tensor = file.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: {name} cannot be read: {error}; take another copy") from None
    return _checked(folder, name, tensor, shape)


def _checked(folder: Path, name: str, tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if tensor.dtype not in WIDENED:
        raise DataError(f"{folder}: {name} is {tensor.dtype}; only float32, float16 and bfloat16 are taken: convert it")
    if tuple(tensor.shape) != shape:
        raise DataError(
            f"{folder}: {name} has the shape {tuple(tensor.shape)}, and {CONFIG} makes it {shape}; take another copy"
        )
    tensor = tensor.float()
    if not bool(torch.isfinite(tensor).all()):
        raise DataError(f"{folder}: {name} holds values that are not finite; take another copy")
    return tensor


def _read_json(path: Path) -> dict[str, Any]:
    remedy = "name the directory of a Hugging Face model"
    value = read_json(path, remedy, DataError)
    if value is None:
        raise DataError(f"{path} cannot be read: there is no such file; {remedy}")
    return value
