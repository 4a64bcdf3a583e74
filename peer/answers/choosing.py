"""Which sub-model is to answer a prompt, and which peer is asked for it. Pure, but for the tokenizer.

Naive Bayes over the prompt's tokens says which sub-model knows most of such text; whoever has its newest state is asked
first. Where that fails, another peer is asked, and then the next best sub-model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from configs.corpus import DomainInfo, common_format
from configs.errors import DataError
from configs.run import RunSpec
from peer.corpus.examples import TaskEncoder
from peer.corpus.tokenizer import encode_text, open_tokenizer
from peer.fused.router import Router
from peer.train.partition import COMMON, Strategy
from protocols.answer import MAX_PROMPT_TOKENS

Stored = Mapping[str, Mapping[str, int]]  # peer → block → age of what it stores, in tokens


@dataclass(frozen=True)
class Choice:
    """A peer that has a sub-model."""

    sub_model: str
    peer: str
    age: int  # tokens


class Reader:
    """Turns prompts into tokens as a run's sub-models read them."""

    def __init__(self, spec: RunSpec, domains: Sequence[DomainInfo], tokenizer_json: bytes) -> None:
        self._spec, self._form = spec, common_format(domains)
        self._tokenizer = open_tokenizer(tokenizer_json)

    def read(self, prompt: str, *, is_task: bool | None = None) -> list[int]:
        """Return a prompt's tokens; `is_task`: in the run's prompt format, None: if it has one.

        Raises DataError: empty, too long, or a task that is none.
        """
        if is_task and self._form is None:
            raise DataError("this run does not train on a task; leave out --task")
        if self._form is not None and is_task is not False:
            encoder = TaskEncoder(self._form, self._tokenizer, self._spec.end_of_text)
            return encoder.question(prompt, self._spec.model.context_length)
        tokens = encode_text(self._tokenizer, prompt)
        if len(tokens) > MAX_PROMPT_TOKENS:
            raise DataError(
                f"the prompt has {len(tokens)} tokens, and a peer takes at most {MAX_PROMPT_TOKENS}; shorten it"
            )
        return tokens

    def go_on(self, text: str) -> list[int]:
        """Return the tokens of what was written after a prompt."""
        return encode_text(self._tokenizer, text)


def rank(strategy: Strategy, router: Router, prompt: Sequence[int]) -> list[str]:
    """Order the sub-models by how well their domains fit the prompt; last the one from which all come."""
    if strategy.kind == "replicas":
        return list(dict.fromkeys((*strategy.sub_models, COMMON)))
    likelihood = router.naive_bayes(prompt).sum(axis=1)
    return [*(strategy.sub_models[domain] for domain in np.argsort(-likelihood, kind="stable")), COMMON]


def choices(strategy: Strategy, ranked: Sequence[str], stored: Stored) -> list[Choice]:
    """Return whom to ask for which sub-model, best first: by rank, then by the age of what the peer has."""
    found = []
    for name in ranked:
        blocks = strategy.blocks(name)
        holders = [Choice(name, peer, own[blocks[-1]]) for peer, own in stored.items() if own.keys() >= set(blocks)]
        found += sorted(holders, key=lambda choice: (-choice.age, choice.peer))
    return found
