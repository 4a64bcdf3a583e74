"""The examples of a task: an input and its target, or turns of which the last is the target, as tokens.

An example becomes prompt, target, end mark; the prompt is what was said before, in the task's format (`chats.py`). What
the assistant says counts; all other tokens are marked (data.py). One that is longer than the window loses its first
turns, then the beginning of the last input, or its end if the format says so. Training, `eval` and `generate` all take
their tokens from `TaskEncoder`. Reading files of examples is `peer/prepare`'s.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from configs.corpus import DomainInfo, TaskFormat
from configs.errors import DataError
from peer.corpus.chats import ASSISTANT, USER, Turn, form_of, placed
from peer.corpus.data import Corpus, Tokens
from peer.corpus.tokenizer import check_text, read_tokenizer


@dataclass(frozen=True)
class Example:
    """One line of a task. All texts hold something; a target among several is the one that is trained on."""

    input: str
    target: str
    references: tuple[str, ...]  # what counts as right, the target among them
    options: tuple[str, ...] = ()  # to choose from, a reference among them
    before: tuple[Turn, ...] = ()  # turns of a chat before the input

    @property
    def text(self) -> str:
        """What a tokenizer learns of it."""
        return "\n".join([*(text for _, text in self.before), self.input, self.target])

    def to_line(self) -> bytes:
        """Return it as a line of JSON, which `Example.from_line` reads."""
        fields = asdict(self)
        if not self.before:
            del fields["before"]
        return json.dumps(fields, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Example":
        """Read what `to_line` wrote."""
        fields: dict[str, Any] = json.loads(line)
        before = tuple((str(role), str(text)) for role, text in fields.get("before", ()))
        return cls(fields["input"], fields["target"], tuple(fields["references"]), tuple(fields["options"]), before)


@dataclass(frozen=True)
class Encoded:
    """An example as tokens, int64. `answers` are the target and the options, each with its end mark."""

    prompt: NDArray[np.int64]
    answers: tuple[NDArray[np.int64], ...]
    lost: int  # tokens of what was said before that did not fit
    learnt: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))  # of the prompt; empty: nothing

    def marked(self, answer: int = 0) -> NDArray[np.int64]:
        """Return prompt and answer; of the prompt all is marked but what an assistant said."""
        prompt = np.where(self.learnt, self.prompt, ~self.prompt) if self.learnt.size else ~self.prompt
        return np.concatenate([prompt, self.answers[answer]])


@dataclass(frozen=True)
class _Said:
    """A turn as tokens: what stands before it, what was said, what stands after it."""

    before: NDArray[np.int64]
    content: NDArray[np.int64]
    after: NDArray[np.int64]
    is_learnt: bool

    @property
    def tokens(self) -> NDArray[np.int64]:
        return np.concatenate([self.before, self.content, self.after])

    @property
    def learnt(self) -> NDArray[np.bool_]:
        parts = (self.before, False), (self.content, self.is_learnt), (self.after, False)
        return np.concatenate([np.full(len(part), is_learnt) for part, is_learnt in parts])


class TaskEncoder:
    """Turns examples into tokens, in one format. Texts are never read as special tokens: none can end itself."""

    def __init__(self, form: TaskFormat, tokenizer: Tokenizer, end_of_text: int) -> None:
        """Use `tokenizer`, which from now on takes special tokens in texts for plain text.

        Raises DataError: the format leaves too little room in a window, or needs tokens that are not there.
        """
        self.window = form.window  # tokens
        self._tokenizer, self._form, self._keep = tokenizer, form_of(form), form.keep
        if lacking := [token for token in self._form.special if tokenizer.token_to_id(token) is None]:
            raise DataError(
                f"the chat format {form.chat} is written with {lacking[0]}, which this tokenizer does not have; take "
                "another, or plain, which needs no tokens of its own"
            )
        # Each part is encoded by itself, so that its tokens do not depend on its neighbours.
        tokenizer.encode_special_tokens = not self._form.special
        self._begin = self._encode([self._form.begin])[0]
        self._opens = dict(zip(self._form.opens, self._encode(list(self._form.opens.values())), strict=True))
        self._closes = dict(zip(self._form.closes, self._encode(list(self._form.closes.values())), strict=True))
        tokenizer.encode_special_tokens = True
        self.end = int(tokenizer.token_to_id(self._form.end) or 0) if self._form.end else end_of_text
        if 2 * (len(self._begin) + self._around(USER) + len(self._opens[ASSISTANT])) > form.window:
            raise DataError(
                f"the {form.chat or 'prompt'} format {'' if form.chat else repr(form.prompt)} takes more than half of "
                f"the {form.window} tokens of a window; shorten it or take a larger context length"
            )

    def prompt(self, text: str) -> NDArray[np.int64]:
        """Return the whole prompt of an input, however long."""
        said = self._said(USER, *self._encode([self._form.lead + text]))
        return np.concatenate([self._begin, said.tokens, self._opens[ASSISTANT]])

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

        What was said before is cut so that the longest of its answers fits or, where that is longer, one of `room`
        tokens.
        """
        turns = [placed([*example.before, (USER, example.input)], self._form) for example in examples]
        texts = iter(self._encode([self._form.lead + text for each in turns for _, text in each]))
        said = [[self._said(role, next(texts)) for role, _ in each] for each in turns]
        told = [self._form.lead + text for example in examples for text in (example.target, *example.options)]
        answers = iter(self._encode(told))
        return [
            self._fit(own, [np.append(next(answers), self.end) for _ in range(1 + len(example.options))], room)
            for example, own in zip(examples, said, strict=True)
        ]

    def _fit(self, said: Sequence[_Said], answers: list[NDArray[np.int64]], room: int) -> Encoded | None:
        *before, last = said
        space = self.window - len(self._begin) - self._around(USER) - len(self._opens[ASSISTANT])
        left = space - max(map(len, answers))
        if left < 1:
            return None
        left = max(1, min(left, space - room))
        kept = [replace(last, content=last.content[:left] if self._keep == "start" else last.content[-left:])]
        left -= len(kept[0].content)
        for turn in reversed(before):
            left -= len(turn.tokens)
            if left < 0:
                break
            kept.insert(0, turn)
        while kept[0].is_learnt:  # an answer whose question did not fit
            del kept[0]
        opened = self._opens[ASSISTANT]
        prompt = np.concatenate([self._begin, *(turn.tokens for turn in kept), opened])
        lost = sum(len(turn.tokens) for turn in said) - sum(len(turn.tokens) for turn in kept)
        if len(kept) == 1:
            return Encoded(prompt, tuple(answers), lost)
        none = np.zeros(len(self._begin), dtype=bool), np.zeros(len(opened), dtype=bool)
        learnt = np.concatenate([none[0], *(turn.learnt for turn in kept), none[1]])
        return Encoded(prompt, tuple(answers), lost, learnt)

    def _said(self, role: str, content: NDArray[np.int64]) -> _Said:
        is_learnt = role == ASSISTANT
        content = np.append(content, self.end) if is_learnt else content
        return _Said(self._opens[role], content, self._closes[role], is_learnt)

    def _around(self, role: str) -> int:
        return len(self._opens[role]) + len(self._closes[role])

    def _encode(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in found]


def heldout_examples(corpus: Corpus, domain: DomainInfo, limit: int | None = None) -> list[Example]:
    """Return the first `limit` examples of `domain`, a task, that nobody trains on. Raises DataError: damaged."""
    return read_examples(corpus.blob(domain.heldout.content_id), limit)


def read_examples(path: Path, limit: int | None = None) -> list[Example]:
    """Return the first `limit` examples in a file of held-out ones. Raises DataError: it is damaged."""
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
