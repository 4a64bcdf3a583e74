"""The last step: the parts' tokens, domain by domain and in order, are cut into shards, and named in `corpus.json`."""

import hashlib
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from configs.content import content_id_of
from configs.corpus import CorpusInfo, DomainInfo, ShardInfo, TaskInfo
from configs.errors import DataError
from peer.corpus.data import BLOBS, CORPUS_FILE, TOKENIZER_FILE, Tokens, open_tokens, token_dtype
from peer.corpus.packing import Packer, cut_documents, cut_windows, examples_only
from peer.corpus.tokenizer import Vocabulary
from peer.prepare.plan import Plan

COUNTED_TOKENS = 1024  # of one document, where counts are to tell nothing of a single one


class Lost(NamedTuple):
    """What a task has lost because it did not fit."""

    tokens: int = 0  # of inputs that were cut
    examples: int = 0  # that were left out
    size_bytes: int = 0  # of those


def assemble(
    parts: Iterable[bytes], names: Sequence[tuple[str, bool]], vocabulary: Vocabulary, plan: Plan, folder: Path
) -> tuple[CorpusInfo, dict[str, Lost]]:
    """Write a corpus into `folder`, which is empty, from what `encode_part` made. `names`: of domains; is it a task?

    Returns also what each task has lost.

    Raises DataError: a domain has less than one window.
    """
    whole, scratch = folder / "corpus", folder / "scratch"
    (whole / BLOBS).mkdir(parents=True)
    scratch.mkdir()
    tasks, lost = _gather(parts, names, vocabulary, plan, scratch)
    info = CorpusInfo(
        tokenizer_sha256=hashlib.sha256(vocabulary.json).hexdigest(),
        vocab_size=vocabulary.size,
        end_of_text=vocabulary.end,
        domains=tuple(
            _cut_domain(name, plan, vocabulary, scratch, whole / BLOBS, tasks.get(name)) for name, _ in names
        ),
    )
    (whole / TOKENIZER_FILE).write_bytes(vocabulary.json)
    (whole / CORPUS_FILE).write_text(info.model_dump_json(indent=2, exclude_defaults=True) + "\n", encoding="utf-8")
    return info, lost


