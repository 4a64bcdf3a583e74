"""The tokenizer of a corpus: a byte-level BPE trained on its text, or one that the user brings.

Special tokens are never recognised inside a document: text cannot end itself.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from configs.errors import DataError
from peer.corpus.data import TOKENIZER_FILE, Tokens, token_dtype

END_OF_TEXT = "<|endoftext|>"
ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")  # in other people's tokenizers
MODEL_CONFIG_FILE, TOKENIZER_CONFIG_FILE = "config.json", "tokenizer_config.json"  # beside other people's tokenizers
CONTEXT_TOKENS = 16  # before a part of a text, with which it is read
MAX_VOCABULARY = 262_144
SAMPLE = "A shoal of 12 fish, größer\n 🐟"  # a text that every tokenizer can read, or is none
PANIC = "PanicException"  # what is raised where Rust gives up: no Exception, and of a class that cannot be imported
EMPTY_PROMPT = "the prompt is empty; give at least one word to go on from"


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer, the bytes of its file, how many tokens a model of it has, and the token that ends a document."""

    tokenizer: Tokenizer
    json: bytes
    size: int
    end: int

    def ids(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the tokens of each text. Uses all cores."""
        return (encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False))

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Return the tokens of each text, followed by the end-of-text token."""
        dtype = token_dtype(self.size)
        return [np.array([*ids, self.end], dtype=dtype) for ids in self.ids(texts)]


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Vocabulary:
    """Train a byte-level BPE; the same texts give the same bytes. Little text may fill less than `vocab_size`."""
    _use_cores()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return trained_vocabulary(tokenizer.to_str().encode(), vocab_size)


def trained_vocabulary(raw: bytes, vocab_size: int) -> Vocabulary:
    """Return what `train_tokenizer` returned, from the bytes of its file."""
    _use_cores()
    tokenizer = open_tokenizer(raw)
    return Vocabulary(tokenizer, raw, vocab_size, end_of_text(tokenizer))


def read_tokenizer(path: Path, vocab_size: int | None = None, special: Sequence[str] = ()) -> Vocabulary:
    """Read a Hugging Face `tokenizer.json`, or the one in a folder; `vocab_size` may leave room for more tokens.

    A model in that folder says by itself for how many tokens it has room. Special tokens beyond that, such as one that
    only fills up, do no harm: no text becomes one, but for the `special` ones that a chat format writes.

    Raises DataError: no such file, not a tokenizer, more tokens than the room, or without a token that ends a text.
    """
    _use_cores()
    file = path / TOKENIZER_FILE if path.is_dir() else path
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the tokenizer {file}: {error.strerror}; name a tokenizer.json or its folder"
        ) from None
    try:
        tokenizer = open_tokenizer(raw)
    except DataError as error:
        raise DataError(f"{file} is not a Hugging Face tokenizer.json ({error}); name another or train one") from None
    end, known = end_of_text(tokenizer, file.parent), tokenizer.get_vocab(with_added_tokens=True)
    unread = {token for token, each in tokenizer.get_added_tokens_decoder().items() if each.special and token != end}
    unread -= {known.get(name) for name in special}
    size = vocab_size or _size_of_model(path) or max(known.values()) + 1
    smallest = max(token for token in known.values() if token not in unread) + 1
    if size > MAX_VOCABULARY:
        raise DataError(f"the tokenizer {file} has {size} tokens, more than {MAX_VOCABULARY}; take another")
    if smallest > size:
        raise DataError(
            f"the tokenizer {file} needs room for {smallest} tokens, and there is room for {size}; prepare with "
            f"--vocab-size {smallest}, and give a model that is to go on training that room in Transformers: "
            f"model.resize_token_embeddings({smallest}), then save it"
        )
    return Vocabulary(tokenizer, raw, size, end)


def open_tokenizer(raw: bytes | str) -> Tokenizer:
    """Return the tokenizer of a `tokenizer.json` as everything here reads text, in training and afterwards.

    Whatever the file says, nothing is cut off or filled up, and special tokens that stand in a text are text. Raises
    DataError if it is none.
    """
    try:
        tokenizer = _plain(Tokenizer.from_buffer(raw.encode() if isinstance(raw, str) else raw))
        tokenizer.decode(tokenizer.encode(SAMPLE).ids)
    except Exception as error:  # tokenizers raises nothing more precise
        raise DataError(str(error)) from None
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise DataError(f"the library that reads it gave up ({error})") from None
    return tokenizer


