"""What the swarm makes of the same prompts again and again, so that a person sees how its answers change.

The prompts are the owner's, or the beginnings of text that nobody trains on.
"""

import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

import numpy as np

from configs.errors import ShoalError
from configs.files import read_model, write_json
from peer.answers.asker import Wish
from peer.corpus.data import token_dtype
from peer.corpus.tokenizer import open_tokenizer
from peer.http.history import Answered, AnswersHistory, Piece, PromptHistory
from peer.member.library import Library

log = logging.getLogger(__name__)

FILE = "answers.json"
REMEDY = "delete it: it only holds the answers that the page shows"
ASK_S = 300.0  # between two times that all are asked
MAX_PROMPTS = 4
MAX_PROMPT_CHARS = 500
DRAWN_TOKENS = 12  # of a text's beginning, where the owner has named no prompts
ANSWER_TOKENS = 32
MAX_ANSWERS = 100  # of one prompt; of more, every second goes

Ask = Callable[[Wish], AsyncGenerator[Piece, None]]


class Prompts:
    """Asks the fixed prompts when they are due, with the likeliest token each time, and remembers the answers."""

    def __init__(self, state_dir: Path, given: tuple[str, ...], library: Library, ask: Ask) -> None:
        """Take up the answers from before. Raises StateError if their file is damaged."""
        self._path, self._given, self._library, self._ask = state_dir / FILE, given, library, ask
        self.history = read_model(self._path, AnswersHistory, REMEDY) or AnswersHistory()
        self._next_s = 0.0

    def is_due(self, now: float) -> bool:
        """Whether to ask again; `now` in seconds."""
        return now >= self._next_s

    async def ask(self, now: float, tick: int, age: int) -> None:
        """Ask every prompt once; one that nobody answers is left out this time. A run of no language model has none."""
        self._next_s = now + ASK_S
        if self._library.spec.model.module is not None:
            return
        wanted = [(prompt, "") for prompt in self._given[:MAX_PROMPTS]] or drawn(self._library)
        known = {each.prompt: each for each in self.history.prompts}
        prompts = []
        for prompt, domain in wanted:
            each = known.get(prompt) or PromptHistory(prompt=prompt, domain=domain)
            prompts.append(each)
            pieces: list[Piece] = []
            try:
                async with aclosing(self._ask(Wish(prompt, ANSWER_TOKENS, temperature=0.0))) as answer:
                    async for piece in answer:
                        pieces = joined(pieces, piece)
            except ShoalError as error:
                log.debug("a fixed prompt was not answered: %s", error)
                continue
            if pieces:
                each.answers.append(Answered(at=now, tick=tick, age=age, pieces=pieces))
            if len(each.answers) > MAX_ANSWERS:
                each.answers[1:-1] = each.answers[2:-1:2]
        if prompts:  # text that has not come yet is no reason to forget what was asked before
            self.history = AnswersHistory(prompts=prompts)

    def save(self) -> None:
        """Write the answers. Raises StateError."""
        write_json(self._path, self.history.model_dump())


def joined(pieces: list[Piece], piece: Piece) -> list[Piece]:
    """Return the pieces with one more; what one sub-model wrote in a row is one piece."""
    if pieces and pieces[-1].sub_model == piece.sub_model:
        return [*pieces[:-1], Piece(text=pieces[-1].text + piece.text, sub_model=piece.sub_model)]
    return [*pieces, piece]


def drawn(library: Library) -> list[tuple[str, str]]:
    """Return a prompt for each of the first domains whose held-out text lies here, with the domain's name."""
    found: list[tuple[str, str]] = []
    for domain in library.domains:
        path = library.path(domain.heldout)
        if path is None or len(found) == MAX_PROMPTS:
            continue
        prompt = _first_input(path) if domain.task is not None else _beginning(library, path)
        if prompt.strip():
            found.append((prompt[:MAX_PROMPT_CHARS], domain.name))
    return found


def _beginning(library: Library, path: Path) -> str:
    spec = library.spec
    tokens = np.fromfile(path, token_dtype(spec.model.vocab_size), count=4 * DRAWN_TOKENS).tolist()
    text = tokens[: tokens.index(spec.end_of_text)] if spec.end_of_text in tokens else tokens
    return open_tokenizer(library.tokenizer_json).decode(text[:DRAWN_TOKENS])


def _first_input(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as lines:
        try:
            first = json.loads(lines.readline(1 << 16))
        except ValueError:
            return ""
    said = first.get("input", "") if isinstance(first, dict) else ""
    return said if isinstance(said, str) else ""
