"""Lets the swarm answer a prompt of this machine's owner: from the page, and again and again for the fixed prompts.

Where sub-models have parted, an answer is written in pieces: before each, the text so far decides anew who goes on.
"""

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.errors import NetworkError, PeerError, ShoalError
from peer.answers.choosing import Choice, Reader, choices, rank
from peer.answers.speaker import Speaker
from peer.corpus.data import read_counts
from peer.fused.router import Router
from peer.http.history import Piece
from peer.member.facts import Facts
from peer.member.library import Library
from peer.member.outlook import Outlook
from protocols.answer import AnswerPart, AnswerRequest, ask_answer

log = logging.getLogger(__name__)

PIECE_TOKENS = 16  # after which the sub-models are ranked anew
TOP_K = 50
MAX_REASONS = 3  # that are told when nobody answers


@dataclass(frozen=True)
class Wish:
    """What is asked, and how the answer is drawn."""

    prompt: str
    max_tokens: int
    temperature: float
    seed: int = 0


class Asker:
    """Asks this peer itself and the others; `stub` reaches a peer's `Answers`."""

    def __init__(
        self,
        facts: Facts,
        library: Library,
        speaker: Speaker,
        outlook: Outlook,
        stub: Callable[[str], Any],
    ) -> None:
        self._facts, self._library, self.speaker = facts, library, speaker
        self._outlook, self._stub = outlook, stub
        self._router: Router | None = None

    async def ask(self, wish: Wish) -> AsyncGenerator[Piece, None]:
        """Yield an answer as it is written. Raises DataError, NetworkError: nobody answers, and why."""
        reader = Reader(self._facts.spec, self._library.domains, self._library.tokenizer_json)
        tokens, left = reader.read(wish.prompt), wish.max_tokens
        at_once = left if len(self._facts.strategy.sub_models) == 1 else PIECE_TOKENS
        while left > 0:
            text, end, count = "", "", min(at_once, left)
            async with aclosing(self._piece(tokens, wish, count)) as parts:
                async for choice, part in parts:
                    text, end = text + part.text, part.end or end
                    if part.text:
                        yield Piece(text=part.text, sub_model=choice.sub_model)
            left -= count
            if end != "length" or not text:
                return
            tokens = [*tokens, *reader.go_on(text)][-self._facts.spec.model.context_length :]

    async def _piece(
        self, tokens: Sequence[int], wish: Wish, count: int
    ) -> AsyncGenerator[tuple[Choice, AnswerPart], None]:
        """Yield the next tokens of an answer, from whoever is best and answers. Raises NetworkError: nobody does."""
        found = choices(
            self._facts.strategy, rank(self._facts.strategy, await self._counts(), tokens), self._outlook.stored()
        )
        reasons: list[str] = []
        for choice in found:
            request = AnswerRequest(
                sub_model=choice.sub_model,
                prompt=list(tokens),
                max_tokens=count,
                temperature=wish.temperature,
                top_k=TOP_K,
                seed=wish.seed,
            )
            has_begun = False
            try:
                async with aclosing(self._parts(choice, request)) as parts:
                    async for part in parts:
                        has_begun = True
                        yield choice, part
            except (NetworkError, PeerError) as error:
                if has_begun:
                    raise NetworkError(f"the answer broke off: {error}; ask again") from None
                reasons.append(f"{choice.sub_model} of {choice.peer[-6:]}: {error}")
                continue
            return
        why = "; ".join(reasons[:MAX_REASONS]) or "nobody has a sub-model yet"
        raise NetworkError(f"nobody answers: {why}; ask again later")

    def _parts(self, choice: Choice, request: AnswerRequest) -> AsyncGenerator[AnswerPart, None]:
        if choice.peer == self._facts.me:
            return self.speaker.answer(request)
        return ask_answer(self._stub(choice.peer), request)

    async def _counts(self) -> Router:
        """Return what ranks the sub-models; what it needs is fetched the first time. Raises NetworkError, DataError."""
        if self._router is None:
            blobs = [domain.counts for domain in self._library.domains]
            try:
                await self._library.fetch(blobs, self._outlook.others())
            except ShoalError as error:
                raise NetworkError(f"the domains' counts cannot be had yet: {error}; ask again later") from None
            paths = [path for blob in blobs if (path := self._library.path(blob)) is not None]
            vocab_size = self._facts.spec.model.vocab_size
            self._router = Router(np.stack([read_counts(path, vocab_size) for path in paths]))
        return self._router
