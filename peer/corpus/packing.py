"""Fills windows with the whole examples of a task, and cuts the tokens of text and tasks into shards.

How an example becomes tokens is `examples.py`'s, what the files look like `data.py`'s.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from configs.corpus import MAX_SHARDS, TaskFormat
from peer.corpus.data import Tokens, token_dtype, unmarked
from peer.corpus.examples import TaskEncoder, read_examples

BOUNDARY_TOKENS = 1 << 14  # tokens: how far from its place a cut may move to fall between documents
OPEN_WINDOWS = 64  # windows that are filled side by side, so that an example finds one where it fits


@dataclass
class Packer:
    """Fills windows with whole examples, and the rest of each with marked end-of-texts.

    An example goes into the fullest open window that still has room for it (best fit).
    """

    file: IO[bytes]
    window: int  # tokens
    vocab_size: int
    end_of_text: int
    _open: list[list[NDArray[np.int64]]] = field(default_factory=list)
    _room: list[int] = field(default_factory=list)  # of each open window

    def add(self, tokens: NDArray[np.int64]) -> None:
        """Take one example of at most a window."""
        fitting = [at for at, room in enumerate(self._room) if room >= len(tokens)]
        if fitting:
            at = min(fitting, key=self._room.__getitem__)
        else:
            if len(self._open) == OPEN_WINDOWS:
                self._close(int(np.argmin(self._room)))
            at = len(self._open)
            self._open.append([])
            self._room.append(self.window)
        self._open[at].append(tokens)
        self._room[at] -= len(tokens)
        if not self._room[at]:
            self._close(at)

    def finish(self) -> None:
        """Write the windows that are still open."""
        while self._open:
            self._close(0)

    def _close(self, at: int) -> None:
        filling = np.full(self._room.pop(at), ~self.end_of_text, dtype=np.int64)
        window = np.concatenate([*self._open.pop(at), filling])
        self.file.write(window.astype(token_dtype(self.vocab_size, is_task=True)).tobytes())


def packed_examples(lines: Path, form: TaskFormat, tokenizer: Tokenizer, vocab_size: int, end_of_text: int) -> bytes:
    """Return the held-out examples in a file as a shard has those that are trained on.

    Raises DataError: they are damaged, or the tokenizer does not fit the format.
    """
    file = BytesIO()
    file.write(np.array([~end_of_text], dtype=token_dtype(vocab_size, is_task=True)).tobytes())
    packer = Packer(file, form.window, vocab_size, end_of_text)
    for encoded in TaskEncoder(form, tokenizer, end_of_text).encode(read_examples(lines)):
        if encoded is not None:
            packer.add(encoded.marked())
    packer.finish()
    return file.getvalue()


def cut_documents(tokens: Tokens, shard_tokens: int, end_of_text: int) -> Iterator[Tokens]:
    """Yield even pieces of about `shard_tokens`, at most MAX_SHARDS, cut after a document where one ends nearby."""
    pieces = min(MAX_SHARDS, max(1, round(tokens.size / shard_tokens)))
    reach = min(BOUNDARY_TOKENS, tokens.size // pieces // 2)
    start = 0
    for piece in range(1, pieces):
        stop = tokens.size * piece // pieces
        ends = np.flatnonzero(tokens[stop : stop + reach] == end_of_text)
        stop += int(ends[0]) + 1 if ends.size else 0
        yield tokens[start:stop]
        start = stop
    yield tokens[start:]


def cut_windows(tokens: Tokens, window: int, shard_tokens: int, end_of_text: int) -> Iterator[Tokens]:
    """Yield even pieces of about `shard_tokens`, at most MAX_SHARDS: a marked end-of-text, then whole windows."""
    windows = tokens.reshape(-1, window)
    pieces = min(MAX_SHARDS, len(windows), max(1, round(tokens.size / shard_tokens)))
    for piece in np.array_split(windows, pieces):
        yield np.concatenate([np.array([~end_of_text], dtype=tokens.dtype), piece.reshape(-1)])


def examples_only(shard: Tokens, end_of_text: int) -> Tokens:
    """Return the tokens of the examples of a shard, unmarked, without what fills windows up."""
    return unmarked(shard[shard != ~end_of_text])
