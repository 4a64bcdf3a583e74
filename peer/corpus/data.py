"""Reads a prepared corpus, and samples training windows from token files.

A corpus is a directory: `corpus.json` (configs/corpus.py), `tokenizer.json`, and `blobs/<content_id>`.
A token file holds documents one after the other, each followed by the end-of-text token, as little-endian
uint16, or uint32 for a vocabulary of more than 65,536.

Of a task only some tokens count in the loss. Those that do not are *marked*: their complement ~token, a negative
number, stands for them, in int16, or int32 for a vocabulary of more than 32,768. A token file of a task begins with a
marked end-of-text; then come windows of `TaskFormat.window` tokens, which whole examples fill as far as they can and
marked end-of-texts fill up. So what `Sampler` draws never cuts an example. How a corpus is made is `peer/prepare`'s.
"""

import hashlib
import heapq
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from configs.corpus import CorpusInfo, DomainInfo, ShardInfo
from configs.errors import DataError
from configs.run import ModelSpec
from peer.corpus.source import Part
from peer.corpus.source import Source as Source
from peer.corpus.working_set import WorkingSet

if TYPE_CHECKING:
    import torch

CORPUS_FILE = "corpus.json"
TOKENIZER_FILE = "tokenizer.json"
BLOBS = "blobs"
CYCLE = 4096  # samples after which the order of the sources repeats

Array = NDArray[np.float64]
SMOOTHING = 0.5  # occurrences added to each count, so that a token that a domain never had does not decide alone
Tokens = NDArray[np.integer[Any]]  # uint16 or uint32; int16 or int32 where some may be marked


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus on this machine's disk."""

    path: Path
    info: CorpusInfo

    @property
    def name(self) -> str:
        """How people know it."""
        return str(self.path)

    def blob(self, content_id: str) -> Path:
        """Return where the blob of that name lies."""
        return self.path / BLOBS / content_id

    def tokenizer_json(self) -> bytes:
        """Return the tokenizer; its SHA-256 is the run spec's `tokenizer_sha256`."""
        return (self.path / TOKENIZER_FILE).read_bytes()

    def heldout(self, domain: DomainInfo) -> Tokens:
        """Return the tokens of `domain`, one of text, that nobody trains on; those of a task are `examples.py`'s."""
        assert domain.task is None
        return open_tokens(self.blob(domain.heldout.content_id), self.info.vocab_size)

    def sources(self, domain: DomainInfo) -> list[Source]:
        """Return the shards of `domain` to sample from; several domains together weigh the same."""
        size, is_task = self.info.vocab_size, domain.task is not None
        return [
            Source(str(self.blob(shard.content_id)), size, shard.tokens / domain.tokens, is_task)
            for shard in domain.shards
        ]

    def counts(self, domain: DomainInfo) -> NDArray[np.uint64]:
        """Return how often each token occurs in the shards of `domain`. (vocab_size,)."""
        return read_counts(self.blob(domain.counts.content_id), self.info.vocab_size)

    def all_counts(self) -> dict[str, NDArray[np.uint64]]:
        """Return that of every domain, by name and in their order."""
        return {domain.name: self.counts(domain) for domain in self.info.domains}

    def check_fits(self, model: ModelSpec) -> None:
        """Raise DataError unless `model` can be trained on it: same vocabulary, shards of at least a window."""
        if self.info.vocab_size != model.vocab_size:
            raise DataError(
                f"{self.name} was prepared with a vocabulary of {self.info.vocab_size} tokens, the model has "
                f"{model.vocab_size}; prepare it with --vocab-size {model.vocab_size} or change run.model.vocab_size"
            )
        form = self.info.task_format
        if form is not None and model.context_length % form.window:
            raise DataError(
                f"{self.name} holds examples in windows of {form.window} tokens, and the model reads "
                f"{model.context_length}; set run.model.context_length to {form.window} (in the environment: "
                f"SHOAL_RUN__MODEL__CONTEXT_LENGTH={form.window}), or prepare with "
                f"--context-length {model.context_length}"
            )
        for domain in self.info.domains:
            if all(shard.tokens <= model.context_length for shard in domain.shards):
                raise DataError(
                    f"{self.name}: no shard of domain '{domain.name}' holds a window of {model.context_length} tokens "
                    f"and the one after it; give it more text or lower run.model.context_length"
                )


