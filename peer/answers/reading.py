"""An answer as its client reads it: up to a stop, with its tokens' logarithms, and why it ended."""

from collections.abc import AsyncIterator, Sequence

from peer.answers.asked import Choice, FinishReason, Token, Usage
from peer.answers.writer import Answer
from peer.corpus.tokenizer import CONTEXT_TOKENS, token_bytes


class Stops:
    """Finds where an answer ends: before the first of some texts, however it is cut into pieces."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.is_found = False
        self.rest = ""  # what may be the beginning of a stop, or the end of the answer
        self._stops = stops

    def feed(self, piece: str) -> str:
        """Return what is surely a part of the answer, now that `piece` has come."""
        text = self.rest + piece
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.is_found, self.rest = True, ""
            return text[: min(found)]
        heads = (length for stop in self._stops for length in range(1, len(stop)) if text.endswith(stop[:length]))
        sure = len(text) - max(heads, default=0)
        self.rest = text[sure:]
        return text[:sure]


class Reading:
    """Iterate for the pieces of an answer, the last with the reason why it ends; afterwards, see what it took."""

    def __init__(self, answer: Answer, index: int, stops: Sequence[str], *, is_echo: bool, has_tokens: bool) -> None:
        self._answer, self._index, self._stops = answer, index, Stops(stops)
        self._is_echo, self._has_tokens = is_echo, has_tokens
        self._taken = 0  # pieces, one for each token
        self._told = 0 if is_echo else answer.generation.prompt_tokens  # tokens whose logarithms were told
        self._offset = 0  # of the next of them

    async def __aiter__(self) -> AsyncIterator[Choice]:
        generation = self._answer.generation
        if self._is_echo:
            yield self._piece(generation.text(0, generation.prompt_tokens), generation.prompt_tokens)
        async for piece in self._answer:
            self._taken += 1
            yield self._piece(self._stops.feed(piece), generation.prompt_tokens + self._taken)
            if self._stops.is_found:
                break
        upto = generation.prompt_tokens + self._taken if self._stops.is_found else len(generation.tokens)
        yield self._piece(self._stops.rest, upto, "stop" if self._is_stopped else "length")

    async def whole(self) -> Choice:
        """Return the whole answer."""
        pieces = [piece async for piece in self]
        tokens = tuple(token for piece in pieces for token in piece.tokens or ())
        text = "".join(piece.text for piece in pieces)
        return Choice(self._index, text, pieces[-1].finish_reason, tokens if self._has_tokens else None)

    @property
    def mean_log_probability(self) -> float:
        """How likely the answer was, for each of its tokens; of one whose logarithms were noted."""
        noted = [each.log_probability for each in self._answer.generation.chances[self._prompt :] if each is not None]
        return sum(noted) / max(1, len(noted))

    @property
    def usage(self) -> Usage:
        """The numbers of tokens; the thread may be a few ahead of a stop."""
        generation = self._answer.generation
        return Usage(generation.prompt_tokens, min(self._taken, generation.answer_tokens))

    @property
    def _prompt(self) -> int:
        return self._answer.generation.prompt_tokens

    @property
    def _is_stopped(self) -> bool:
        return self._stops.is_found or self._answer.generation.has_ended

    def _piece(self, text: str, upto: int, reason: FinishReason | None = None) -> Choice:
        """Return a piece with the tokens that have not been told, up to this one of the whole text."""
        if not self._has_tokens:
            return Choice(self._index, text, reason)
        first, offset = self._told, self._offset
        self._told = max(first, min(upto, len(self._answer.generation.chances)))
        tokens = tuple(self._token(at) for at in range(first, self._told))
        self._offset += sum(token.chars for token in tokens)
        return Choice(self._index, text, reason, tokens, offset)

    def _token(self, at: int) -> Token:
        generation = self._answer.generation
        chance, tokenizer = generation.chances[at], generation.model.tokenizer
        assert tokenizer is not None
        before = generation.tokens[max(0, at - CONTEXT_TOKENS) : at]

        def raw(token: int) -> bytes:
            if token in generation.model.ends:  # it is no text, but has a name
                return str(tokenizer.id_to_token(token)).encode()
            return token_bytes(tokenizer, [*before, token], len(before))

        if chance is None:
            return Token(raw(generation.tokens[at]), None, ())
        likeliest = tuple((raw(token), value) for token, value in chance.likeliest)
        return Token(raw(generation.tokens[at]), chance.log_probability, likeliest)
