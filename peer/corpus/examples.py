"""The examples of a task: an input and its target, as tokens of which only the target's count.

An example becomes prompt, target, end-of-text; the prompt is the input in the task's format (configs/corpus.py), and
its tokens are marked (data.py). One that is longer than the window loses the beginning of its input. Training, `eval`
and `generate` all take their tokens from `TaskEncoder`. Reading files of examples is `documents.py`'s.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from configs.corpus import INPUT, DomainInfo, TaskFormat
from configs.errors import DataError
from peer.corpus.data import Corpus, Tokens
from peer.corpus.tokenizer import check_text, read_tokenizer


@dataclass(frozen=True)
class Example:
    """One line of a task. All texts hold something; a target among several is the one that is trained on."""

    input: str
    target: str
    references: tuple[str, ...]  # what counts as right, the target among them
    options: tuple[str, ...] = ()  # to choose from, a reference among them

    @property
    def text(self) -> str:
        """What a tokenizer learns of it."""
        return f"{self.input}\n{self.target}"

    def to_line(self) -> bytes:
        """Return it as a line of JSON, which `Example.from_line` reads."""
        return json.dumps(asdict(self), ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Example":
        """Read what `to_line` wrote."""
        fields: dict[str, Any] = json.loads(line)
        return cls(fields["input"], fields["target"], tuple(fields["references"]), tuple(fields["options"]))


@dataclass(frozen=True)
class Encoded:
    """An example as tokens, int64. `answers` are the target and the options, each with its end-of-text."""

    prompt: NDArray[np.int64]
    answers: tuple[NDArray[np.int64], ...]
    is_cut: bool  # whether the input lost its beginning

    def marked(self, answer: int = 0) -> NDArray[np.int64]:
        """Return prompt and answer, the prompt marked."""
        return np.concatenate([~self.prompt, self.answers[answer]])


class TaskEncoder:
    """Turns examples into tokens, in one format. Texts are never read as special tokens: none can end itself."""

    def __init__(self, form: TaskFormat, tokenizer: Tokenizer, end_of_text: int) -> None:
        """Use `tokenizer`, which from now on takes special tokens in texts for plain text.

        Raises DataError: the format leaves too little room in a window.
        """
        self.window = form.window  # tokens
        self._tokenizer, self._end = tokenizer, end_of_text
        tokenizer.encode_special_tokens = True
        # Each part is encoded by itself, so that its tokens do not depend on its neighbours.
        self._before, self._after = self._encode(form.prompt.split(INPUT))
        if 2 * (len(self._before) + len(self._after)) > form.window:
            raise DataError(
                f"the prompt format {form.prompt!r} takes more than half of the {form.window} tokens of a window; "
                "shorten it or take a larger context length"
            )

    def prompt(self, text: str) -> NDArray[np.int64]:
        """Return the whole prompt of an input, however long."""
        return np.concatenate([self._before, *self._encode([text]), self._after])

    def question(self, text: str, context_length: int) -> list[int]:
        """Return what a model of this context reads before it answers the input `text`.

        Raises DataError: the input is empty, no text, or leaves no room for an answer.
        """
        if not text.strip():
            raise DataError("the input is empty; give the text that the task is about")
        check_text(text)
        length = min(context_length, self.window)
        prompt: list[int] = self.prompt(text).tolist()
        if len(prompt) >= length:
            raise DataError(
                f"the input with its prompt format has {len(prompt)} tokens, and the model reads {length}, its answer "
                "included; shorten the input"
            )
        return prompt

    def encode(self, examples: Sequence[Example], room: int = 0) -> list[Encoded | None]:
        """Return the tokens of each example; None if one of its answers leaves no room for an input in the window.

        The input is cut so that the longest of its answers fits or, where that is longer, one of `room` tokens.
        """
        inputs = self._encode([example.input for example in examples])
        texts = [text for example in examples for text in (example.target, *example.options)]
        answers = iter(self._encode(texts))
        return [
            self._fit(tokens, [np.append(next(answers), self._end) for _ in range(1 + len(example.options))], room)
            for example, tokens in zip(examples, inputs, strict=True)
        ]

    def _fit(self, tokens: NDArray[np.int64], answers: list[NDArray[np.int64]], room: int) -> Encoded | None:
        space = self.window - len(self._before) - len(self._after)
        left = space - max(map(len, answers))
        if left < 1:
            return None
        kept = tokens[-max(1, min(left, space - room)) :]
        prompt = np.concatenate([self._before, kept, self._after])
        return Encoded(prompt, tuple(answers), len(kept) < len(tokens))

    def _encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in found]


def heldout_examples(corpus: Corpus, domain: DomainInfo, limit: int | None = None) -> list[Example]:
    """Return the first `limit` examples of `domain`, a task, that nobody trains on. Raises DataError: damaged."""
    path = corpus.blob(domain.heldout.content_id)
    try:
        with path.open("rb") as file:
            return [Example.from_line(line) for line in islice(file, limit)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} does not hold examples ({error}); fetch or prepare the corpus again") from None


def heldout_tokens(corpus: Corpus, domain: DomainInfo, limit: int | None = None) -> Tokens:
    """Return the tokens of `domain` that nobody trains on; of a task the first `limit` examples, prompts marked."""
    if domain.task is None:
        return corpus.heldout(domain)
    encoded = corpus_encoder(corpus).encode(heldout_examples(corpus, domain, limit))
    return cast(Tokens, np.concatenate([each.marked() for each in encoded if each is not None]))


def corpus_encoder(corpus: Corpus) -> TaskEncoder:
    """Return the encoder of a corpus that has a task."""
    form = corpus.info.task_format
    assert form is not None
    return TaskEncoder(form, read_tokenizer(corpus.path, corpus.info.vocab_size).tokenizer, corpus.info.end_of_text)