def open_corpus(path: Path, *, has_blobs: bool = True, name: str = "") -> Corpus:
    """Open a directory that `shoal prepare` wrote; reads no tokens. Errors name it by `name`, if that is given.

    Raises DataError: not a corpus, or a file of it is missing, cut short or changed; `has_blobs`: also a blob.
    """
    where = name or str(path)
    if not (path / CORPUS_FILE).is_file():
        raise DataError(f"{where} is not a prepared corpus (it has no {CORPUS_FILE}); make one with: shoal prepare")
    try:
        info = CorpusInfo.model_validate_json((path / CORPUS_FILE).read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "it"
        raise DataError(
            f"{where}/{CORPUS_FILE} is damaged ({key}: {problem['msg']}); prepare the corpus again"
        ) from None
    corpus = Corpus(path, info)
    tokenizer = path / TOKENIZER_FILE
    if not tokenizer.is_file() or hashlib.sha256(tokenizer.read_bytes()).hexdigest() != info.tokenizer_sha256:
        raise DataError(
            f"{where}/{TOKENIZER_FILE} is missing or is not the one that tokenized this corpus; prepare it again"
        )
    for domain in info.domains if has_blobs else ():
        for shard in (*domain.shards, domain.heldout, domain.counts):
            _check_size(corpus, domain, shard)
    return corpus


def token_dtype(vocab_size: int, is_task: bool = False) -> np.dtype[np.integer[Any]]:
    """Return how the tokens of such a vocabulary are stored; those of a task have room for marks."""
    if is_task:
        return np.dtype("<i2") if vocab_size <= 1 << 15 else np.dtype("<i4")
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def unmarked(tokens: Tokens) -> Tokens:
    """Return the tokens themselves, whether they count in the loss or not."""
    return np.where(tokens < 0, ~tokens, tokens) if np.issubdtype(tokens.dtype, np.signedinteger) else tokens


def open_tokens(path: Path, vocab_size: int, is_task: bool = False) -> Tokens:
    """Map a token file into memory, read-only.

    Raises DataError: no such file, empty, or not a whole number of tokens. Token values are checked by the Sampler.
    """
    dtype = token_dtype(vocab_size, is_task)
    try:
        size = path.stat().st_size
        if size == 0 or size % dtype.itemsize:
            raise DataError(f"{path} is not a token file ({size} bytes); fetch or prepare it again")
        return np.memmap(path, dtype=dtype, mode="r")
    except OSError as error:
        raise DataError(f"cannot read the token file {path}: {error.strerror}; fetch or prepare it again") from None


def read_counts(path: Path, vocab_size: int) -> NDArray[np.uint64]:
    """Read a file of unigram counts. (vocab_size,). Raises DataError when it has another size."""
    try:
        counts = np.frombuffer(path.read_bytes(), dtype="<u8")
    except (OSError, ValueError):
        counts = np.empty(0, dtype="<u8")
    if counts.size != vocab_size:
        raise DataError(f"{path} does not hold the counts of {vocab_size} tokens; fetch or prepare it again")
    return counts


class Sampler:
    """Draws windows from several token files, by weight.

    What it draws is a pure function of the sources, the seed and the step, so training resumes by its step alone.
    Each source is read window by window without overlap, in an order that is shuffled anew each time it is used up.
    Costs: the files are mapped, not read; one permutation in memory for each source (8 bytes for each window).

    Of a source in parts only those files are mapped that a batch draws from (`working_set.py`); `lacking` says which of
    them are not there yet, and `ahead` what comes next.
    """

    def __init__(self, sources: Sequence[Source], context_length: int, seed: int) -> None:
        """Map the files. Raises DataError: none holds one window of `context_length` tokens and the one after."""
        self._given = tuple(sources)
        opened = [(each, _open_source(each)) for each in sources]
        usable = [
            (source, tokens)
            for source, tokens in opened
            if source.weight > 0 and any(size > context_length for size in _sizes(source, tokens))
        ]
        if not usable:
            named = ", ".join(source.path for source in sources[:3]) or "no source was given"
            raise DataError(
                f"nothing to train on is as long as one window of {context_length} tokens ({named}); "
                f"give more text or lower context_length"
            )
        self._sources = [source for source, _ in usable]
        self._tokens = [tokens for _, tokens in usable]
        self._streams = [_stream(source, context_length, seed) for source in self._sources]
        self._windows = [
            stream.order.size if stream else (tokens.size - 1) // context_length
            for stream, tokens in zip(self._streams, self._tokens, strict=True)
        ]
        self._context_length = context_length
        self._seed = seed
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}
        self._cycle, self._ranks, self._picks = _cycle([source.weight for source in self._sources], seed)

    @property
    def is_streamed(self) -> bool:
        """Whether some of its files may not be there yet."""
        return any(self._streams)

    def streams_from(self, sources: Sequence[Source]) -> bool:
        """Return whether these are its sources, and some of their files come and go: then it may stay as it is."""
        return self.is_streamed and tuple(sources) == self._given

    def batch(self, step: int, count: int) -> "torch.Tensor":
        """Return the windows of `step`. (count, context_length + 1), int64; keep `count` the same from step to step.

        Tokens that do not count in the loss are marked.
        Raises DataError: a file holds a token that is not in its vocabulary.
        """
        import torch  # takes 2 s, which `shoal prepare` does not need

        windows = np.empty((count, self._context_length + 1), dtype=np.int64)
        for row, (source, pick) in enumerate(self._drawn(step, count)):
            windows[row] = self._window(source, pick)
        for stream in filter(None, self._streams):
            stream.close_unused()
        return torch.from_numpy(windows)

    def lacking(self, step: int, count: int) -> list[str]:
        """Return the files of which the batch of `step` needs windows and that are not there."""
        needed = {
            stream.parts[stream.order.window(pick)[0]]
            for source, pick in self._drawn(step, count)
            if (stream := self._streams[source]) is not None
        }
        return sorted(part.path for part in needed if not Path(part.path).is_file())

    def ahead(self, step: int, count: int) -> Iterator[tuple[int, Part]]:
        """Yield (step, part), sorted by the step at which the part is in need, for what is drawn from `step` on.

        A part may come again, in the epoch after.
        """
        turn, place = divmod(step * count, self._cycle.size)

        def of(source: int, stream: _Stream) -> Iterator[tuple[int, Part]]:
            pick = turn * int(self._picks[source]) + int((self._cycle[:place] == source).sum())
            for due, part in stream.order.ahead(pick):
                samples = (due - pick) * self._cycle.size // int(self._picks[source])
                yield step + samples // count, stream.parts[part]

        streams = [of(source, stream) for source, stream in enumerate(self._streams) if stream]
        return heapq.merge(*streams, key=lambda each: each[0])

    def _drawn(self, step: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield for each sample of a batch its source, and how often that was drawn before."""
        for sample in range(step * count, (step + 1) * count):
            turn, place = divmod(sample, self._cycle.size)
            source = int(self._cycle[place])
            yield source, turn * int(self._picks[source]) + int(self._ranks[place])

    def _window(self, source: int, pick: int) -> Tokens:
        stream = self._streams[source]
        if stream is None:
            epoch, place = divmod(pick, self._windows[source])
            name, held, window = self._sources[source].path, self._tokens[source], self._order(source, epoch)[place]
        else:
            part, window = stream.order.window(pick)
            name, held = stream.parts[part].path, stream.tokens(part)
        start = int(window) * self._context_length
        tokens = held[start : start + self._context_length + 1]
        largest = int(unmarked(tokens).max())
        if largest >= self._sources[source].vocab_size:
            raise DataError(
                f"{name} holds token {largest}, outside its vocabulary of "
                f"{self._sources[source].vocab_size}; it was tokenized otherwise: prepare or fetch it again"
            )
        return tokens

    def _order(self, source: int, epoch: int) -> NDArray[np.int64]:
        """Return the order of the windows of `source` in `epoch`; seeded by the file's name, not by its place."""
        held = self._orders.get(source)
        if held is None or held[0] != epoch:
            name = zlib.crc32(Path(self._sources[source].path).name.encode())
            held = epoch, np.random.default_rng([self._seed, name, epoch]).permutation(self._windows[source])
            self._orders[source] = held
        return held[1]


@dataclass
class _Stream:
    """A source in parts: the order of its windows, and those of its files that are mapped."""

    source: Source
    parts: list[Part]  # that hold a window
    order: WorkingSet
    _open: dict[int, Tokens] = field(default_factory=dict)
    _used: set[int] = field(default_factory=set)  # since `close_unused`

    def tokens(self, part: int) -> Tokens:
        """Return the tokens of a part. Raises DataError: it is not there, or has another size."""
        self._used.add(part)
        if part not in self._open:
            path, wanted = self.parts[part].path, self.parts[part].tokens
            tokens = open_tokens(Path(path), self.source.vocab_size, self.source.is_task)
            if tokens.size != wanted:
                raise DataError(f"{path} has {tokens.size} tokens, not {wanted}; remove it, and it is fetched again")
            self._open[part] = tokens
        return self._open[part]

    def close_unused(self) -> None:
        """Let go of the files that the last batch did not draw from: one that was removed takes its room until then."""
        self._open = {part: tokens for part, tokens in self._open.items() if part in self._used}
        self._used = set()


def _stream(source: Source, context_length: int, seed: int) -> _Stream | None:
    if not source.parts:
        return None
    parts = [part for part in source.parts if part.tokens > context_length]
    windows = [(part.tokens - 1) // context_length for part in parts]
    names = [Path(part.path).name for part in parts]
    return _Stream(source, parts, WorkingSet(names, windows, max(1, source.active), seed))


def _open_source(source: Source) -> Tokens:
    """Return the tokens of a source in one file; of one in parts none."""
    if source.parts:
        return np.empty(0, dtype=token_dtype(source.vocab_size, source.is_task))
    return open_tokens(Path(source.path), source.vocab_size, source.is_task)


def _sizes(source: Source, tokens: Tokens) -> list[int]:
    return [part.tokens for part in source.parts] or [tokens.size]


def _cycle(weights: Sequence[float], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Lay out which source is drawn when.

    Returns the source of each of the cycle's places, how often that source came before in the cycle (both (places,)),
    and how often each source comes in all (sources,): at least once, and in proportion to its weight.
    """
    shares = np.asarray(weights, dtype=np.float64) / sum(weights)
    picks = np.maximum(1, np.rint(shares * CYCLE)).astype(np.int64)
    cycle = np.random.default_rng([seed, len(weights)]).permutation(np.repeat(np.arange(len(weights)), picks))
    ranks = np.empty_like(cycle)
    for source in range(len(weights)):
        ranks[cycle == source] = np.arange(picks[source])
    return cycle, ranks, picks


def _check_size(corpus: Corpus, domain: DomainInfo, shard: ShardInfo) -> None:
    blob = corpus.blob(shard.content_id)
    if not blob.is_file() or blob.stat().st_size != shard.size_bytes:
        raise DataError(f"{blob} (domain '{domain.name}') is missing or cut short; prepare the corpus again")


def log_unigrams(counts: NDArray[np.integer]) -> Array:
    """Return the smoothed log probability of each token in each domain, (K, V), from token counts (K, V)."""
    smoothed = counts.astype(np.float64) + SMOOTHING
    return np.asarray(np.log(smoothed / smoothed.sum(axis=1, keepdims=True)))