class _Task:
    """The examples of one domain on their way into windows."""

    def __init__(self, plan: Plan, vocabulary: Vocabulary, train: IO[bytes]) -> None:
        self._format = plan.format()
        self._packer = Packer(train, self._format.window, vocabulary.size, vocabulary.end)
        self._examples = self._cut = 0
        self.lost = Lost()

    def take(self, examples: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        """Take the examples of a part, one after the other."""
        for example in np.split(examples.astype(np.int64), np.cumsum(lengths)[:-1]):
            self._packer.add(example)
        self._examples += len(lengths)

    def count(self, counts: NDArray[np.int64]) -> None:
        """Take how many of a part were cut, and left out."""
        self._cut += int(counts[0])
        left_out, tokens, size_bytes = map(int, counts[1:])
        before = self.lost
        self.lost = Lost(before.tokens + tokens, before.examples + left_out, before.size_bytes + size_bytes)

    def finish(self, domain: str, num_held: int) -> TaskInfo:
        """Write what is left. Raises DataError when nothing is to be trained on, or nothing held out."""
        self._packer.finish()
        if not self._examples or not num_held:
            raise DataError(
                f"domain '{domain}' has too few examples that fit: the targets of {self.lost.examples} leave no room "
                f"for an input in {self._format.window} tokens; give it more examples or a larger context length"
            )
        return TaskInfo(format=self._format, examples=self._examples, cut=self._cut, left_out=self.lost.examples)


def _gather(
    parts: Iterable[bytes], names: Sequence[tuple[str, bool]], vocabulary: Vocabulary, plan: Plan, scratch: Path
) -> tuple[dict[str, TaskInfo], dict[str, Lost]]:
    """Write each domain to two files in `scratch`, NAME.train and NAME.heldout; return what became of the tasks."""
    with ExitStack() as stack:
        files = {
            f"{kind}.{place}": stack.enter_context((scratch / f"{name}.{kind}").open("wb"))
            for place, (name, _) in enumerate(names)
            for kind in ("train", "heldout")
        }
        tasks = {
            place: _Task(plan, vocabulary, files[f"train.{place}"])
            for place, (_, is_task) in enumerate(names)
            if is_task
        }
        for raw in parts:
            with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
                for key in arrays.files:
                    kind, _, place = key.partition(".")
                    if kind in ("train", "heldout"):
                        files[key].write(arrays[key].tobytes())
                    elif kind == "lines":
                        files[f"heldout.{place}"].write(arrays[key].tobytes())
                    elif kind == "counts":
                        tasks[int(place)].count(arrays[key])
                    elif kind == "lengths":
                        tasks[int(place)].take(arrays[f"examples.{place}"], arrays[key])
        told = {
            names[place][0]: task.finish(names[place][0], files[f"heldout.{place}"].tell())
            for place, task in tasks.items()
        }
        return told, {names[place][0]: task.lost for place, task in tasks.items() if any(task.lost)}


def _cut_domain(
    domain: str, plan: Plan, vocabulary: Vocabulary, scratch: Path, blobs: Path, task: TaskInfo | None
) -> DomainInfo:
    """Move what was gathered of `domain` from `scratch` into blobs."""
    train, heldout = (scratch / f"{domain}.{kind}" for kind in ("train", "heldout"))
    found = train.stat().st_size // token_dtype(vocabulary.size).itemsize
    if task is None and found <= plan.context_length:
        raise DataError(
            f"domain '{domain}' has {found} tokens to train on, fewer than one window of {plan.context_length} "
            f"and the token after it; give it more text or a smaller --context-length"
        )
    counts = np.zeros(vocabulary.size, dtype="<u8")
    most = None if plan.counts_noise is None else COUNTED_TOKENS
    shards = []
    tokens = open_tokens(train, vocabulary.size, task is not None)
    if task is None:
        held = open_tokens(heldout, vocabulary.size)
        pieces, num_held = cut_documents(tokens, plan.shard_tokens, vocabulary.end), held.size
    else:
        held = np.fromfile(heldout, dtype=np.uint8)
        pieces = cut_windows(tokens, plan.context_length, plan.shard_tokens, vocabulary.end)
        num_held = int((held == ord("\n")).sum())
    for shard in pieces:
        counted = shard if task is None else examples_only(shard, vocabulary.end)
        counts += counted_tokens(counted, vocabulary, most)
        shards.append(_store(blobs, shard, shard.size))
    if plan.counts_noise is not None:
        counts = noised(counts, plan.counts_noise)
    return DomainInfo(
        name=domain,
        shards=tuple(shards),
        heldout=_store(blobs, held, num_held),
        counts=_store(blobs, counts, int(counts.sum())),
        is_public=not plan.is_private,
        task=task,
    )


def counted_tokens(tokens: Tokens, vocabulary: Vocabulary, most: int | None) -> NDArray[np.uint64]:
    """Return how often each token occurs, (V,); of a document only its first `most` tokens count."""
    if most is not None:
        ends = np.flatnonzero(tokens == vocabulary.end)
        begins = np.concatenate([[0], ends + 1])
        document = np.searchsorted(ends, np.arange(tokens.size), side="left")
        tokens = tokens[np.arange(tokens.size) - begins[document] < most]
    return np.bincount(tokens, minlength=vocabulary.size).astype("<u8")


def noised(counts: NDArray[np.uint64], noise: float) -> NDArray[np.uint64]:
    """Return counts that may leave: with Gaussian noise of so many times what one document can add."""
    noisy = counts + np.random.default_rng().normal(0.0, noise * COUNTED_TOKENS, counts.size)
    return np.maximum(0.0, np.rint(noisy)).astype("<u8")


def _store(blobs: Path, values: Tokens | NDArray[np.uint8 | np.uint64], tokens: int) -> ShardInfo:
    data = values.data.cast("B")
    name = content_id_of(data)
    (blobs / name).write_bytes(data)
    return ShardInfo(content_id=name, tokens=tokens, size_bytes=data.nbytes)
