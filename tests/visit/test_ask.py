"""Whom `ask` asks for what, and what it prints; the peers are real hosts."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_example import BRANCHES

from configs.errors import NetworkError
from configs.run import RunSpec
from dht.identity import Identity
from dht.network import open_network
from dht.records import DomainRecord, sign_record
from peer.answers.choosing import Choice, choices, rank
from peer.commands.main import main
from peer.corpus.data import Corpus, open_corpus
from peer.fused.router import Router
from peer.member.library import Library
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.train.partition import Strategy
from peer.visit.ask import Question, ask_swarm
from protocols.answer import AnswerPart, AnswerRequest, Answers
from protocols.describe import Describe
from protocols.shards import Shards
from protocols.state import BlockState, State
from protocols.traffic import Traffic


def state(block: str, age: int) -> BlockState:
    return BlockState(block=block, version=1, round=1, age=age, content_id="a" * 64, size_bytes=8, is_final=False)


def test_the_sub_model_whose_domain_has_such_text_comes_first() -> None:
    counts = np.array([[90, 5, 5], [5, 90, 5], [5, 5, 90]], dtype=np.uint64)
    strategy = Strategy("experts", 3)
    assert rank(strategy, Router(counts), [1, 1, 2]) == ["expert.1", "expert.2", "expert.0", "model"]
    assert rank(strategy, Router(counts), [0])[0] == "expert.0"
    assert rank(Strategy("replicas", 3), Router(counts), [1]) == ["model"]
    assert rank(Strategy("replicas", 3, parts=2), Router(counts), [1]) == ["replica", "model"]


def test_whoever_has_the_newest_is_asked_first_and_then_the_next_best_sub_model() -> None:
    strategy = Strategy("experts", 2)
    states = {
        "a": {"model": 5, "trunk": 9, "expert.0": 7},
        "b": {"model": 5, "trunk": 9, "expert.1": 6, "expert.0": 8},
        "c": {"expert.1": 99},  # no trunk: it cannot answer
    }
    assert choices(strategy, ["expert.1", "expert.0", "model"], states) == [
        Choice("expert.1", "b", 6),
        Choice("expert.0", "b", 8),
        Choice("expert.0", "a", 7),
        Choice("model", "a", 5),
        Choice("model", "b", 5),
    ]
    assert choices(strategy, ["model"], {"c": states["c"]}) == []


def nobody(peer: str) -> Any:
    raise NetworkError("no network here")


class Peer:
    """What a peer stores, and what it says to every question: parts of an answer, or why it declines."""

    def __init__(self, states: list[BlockState], *says: AnswerPart | str) -> None:
        self.states = states
        self.says = says

    def block_states(self) -> list[BlockState]:
        return self.states

    async def keep(self, state: BlockState, from_peer: str) -> None:
        raise NetworkError("it keeps nothing")

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerPart, None]:
        for said in self.says:
            if isinstance(said, str):
                raise NetworkError(said)
            yield said


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    texts = {
        "up": ["sky cloud bird " * 30, "cloud bird sky " * 30],
        "down": ["root stone worm " * 30, "worm root " * 30],
    }
    out = tmp_path_factory.mktemp("ask") / "corpus"
    prepare_texts(texts, out, Plan(vocab_size=300, context_length=16))
    return open_corpus(out)


def ask_peers(peers: Sequence[Peer], corpus: Corpus, smallest_run: Callable[..., RunSpec], folder: Path) -> list[str]:
    """Ask the first of `peers`, all real hosts; return their ids, in order."""
    info = corpus.info
    spec = smallest_run(**BRANCHES, tokenizer_sha256=info.tokenizer_sha256, end_of_text=info.end_of_text)
    identity = Identity.load_or_create(folder / "founder.key")
    records = [
        sign_record(identity, "domain", DomainRecord(run_id=spec.run_id, index=index, domain=domain))
        for index, domain in enumerate(info.domains)
    ]
    library = Library(folder / "library", spec, info.domains, nobody, corpus)
    library.set_tokenizer(corpus.tokenizer_json())
    members: dict[str, list[str]] = {}

    async def main() -> None:
        async with AsyncExitStack() as stack:
            for index, peer in enumerate(peers):
                opened = open_network(folder / f"{index}.key", host="127.0.0.1")
                network = await stack.enter_async_context(opened)
                tokenizer = library.tokenizer_id, len(library.tokenizer_json)
                await network.serve(Describe(spec, tokenizer, lambda: records, lambda: members, "test"))
                await network.serve(Shards(library.lookup, Traffic()), spec.run_id)
                await network.serve(State(peer), spec.run_id)
                await network.serve(Answers(peer), spec.run_id)
                members[network.peer_id] = await network.addresses()
            address = next(iter(members.values()))[0]
            await ask_swarm(address, spec.run_id, Question("root and stone", None, 9, 0.8, 50, 0))

    try:
        asyncio.run(main())
    finally:
        ids = list(members)
    return ids


BOTH = [state("branch.0", 70), state("branch.1", 80)]
ANSWER = (AnswerPart(text=" wo\x1b"), AnswerPart(text="rm"), AnswerPart(end="stop"))


def test_the_next_best_answers_when_the_best_declines(
    corpus: Corpus, smallest_run: Callable[..., RunSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy, free = Peer(BOTH, "it is busy"), Peer([state("branch.1", 60)], *ANSWER)
    ids = ask_peers([busy, free], corpus, smallest_run, tmp_path)
    output = capsys.readouterr()
    assert output.out == " wo·rm\n"
    assert output.err == f"branch.1 (down, 60 tokens), asked of {ids[1]}\n"


@pytest.mark.parametrize(
    ("peer", "says", "printed"),
    [
        (Peer([]), "none of the peers that can be reached has a sub-model yet", ""),
        (
            Peer(BOTH, "it is busy"),
            r"nobody answers: branch\.1 of \w+: it is busy; branch\.0 of \w+: it is busy; ask again later$",
            "",
        ),
        (Peer(BOTH, AnswerPart(text=" wo"), "it failed"), "the answer broke off: it failed", " wo\n"),
    ],
)
def test_no_answer_is_one_line(
    peer: Peer,
    says: str,
    printed: str,
    corpus: Corpus,
    smallest_run: Callable[..., RunSpec],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(NetworkError, match=says):
        ask_peers([peer], corpus, smallest_run, tmp_path)
    assert capsys.readouterr().out == printed


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    nobody_s = "/ip4/127.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N"
    assert main(["ask", nobody_s, "hello"]) == 1
    output = capsys.readouterr()
    assert output.err.startswith("shoal: cannot reach the swarm; ") and output.err.count("\n") == 1
