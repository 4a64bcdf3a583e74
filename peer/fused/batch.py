"""Texts that are written side by side: what may follow in each is found by one pass of each sub-model for all.

Each text is written in a thread of its own (`generate.py`) from a `Seat`. Whoever asks last for what follows lets the
sub-models read for all who ask; texts come and go between two tokens. Shorter ones are padded on the left, so alone
each is read as if there were no others, and beside others the same to the last digits of a float32.

Shapes: B texts, K sub-models, T tokens of the longest text, V tokens of the vocabulary.
"""

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from peer.corpus.data import Array
from peer.fused.routed import RoutedModel

MAX_TEXTS = 16  # that a server writes side by side; each leaves its keys and values in memory


class Batch:
    """The texts that are being written with one model. Every method may be called from any thread."""

    def __init__(self, model: RoutedModel) -> None:
        self.model = model
        layers = [layer for each in model.models for layer in DynamicCache(config=each.config).layers]
        has_plain_caches = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers)
        # How many texts may be written side by side: one where more is remembered than keys and values.
        self.most = MAX_TEXTS if has_plain_caches else 1
        self._turn = threading.Condition()  # of the sub-models, and of everything here
        self._seats: list[Seat] = []  # in the order of the rows
        self._caches: list[DynamicCache] = []  # of each sub-model
        self._is_read = torch.empty(0)  # (B, T): 0 is padding

    def seat(self) -> "Seat":
        """Return a place for one text."""
        return Seat(self)

    @torch.inference_mode()
    def _read(self, seat: "Seat", tokens: Sequence[int]) -> Array:
        """Read a text from its beginning, and let it be one of the batch. Returns the log likelihoods (K, T, V)."""
        ids = torch.tensor([tokens], device=self.model.models[0].device)
        own: list[DynamicCache] = []
        logs = []
        for model in self.model.models:
            output = model(input_ids=ids, past_key_values=DynamicCache() if self.most > 1 else None, use_cache=True)
            own.append(output.past_key_values)
            logs.append(_log_likelihoods(output.logits[0]))
        is_read = torch.ones_like(ids)
        if self._seats:
            longest = max(self._is_read.shape[1], len(tokens))
            self._caches = [_joined(*both, longest) for both in zip(self._caches, own, strict=True)]
            parts = [pad(each, (longest - each.shape[1], 0)) for each in (self._is_read, is_read)]
            self._is_read = torch.cat(parts)
        else:
            self._caches, self._is_read = own, is_read
        self._seats.append(seat)
        return np.stack(logs)

    def _leave(self, seat: "Seat") -> None:
        row = self._seats.index(seat)
        del self._seats[row]
        if not self._seats:
            self._caches = []
            return
        rows = [at for at in range(len(self._is_read)) if at != row]
        self._is_read = self._is_read[rows]
        padding = int((self._is_read.sum(dim=0) == 0).sum())  # columns that nobody has any more
        self._is_read = self._is_read[:, padding:]
        self._caches = [_of_rows(cache, rows, padding) for cache in self._caches]
        self._step()

    @torch.inference_mode()
    def _step(self) -> None:
        """Read the tokens that all have asked about, if all have."""
        if any(seat.asked is None for seat in self._seats):
            return
        ids = torch.tensor([[seat.asked] for seat in self._seats], device=self._is_read.device)
        self._is_read = torch.cat([self._is_read, torch.ones_like(ids)], dim=1)
        more: dict[str, Tensor] = {}
        if not bool(self._is_read.all()):
            more = {"attention_mask": self._is_read, "position_ids": self._is_read.cumsum(dim=1)[:, -1:] - 1}
        try:
            logs = [
                _log_likelihoods(model(input_ids=ids, past_key_values=cache, use_cache=True, **more).logits[:, -1])
                for model, cache in zip(self.model.models, self._caches, strict=True)
            ]
        except Exception as error:  # memory, most likely; it is everybody's
            for seat in self._seats:
                seat.found = error
        else:
            for row, seat in enumerate(self._seats):
                seat.found = np.stack([each[row] for each in logs])
        for seat in self._seats:
            seat.asked = None
        self._turn.notify_all()


class Seat:
    """What the sub-models have read of one text; a context manager, after which it has no place any more.

    When the context is full, the last `room` tokens are read anew.
    """

    def __init__(self, batch: Batch) -> None:
        self.room = max(1, batch.model.context_length - 1 - batch.model.context_length // 4)
        self.asked: int | None = None  # the token after which is asked
        self.found: Array | Exception | None = None  # (K, V)
        self._batch = batch
        self._length = 0  # tokens that are read; 0: it has no row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._batch._turn:
            self._leave()

    def read(self, tokens: list[int], *, begins: bool = True) -> tuple[Array, Array]:
        """Read afresh. Returns the log likelihoods (K, T, V) at the tokens' places, and those (K, V) at the one after.

        Unless the text `begins` there, after an end of text, nothing is thought of its first token: T is one less.
        """
        tokens = [self._batch.model.end_of_text, *tokens] if begins else tokens
        with self._batch._turn:
            self._leave()
            logs_KTV = self._batch._read(self, tokens)
            self._length = len(tokens)
        return logs_KTV[:, :-1], logs_KTV[:, -1]

    def follow(self, tokens: list[int]) -> Array:
        """Read the last of `tokens`, the others having been read. Returns the log likelihoods (K, V) of the next."""
        if self._length >= self._batch.model.context_length:
            return self.read(tokens[-self.room :])[1]
        with self._batch._turn:
            self.asked, self.found = tokens[-1], None
            self._batch._step()
            while self.found is None:
                self._batch._turn.wait()
            self._length += 1
            if isinstance(self.found, Exception):
                raise self.found
            return self.found

    def _leave(self) -> None:
        if self._length:
            self._length = 0
            self._batch._leave(self)


def _log_likelihoods(logits: Tensor) -> Array:
    return np.asarray(logits.float().log_softmax(dim=-1).double().cpu().numpy())  # in double it takes twice as long


def _joined(first: DynamicCache, second: DynamicCache, length: int) -> DynamicCache:
    """Return the rows of two caches, padded on the left to `length` tokens."""

    def whole(ours: Tensor, theirs: Tensor) -> Tensor:
        return torch.cat([pad(each, (0, 0, length - each.shape[-2], 0)) for each in (ours, theirs)])

    pairs = zip(first.layers, second.layers, strict=True)
    return DynamicCache([(whole(a.keys, b.keys), whole(a.values, b.values)) for a, b in pairs])


def _of_rows(cache: Any, rows: list[int], cut: int) -> DynamicCache:
    """Return some rows of a cache, without the first `cut` tokens."""
    return DynamicCache([(layer.keys[rows, :, cut:], layer.values[rows, :, cut:]) for layer in cache.layers])
