"""Lets a running swarm answer a prompt: `shoal ask`. Nothing is generated here.

Naive Bayes over the prompt's tokens says which sub-model knows most of such text; whoever has its newest state is asked
first. Where that fails, another peer is asked, and then the next best sub-model.
"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import uvloop

from configs.corpus import common_format
from configs.errors import DataError, NetworkError, PeerError
from configs.text import printable
from peer.corpus.examples import TaskEncoder
from peer.corpus.tokenizer import encode_text, open_tokenizer
from peer.fused.router import Router
from peer.member.invited import Home
from peer.train.partition import COMMON, Strategy
from peer.visit.visit import Visit, open_visit
from protocols.answer import ANSWER_S, MAX_PROMPT_TOKENS, AnswerRequest, Answers, ask_answer
from protocols.state import BlockState

MAX_REASONS = 3  # that are told when nobody answers


@dataclass(frozen=True)
class Question:
    """What is asked, and how the answer is drawn."""

    prompt: str
    is_task: bool | None  # in the run's prompt format; None: if it has one
    max_tokens: int
    temperature: float
    top_k: int
    seed: int


@dataclass(frozen=True)
class Choice:
    """A peer that has a sub-model."""

    sub_model: str
    peer: str
    age: int  # tokens


def ask(address: str, run_id: str | None, question: Question, home: Home | None = None) -> None:
    """Print the answer of a swarm, as it comes; say on stderr who gave it.

    Raises UsageError, DataError, NetworkError, PeerError: one line each.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask_swarm(address, run_id, question, home))


async def ask_swarm(address: str, run_id: str | None, question: Question, home: Home | None = None) -> None:
    """Do as `ask` says, in a running event loop."""
    async with open_visit([address], run_id, home) as run:
        prompt = _tokens(run, question)
        ranked = rank(run.strategy, Router(np.stack(list(run.counts.values()))), prompt)
        found = choices(run.strategy, ranked, await run.store.ask(run.peers))
        if not found:
            raise NetworkError("none of the peers that can be reached has a sub-model yet; ask again later")
        reasons: list[str] = []
        for choice in found:
            try:
                broken = await _print_answer(run, choice, prompt, question)
            except (NetworkError, PeerError) as error:
                reasons.append(f"{choice.sub_model} of {choice.peer}: {error}")
                continue
            if broken:
                raise NetworkError(f"the answer broke off: {broken}; ask again")
            return
        more = f"; and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
        raise NetworkError(f"nobody answers: {'; '.join(reasons[:MAX_REASONS])}{more}; ask again later")


def _tokens(run: Visit, question: Question) -> list[int]:
    """Return the prompt as the sub-models read it. Raises DataError: empty, too long, or a task that is none."""
    tokenizer = open_tokenizer(run.library.tokenizer_json)
    form = common_format(run.domains)
    if question.is_task and form is None:
        raise DataError("this run does not train on a task; leave out --task")
    if form is not None and question.is_task is not False:
        encoder = TaskEncoder(form, tokenizer, run.spec.end_of_text)
        return encoder.question(question.prompt, run.spec.model.context_length)
    tokens = encode_text(tokenizer, question.prompt)
    if len(tokens) > MAX_PROMPT_TOKENS:
        raise DataError(
            f"the prompt has {len(tokens)} tokens, and a peer takes at most {MAX_PROMPT_TOKENS}; shorten it"
        )
    return tokens


def rank(strategy: Strategy, router: Router, prompt: Sequence[int]) -> list[str]:
    """Order the sub-models by how well their domains fit the prompt; last the one from which all come."""
    if strategy.kind == "replicas":
        return list(dict.fromkeys((*strategy.sub_models, COMMON)))
    likelihood = router.naive_bayes(prompt).sum(axis=1)
    return [*(strategy.sub_models[domain] for domain in np.argsort(-likelihood, kind="stable")), COMMON]


def choices(strategy: Strategy, ranked: Sequence[str], states: Mapping[str, Sequence[BlockState]]) -> list[Choice]:
    """Return whom to ask for which sub-model, best first: by rank, then by the age of what the peer has.

    `states`: what each peer stores.
    """
    ages = {peer: {state.block: state.age for state in stored} for peer, stored in states.items()}
    found = []
    for name in ranked:
        blocks = strategy.blocks(name)
        holders = [Choice(name, peer, own[blocks[-1]]) for peer, own in ages.items() if own.keys() >= set(blocks)]
        found += sorted(holders, key=lambda choice: (-choice.age, choice.peer))
    return found


async def _print_answer(run: Visit, choice: Choice, prompt: list[int], question: Question) -> str:
    """Ask one peer; return why its answer broke off, if it did. Raises NetworkError, PeerError: there is none."""
    request = AnswerRequest(
        sub_model=choice.sub_model,
        prompt=prompt,
        max_tokens=question.max_tokens,
        temperature=question.temperature,
        top_k=question.top_k,
        seed=question.seed,
    )
    has_begun, end = False, ""
    try:
        stub = run.network.stub(Answers, choice.peer, run.spec.run_id)
        async with aclosing(ask_answer(stub, request)) as parts:
            async for part in parts:
                if not has_begun:
                    _say(_introduction(run, choice))
                has_begun, end = True, part.end
                print(printable(part.text), end="", flush=True)
    except (NetworkError, PeerError) as error:
        if not has_begun:
            raise
        print(flush=True)
        return str(error)
    print(flush=True)
    if end == "time":
        _say(f"cut: a peer writes for at most {ANSWER_S:.0f} s")
    return ""


def _introduction(run: Visit, choice: Choice) -> str:
    index = run.strategy.domain(choice.sub_model)
    domain = "all domains" if index is None else run.domains[index].name
    return f"{choice.sub_model} ({domain}, {choice.age:,} tokens), asked of {choice.peer}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
