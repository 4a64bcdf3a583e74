"""The second reading: a part's pieces become tokens, by domain, in one file. Pure, but for what it reads.

The file is what `numpy.savez` writes: of domain 3, `train.3` and `heldout.3` are tokens of text; of a task,
`examples.3` are marked tokens with their `lengths.3`, and `lines.3` the held-out examples as JSON lines.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from configs.corpus import TaskFormat
from peer.corpus.data import token_dtype
from peer.corpus.examples import Example, TaskEncoder
from peer.corpus.tokenizer import Vocabulary
from peer.prepare.fates import DROPPED, HELDOUT, TRAIN, PartFates
from peer.prepare.survey import PartSurvey
from peer.sources.documents import Piece, batches, text_of


@dataclass(frozen=True)
class Staying:
    """A piece that is in the corpus."""

    content: str | Example
    domain: int
    is_heldout: bool
    is_end: bool  # the end-of-text token follows

    @property
    def key(self) -> str:
        """Where its tokens go."""
        return f"{'heldout' if self.is_heldout else 'train'}.{self.domain}"


def staying(pieces: Iterator[Piece], decided: PartFates) -> Iterator[Staying]:
    """Yield those of a part's pieces that are in the corpus."""
    for piece, fate, domain, is_end in zip(
        pieces, decided.fates.tolist(), decided.domains.tolist(), decided.ends.tolist(), strict=False
    ):
        if fate < DROPPED:
            yield Staying(piece.content, domain, fate == HELDOUT, is_end)


def sample_part(
    pieces: Iterator[Piece], survey: PartSurvey, decided: PartFates, lowest: Sequence[int]
) -> Iterator[str]:
    """Yield those of a part's texts that a tokenizer is trained on: of each domain with hashes from `lowest` on."""
    chosen = (decided.fates == TRAIN) & (survey.hashes >= np.array(lowest, dtype=np.uint64)[decided.domains])
    if not chosen.any():
        return
    for piece, is_chosen in zip(pieces, chosen.tolist(), strict=False):
        if is_chosen:
            yield text_of(piece.content)


@dataclass
class _Written:
    """What a part's file will hold."""

    tokens: dict[str, list[NDArray[np.integer]]] = field(default_factory=dict)
    lengths: dict[int, list[int]] = field(default_factory=dict)
    lines: dict[int, list[bytes]] = field(default_factory=dict)
    # Of a task: cut, left out, tokens lost by the cut, bytes of what is left out.
    counts: dict[int, list[int]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        arrays: dict[str, NDArray[np.integer]] = {key: np.concatenate(parts) for key, parts in self.tokens.items()}
        arrays |= {f"lengths.{domain}": np.array(lengths, dtype=np.int64) for domain, lengths in self.lengths.items()}
        arrays |= {
            f"lines.{domain}": np.frombuffer(b"".join(lines), dtype=np.uint8) for domain, lines in self.lines.items()
        }
        arrays |= {f"counts.{domain}": np.array(counts, dtype=np.int64) for domain, counts in self.counts.items()}
        file = io.BytesIO()
        np.savez(file, **arrays)  # type: ignore[arg-type]  # a name is no option here
        return file.getvalue()


def encode_part(staying: Iterator[Staying], vocabulary: Vocabulary, form: TaskFormat) -> bytes:
    """Tokenize what stays of a part; return the file."""
    written = _Written()
    encoder: TaskEncoder | None = None
    for batch in batches(staying, lambda each: len(text_of(each.content))):
        texts = [each for each in batch if isinstance(each.content, str)]
        for key, tokens in _encoded(texts, vocabulary):
            written.tokens.setdefault(key, []).append(tokens)
        tasks = [each for each in batch if isinstance(each.content, Example)]
        if tasks:
            encoder = encoder or TaskEncoder(form, vocabulary.tokenizer, vocabulary.end)
            _write_tasks(written, tasks, encoder)
    return written.to_bytes()


def _encoded(texts: Sequence[Staying], vocabulary: Vocabulary) -> Iterator[tuple[str, NDArray[np.integer]]]:
    """Yield the tokens of texts that follow each other and go to the same place, with that place."""
    ids = vocabulary.ids([str(each.content) for each in texts])
    dtype, run, key = token_dtype(vocabulary.size), list[int](), ""
    for each, found in zip(texts, ids, strict=True):
        if each.key != key and run:
            yield key, np.array(run, dtype=dtype)
            run = []
        key = each.key
        run += found
        if each.is_end:
            run.append(vocabulary.end)
    if run:
        yield key, np.array(run, dtype=dtype)


def _write_tasks(written: _Written, tasks: Sequence[Staying], encoder: TaskEncoder) -> None:
    examples = [each.content for each in tasks if isinstance(each.content, Example)]
    for each, example, encoded in zip(tasks, examples, encoder.encode(examples), strict=True):
        counts = written.counts.setdefault(each.domain, [0, 0, 0, 0])
        if encoded is None:
            counts[1] += 1
            counts[3] += len(example.text.encode())
        elif each.is_heldout:
            written.lines.setdefault(each.domain, []).append(example.to_line())
        else:
            marked = encoded.marked()
            written.tokens.setdefault(f"examples.{each.domain}", []).append(marked.astype(np.int32))
            written.lengths.setdefault(each.domain, []).append(len(marked))
            counts[0] += encoded.lost > 0
            counts[2] += encoded.lost