def decode_part(tokenizer: Tokenizer, tokens: Sequence[int], start: int, end: int) -> str:
    """Return what `tokens[start:end]` add to the text of those before them.

    Read by itself, a part would lose the space before its first word in many tokenizers.
    """
    begin = max(0, start - CONTEXT_TOKENS)
    before = tokenizer.decode(tokens[begin:start], skip_special_tokens=True)
    whole = tokenizer.decode(tokens[begin:end], skip_special_tokens=True)
    if whole.startswith(before):
        return str(whole[len(before) :])
    return str(tokenizer.decode(tokens[start:end], skip_special_tokens=True))  # a character is cut in two there


def token_bytes(tokenizer: Tokenizer, tokens: Sequence[int], at: int) -> bytes:
    """Return the bytes that `tokens[at]` adds to the text: all of a word, or a part of a character."""
    text = decode_part(tokenizer, tokens, at, at + 1)
    name = tokenizer.id_to_token(tokens[at]) or ""
    if "\ufffd" not in text and text:
        return text.encode()
    if part := re.fullmatch(r"<0x([0-9A-F]{2})>", name):  # of sentencepiece
        return bytes.fromhex(part[1])
    known = _byte_of_letter()
    return bytes(known[letter] for letter in name) if all(letter in known for letter in name) else text.encode()


@cache
def _byte_of_letter() -> dict[str, int]:
    """Return which byte each letter of a byte-level tokenizer stands for: itself, or the next one beyond 255."""
    own = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [byte for byte in range(256) if byte not in own]
    return {chr(byte): byte for byte in own} | {chr(256 + at): byte for at, byte in enumerate(others)}


def _size_of_model(folder: Path) -> int:
    """Return the size of the vocabulary of the model in a folder; 0 if there is none that says it."""
    size = _said(folder / MODEL_CONFIG_FILE, "vocab_size")
    return size if isinstance(size, int) else 0


def _said(file: Path, key: str) -> Any:
    """Return what a file beside a tokenizer says, or None if it does not."""
    try:
        return json.loads(file.read_bytes())[key]
    except (OSError, ValueError, LookupError, TypeError):
        return None


def end_of_text(tokenizer: Tokenizer, folder: Path | None = None) -> int:
    """Return the token that ends a document: the one that the model in `folder` names, or one of a known name.

    Raises DataError when there is none.
    """
    for name in (*_named_ends(folder), *ENDS):
        token = name if isinstance(name, int) else tokenizer.token_to_id(name)
        if token is not None and tokenizer.id_to_token(token) is not None:
            return int(token)
    raise DataError(
        f"nothing says which token ends a text: name it as eos_token in the tokenizer_config.json beside the "
        f"tokenizer.json, or add one of {', '.join(ENDS)} to it"
    )


def _named_ends(folder: Path | None) -> list[str | int]:
    """Return what the files beside a tokenizer say ends a text, as tokens or as their numbers, the surest first."""
    found: list[str | int] = []
    for file, key in ((TOKENIZER_CONFIG_FILE, "eos_token"), (MODEL_CONFIG_FILE, "eos_token_id")):
        named = None if folder is None else _said(folder / file, key)
        if isinstance(named, dict):  # an added token, with how it is read
            named = named.get("content")
        if isinstance(named, list) and named:
            named = named[0]
        if isinstance(named, str | int) and not isinstance(named, bool):
            found.append(named)
    return found


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the tokens of a prompt. Raises DataError: it is empty, or no text."""
    check_text(text)
    tokens: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    if not tokens:
        raise DataError(EMPTY_PROMPT)
    return tokens


def check_text(text: str) -> None:
    """Raise DataError if `text` holds bytes or halves of characters that no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the prompt is not UTF-8 at character {error.start}; give it as UTF-8") from None


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # "<|endoftext|>" in a document is plain text
    return tokenizer


def _use_cores() -> None:
    """Say aloud that tokenizers may use threads: unless told, it warns at a later fork and turns them off."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
