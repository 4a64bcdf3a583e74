"""Lets a running swarm answer a prompt, from outside: `shoal ask`. Nothing is generated here.

Whom to ask for what is decided in `peer/answers/choosing.py`.
"""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
import uvloop

from configs.errors import NetworkError, PeerError
from configs.text import printable
from peer.answers.choosing import Choice, Reader, choices, rank
from peer.fused.router import Router
from peer.member.invited import Home
from peer.visit.visit import Visit, open_visit
from protocols.answer import ANSWER_S, AnswerRequest, Answers, ask_answer

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


def ask(address: str, run_id: str | None, question: Question, home: Home | None = None) -> None:
    """Print the answer of a swarm, as it comes; say on stderr who gave it.

    Raises UsageError, DataError, NetworkError, PeerError: one line each.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask_swarm(address, run_id, question, home))


async def ask_swarm(address: str, run_id: str | None, question: Question, home: Home | None = None) -> None:
    """Do as `ask` says, in a running event loop."""
    async with open_visit([address], run_id, home) as run:
        reader = Reader(run.spec, run.domains, run.library.tokenizer_json)
        prompt = reader.read(question.prompt, is_task=question.is_task)
        ranked = rank(run.strategy, Router(np.stack(list(run.counts.values()))), prompt)
        stored = {peer: {s.block: s.age for s in states} for peer, states in (await run.store.ask(run.peers)).items()}
        found = choices(run.strategy, ranked, stored)
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
