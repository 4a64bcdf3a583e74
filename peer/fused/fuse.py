"""Fusion: the whole model from its blocks, written as a directory that others can load.

Five forms. `routed`: the sub-models side by side with Shoal's router, for every strategy (peer/fused/routed.py).
`mixtral`: one standard mixture of experts, for `experts`. `llama`: one standard model, for `replicas` or a single
sub-model. These two load with plain Transformers. `gguf`: either of them as one file for llama.cpp. `peft`: adapters by
themselves. Fusing never averages blocks of different domains: that destroys a model.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import save_file
from transformers import PreTrainedModel

from configs.errors import StateError, UsageError
from peer.corpus.tokenizer import open_tokenizer
from peer.fused.adapter import write_adapter
from peer.fused.card import Format, model_card
from peer.fused.chat_files import write_chat_files
from peer.fused.mixture import build_mixture
from peer.fused.parts import Parts, build_sub_model, named_parameters
from peer.fused.routed import COUNTS, MANIFEST, TASK, Manifest, SubModelInfo, quiet_transformers
from peer.fused.tune import Tuning, tune
from peer.train.partition import COMMON

GGUF = "model.gguf"


def fuse(
    parts: Parts, out: Path, format: Format = "routed", sub_model: str | None = None, tuning: Tuning | None = None
) -> None:
    """Write the fused model into the new directory `out`: all of it, or nothing.

    `sub_model` fuses just that one (`llama` needs it when there are several). A block that nobody has yet is
    derived from `model`. Nothing of the swarm's text is needed, but for the `tuning` of a Mixtral.
    Raises DataError: a block is missing or has a wrong size. UsageError: `out` is taken, or the form does not suit
    the strategy. StateError: it cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already exists and is not empty; choose another directory")
    known = (*parts.strategy.sub_models, COMMON)
    if sub_model is not None and sub_model not in known:
        raise UsageError(f"this run has no sub-model '{sub_model}'; name one of {', '.join(known)}")
    names = parts.sub_models if sub_model is None else (sub_model,)
    _check_form(format, names, parts.spec.model.adapter is not None, tuning is not None)
    models = {} if format == "peft" else {name: build_sub_model(parts, name) for name in names}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with quiet_transformers(), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            fresh = Path(scratch) / "model"
            fresh.mkdir(mode=0o755)
            if format == "routed":
                _write_routed(parts, models, fresh)
            elif format == "peft":
                _write_adapters(parts, names, fresh, is_one=sub_model is not None)
            else:
                whole = models[names[0]] if len(names) == 1 and format != "mixtral" else _mixture(parts, models, tuning)
                write = _write_gguf if format == "gguf" else _write_model
                write(parts, whole, fresh)
            if parts.task is not None:
                (fresh / TASK).write_text(parts.task.model_dump_json(indent=2) + "\n", encoding="utf-8")
            card = model_card(parts.spec, {name: parts.domain(name) for name in names}, format, parts.ages, parts.task)
            (fresh / "README.md").write_text(card, encoding="utf-8")
            _open_to_readers(fresh)
            if out.exists():
                out.rmdir()
            fresh.replace(out)
    except (OSError, SafetensorError) as error:  # the latter is how safetensors says that the disk is full
        raise StateError(f"{out} cannot be written: {error}; free space or choose another place") from None


def _check_form(format: Format, names: Sequence[str], has_adapters: bool, is_tuned: bool) -> None:
    """Raise UsageError if the sub-models `names` cannot be written in this form."""
    are_experts = all(name.startswith("expert.") for name in names)
    if len(names) > 1 and (format == "llama" or (format == "gguf" and not are_experts)):
        raise UsageError(
            f"{'one Llama' if format == 'llama' else 'a GGUF file'} holds one sub-model: "
            f"name it with --sub-model ({', '.join(names)}), or choose another format"
        )
    if format == "gguf" and find_spec("gguf") is None:
        raise UsageError("GGUF is written by the package gguf; say `pip install gguf`")
    if format == "mixtral" and not are_experts:
        raise UsageError("a Mixtral needs experts that have parted (strategy experts); use routed or llama")
    if is_tuned and format != "mixtral":
        raise UsageError("only a Mixtral is tuned; choose that format, or leave the tune out")
    if format == "peft" and not has_adapters:
        raise UsageError("only adapters are written as PEFT keeps them (strategy adapters); choose another format")


