"""A `tokenizer.json` as llama.cpp reads it: its tokens with their kinds, and how it cuts a text before merging."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer

from configs.errors import DataError
from configs.files import read_json
from peer.corpus.data import TOKENIZER_FILE
from peer.fused.chat_files import template_of

GPT_2 = {"add_prefix_space": False, "use_regex": True}
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# How a tokenizer cuts a text, and whether it takes a piece that is a token without merging it → as llama.cpp calls it.
CUTS = {
    (CONTRACTIONS + r"\p{N}{1,3}" + REST, True): "llama-bpe",
    (CONTRACTIONS + r"\p{N}{1,3}" + REST, False): "dbrx",
    (CONTRACTIONS + r"\p{N}" + REST, False): "qwen2",
}
BYTES = {f"<0x{byte:02X}>" for byte in range(256)}


def write_vocabulary(writer: GGUFWriter, folder: Path, size: int) -> None:
    """Write the tokenizer of a Hugging Face directory, what tokens mean to its model, and its chat template.

    `size` is for how many tokens the model has room. Raises DataError: llama.cpp has no such tokenizer.
    """
    raw = (folder / TOKENIZER_FILE).read_bytes()
    found = json.loads(raw)
    model = found["model"]
    if model.get("type") != "BPE":
        raise DataError(
            f"llama.cpp is given tokenizers of kind BPE only, and this is {model.get('type')}; choose another format"
        )
    ids = {**model["vocab"], **{each["content"]: each["id"] for each in found.get("added_tokens") or ()}}
    names = {token: name for name, token in ids.items()}
    added = {each["id"]: each for each in found.get("added_tokens") or ()}
    tokens = [names.get(token, f"[PAD{token}]") for token in range(size)]
    kinds = [_kind(token, names, added) for token in range(size)]
    if model.get("byte_fallback"):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores(_scores(model, tokens))
        writer.add_add_space_prefix(_begins_with_space(found))
    else:
        if not model["merges"]:
            raise DataError("llama.cpp reads no tokenizer without merges; choose another format")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer(found))
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    _write_meanings(writer, raw, read_json(folder / "config.json") or {})
    if (template := template_of(folder)) is not None:
        writer.add_chat_template(template)


def pre_tokenizer(found: Mapping[str, Any]) -> str:
    """Return what llama.cpp calls the way in which a tokenizer.json cuts a text. Raises DataError: nothing known."""
    normalizer = found.get("normalizer")
    parts = found.get("pre_tokenizer") or {}
    steps = parts.get("pretokenizers", [parts])
    kinds = [step.get("type") for step in steps]
    if (normalizer or {"type": "NFC"}).get("type") == "NFC" and kinds and kinds[-1] == "ByteLevel":
        last = {key: steps[-1].get(key, True) for key in GPT_2}
        if last == GPT_2 and kinds == ["ByteLevel"]:
            return "gpt-2"
        if last == GPT_2 and kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
            return "smollm"
        if last == {**GPT_2, "use_regex": False} and kinds == ["Split", "ByteLevel"]:
            cut = (steps[0].get("pattern", {}).get("Regex"), bool(found["model"].get("ignore_merges")))
            if cut in CUTS:
                return CUTS[cut]
    raise DataError("llama.cpp knows no pre-tokenizer that cuts texts as this tokenizer does; choose another format")


def _write_meanings(writer: GGUFWriter, raw: bytes, config: Mapping[str, Any]) -> None:
    """Write with which tokens a text begins and ends, and which only fills up."""
    begin, pad, ends = (config.get(f"{key}_token_id") for key in ("bos", "pad", "eos"))
    ends = ends if isinstance(ends, list) else [ends]
    writer.add_eos_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eot_token_id(ends[-1])  # of a turn
    if pad is not None:
        writer.add_pad_token_id(pad)
    if begin is not None:
        writer.add_bos_token_id(begin)
    # As Transformers reads a text; llama.cpp has an opinion of its own for each way to cut one.
    writer.add_add_bos_token(Tokenizer.from_buffer(raw).encode("a").ids[:1] == [begin])


def _kind(token: int, names: Mapping[int, str], added: Mapping[int, Mapping[str, Any]]) -> int:
    if token in added:
        return int(TokenType.CONTROL if added[token].get("special") else TokenType.USER_DEFINED)
    if token not in names:
        return int(TokenType.UNUSED)
    return int(TokenType.BYTE if names[token] in BYTES else TokenType.NORMAL)


def _scores(model: Mapping[str, Any], tokens: list[str]) -> list[float]:
    """Return the scores with which sentencepiece merges in the order of these merges: the earlier, the higher."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        ranks.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), rank)
    return [-float(ranks.get(token, len(ranks))) for token in tokens]


def _begins_with_space(found: Mapping[str, Any]) -> bool:
    """Say whether a tokenizer puts a space before a text that has none."""
    text = json.dumps([found.get("normalizer"), found.get("pre_tokenizer")])
    return '"Prepend"' in text or '"prepend_scheme": "first"' in text or '"prepend_scheme": "always"' in text
