"""Answers the prompts of `shoal ask` with the sub-models whose blocks lie on this peer, beside its training."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from torch import Tensor

from configs.errors import NetworkError
from peer.answers.writer import Writer
from peer.block.store import BlockStore
from peer.corpus.tokenizer import open_tokenizer
from peer.member.facts import Facts
from peer.member.library import Library
from peer.train.memory import can_answer
from protocols.answer import MAX_PART_CHARS, AnswerPart, AnswerRequest

if TYPE_CHECKING:
    from peer.fused.generate import Generation

log = logging.getLogger(__name__)

SHARE = 0.03  # of the time, that answers may take while this peer trains
SAVED_S = 20.0  # of it that are saved up, so that a person who asks now and then never waits


class Leisure:
    """The time that answers may take from training: a share of it, and what was not used is saved up for a while."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._saved_s, self._at = SAVED_S, now()

    def waits_s(self) -> float:
        """Return how long it is until there is time again; zero when there is."""
        now = self._now()
        self._saved_s, self._at = min(SAVED_S, self._saved_s + SHARE * (now - self._at)), now
        return max(0.0, -self._saved_s / SHARE)

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Count what an answer takes."""
        began = self._now()
        try:
            yield
        finally:
            self.waits_s()
            self._saved_s -= self._now() - began


class Speaker:
    """Speaks with the newest state of each block that this peer has: in training, or kept for others.

    One prompt at a time, in a thread; the model is built for it and dropped afterwards: the memory is for training.
    Transformers is imported at the first prompt, for seconds.
    """

    def __init__(
        self,
        facts: Facts,
        store: BlockStore,
        library: Library,
        declines: Callable[[], str],
        trains: Callable[[], bool] = lambda: False,
    ) -> None:
        self._facts, self._store, self._library = facts, store, library
        self._declines = declines  # says why no prompt is answered now, or nothing
        self._trains, self._leisure = trains, Leisure()
        self._writer = Writer(max_waiting=0)

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerPart, None]:
        """Yield the parts of an answer, the last with its end. Raises ShoalError to decline."""
        if reason := self._declines():
            raise NetworkError(reason)
        if self._trains() and (wait_s := self._leisure.waits_s()):
            raise NetworkError(f"it has answered much lately, and trains; ask another peer, or again in {wait_s:.0f} s")
        if not can_answer(self._facts.spec.model):
            raise NetworkError("it has too little free memory to answer beside its training")
        blocks = self._facts.strategy.blocks(request.sub_model)
        if missing := sorted(set(blocks) - self._store.versions().keys()):
            raise NetworkError(f"it does not have {', '.join(missing)}")
        log.info("answers a prompt of %d tokens with %s", len(request.prompt), request.sub_model)
        with self._leisure.spend():
            async with aclosing(self._written(request, blocks)) as parts:
                async for part in parts:
                    yield part

    async def _written(self, request: AnswerRequest, blocks: Sequence[str]) -> AsyncGenerator[AnswerPart, None]:
        async with self._writer.write(lambda: self._begin(request, blocks)) as answer:
            async for piece in answer:
                if piece:
                    yield AnswerPart(text=piece[:MAX_PART_CHARS])
            yield AnswerPart(end="stop" if answer.generation.has_ended else "length")

    def _begin(self, request: AnswerRequest, blocks: Sequence[str]) -> Generation:
        """Build the sub-model and read the prompt; runs in a thread. Raises DataError, StateError."""
        from peer.fused.generate import Generation
        from peer.fused.parts import build_one
        from peer.fused.routed import RoutedModel, SubModelInfo
        from peer.fused.sampling import Sampling

        states = {block: self._phi(block) for block in blocks}
        domain = self._library.domain_name(self._facts.strategy.domain(request.sub_model))
        model = RoutedModel.single(
            SubModelInfo(name=request.sub_model, domain=domain),
            build_one(self._facts.spec, self._facts.strategy, states, request.sub_model, self._library.frozen()),
            self._facts.spec.end_of_text,
            open_tokenizer(self._library.tokenizer_json),
        )
        sampling = Sampling(
            max_tokens=request.max_tokens, temperature=request.temperature, top_k=request.top_k, seed=request.seed
        )
        return Generation(model, request.prompt, sampling)

    def _phi(self, block: str) -> Tensor:
        """Return the parameters of a block as of its last outer step."""
        replica = self._store.replicas.get(block)
        state = replica.state if replica is not None else self._store.load(block)
        if state is None:
            raise NetworkError(f"it does not have {block} any more")
        return state.phi