def _mixture(parts: Parts, models: Mapping[str, PreTrainedModel], tuning: Tuning | None) -> PreTrainedModel:
    mixture = build_mixture(parts, models, tuning)
    if tuning is not None:
        tune(mixture, parts.spec, [parts.domain(name) for name in models], tuning)
    return mixture


def _write_adapters(parts: Parts, names: Sequence[str], out: Path, is_one: bool) -> None:
    for name in names:
        place = out if is_one else out / name
        write_adapter(parts.spec, named_parameters(parts.spec, parts.strategy, parts.blocks, name), place)
        _write_tokenizer(parts, place)


def _write_model(parts: Parts, model: PreTrainedModel, out: Path) -> None:
    """Write a model into the folder `out`, in the dtype that it had, with its tokenizer and its own small files."""
    if parts.spec.origin is not None:
        model = model.to(getattr(torch, parts.spec.origin.dtype))
    model.save_pretrained(out)
    _write_tokenizer(parts, out)


def _write_gguf(parts: Parts, model: PreTrainedModel, out: Path) -> None:
    from peer.fused.gguf_file import write_gguf  # an extra

    with tempfile.TemporaryDirectory() as words:
        model.config.save_pretrained(words)
        _write_tokenizer(parts, Path(words))
        dtype = "float32" if parts.spec.origin is None else parts.spec.origin.dtype
        write_gguf(model, Path(words), out / GGUF, parts.spec.name, dtype)


def _write_routed(parts: Parts, models: Mapping[str, PreTrainedModel], out: Path) -> None:
    for name, model in models.items():
        _write_model(parts, model, out / name)  # each is one by itself
    save_file({"counts": np.stack([parts.domain_counts(name) for name in models])}, out / COUNTS)
    manifest = Manifest(
        run_id=parts.spec.run_id,
        run_name=parts.spec.name,
        strategy=parts.spec.strategy.kind,
        end_of_text=parts.spec.end_of_text,
        sub_models=tuple(SubModelInfo(name=name, domain=parts.domain(name)) for name in models),
    )
    (out / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _write_tokenizer(parts, out)


def _open_to_readers(folder: Path) -> None:
    """Give each file the mode that a file has which this user makes: safetensors makes those that nobody else reads."""
    probe = folder / ".mode"
    probe.touch()
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        path.chmod(mode | (mode & 0o444) >> 2 if path.is_dir() else mode)


def _write_tokenizer(parts: Parts, out: Path) -> None:
    """Write the tokenizer so that AutoTokenizer loads it, whatever the architecture beside it; then a base's own files.

    These stand in the place of ours. Who was trained on chats, and has no template of its own, gets that of the format.
    """
    spec, tokenizer = parts.spec, open_tokenizer(parts.tokenizer_json)
    end_of_text = tokenizer.id_to_token(spec.end_of_text)
    begin = spec.end_of_text if spec.origin is None else spec.origin.begin
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None if begin is None else tokenizer.id_to_token(begin),
        "eos_token": end_of_text,
        "pad_token": end_of_text,
        "model_max_length": spec.model.context_length if spec.origin is None else spec.origin.context_length,
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer.json").write_bytes(parts.tokenizer_json)
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name, data in parts.files.items():
        (out / name).write_bytes(data)
    if parts.task is not None and parts.task.chat is not None:
        write_chat_files(out, parts.task.chat, tokenizer)
