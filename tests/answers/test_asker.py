"""How the swarm answers its owner's prompts: in pieces, each by the sub-model that knows such text best."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.errors import NetworkError
from configs.run import RunSpec
from peer.answers.asker import PIECE_TOKENS, Asker, Wish
from peer.answers.speaker import Speaker
from peer.block.store import BlockStore
from peer.corpus.data import Corpus, open_corpus
from peer.http.history import Piece
from peer.member.library import Library
from peer.member.prompts import ANSWER_TOKENS, ASK_S, MAX_ANSWERS, Prompts, drawn, joined
from peer.prepare.engine import prepare_texts
from peer.prepare.plan import Plan
from peer.train.outer import new_state
from peer.train.partition import Strategy

SIZES = {"vocab_size": 300, "hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1}
TEXTS = {
    "up": ["sky cloud bird " * 30, "cloud bird sky " * 30],
    "down": ["root stone worm " * 30, "worm root " * 30],
}
MODEL = {**SIZES, "mlp_size": 24, "context_length": 32}


def nobody(peer: str) -> Any:
    raise NetworkError("no network here")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("asker") / "corpus"
    prepare_texts(TEXTS, out, Plan(vocab_size=300, context_length=16))
    return open_corpus(out)


@pytest.fixture
def world(corpus: Corpus, smallest_run: Callable[..., RunSpec], tmp_path: Path) -> Any:
    """A peer that holds both branches, with a real store, library and speaker."""
    info = corpus.info
    spec = smallest_run(
        model=MODEL,
        strategy={"kind": "branches"},
        inner={"learning_rate": 0.1, "batch_tokens": 32},
        tokenizer_sha256=info.tokenizer_sha256,
        end_of_text=info.end_of_text,
    )
    strategy = Strategy("branches", 2)
    store = BlockStore(tmp_path / "blocks", spec, strategy, nobody, nobody)
    generator = torch.Generator().manual_seed(0)
    for name in strategy.sub_models:
        phi = torch.empty(strategy.layout(name, spec.model).size).normal_(0.0, 0.3, generator=generator)
        asyncio.run(store.put(new_state(name, phi, None, version=3, round_=3, ages={"a": 9}, is_final=False)))
    library = Library(tmp_path / "library", spec, info.domains, nobody, corpus)
    library.set_tokenizer(corpus.tokenizer_json())
    facts: Any = SimpleNamespace(spec=spec, strategy=strategy, me="me")
    stored: dict[str, Mapping[str, int]] = {"me": store.ages()}
    outlook: Any = SimpleNamespace(stored=lambda: stored, others=list)
    speaker = Speaker(facts, store, library, lambda: "")
    asker = Asker(facts, library, speaker, outlook, nobody)
    return SimpleNamespace(asker=asker, library=library, stored=stored, folder=tmp_path)


async def told(asker: Asker, wish: Wish) -> list[Piece]:
    return [piece async for piece in asker.ask(wish)]


def test_who_knows_such_text_goes_on_and_is_named(world: Any) -> None:
    down = asyncio.run(told(world.asker, Wish("root and stone worm", 4, 0.0)))
    up = asyncio.run(told(world.asker, Wish("sky and cloud bird", 4, 0.0)))
    assert {piece.sub_model for piece in up} == {"branch.0" if order(world) == ["up", "down"] else "branch.1"}
    assert {piece.sub_model for piece in up} != {piece.sub_model for piece in down}
    assert "".join(piece.text for piece in down)


def order(world: Any) -> list[str]:
    return [domain.name for domain in world.library.domains]


def test_an_answer_longer_than_a_piece_goes_on_from_where_it_was(world: Any) -> None:
    wish = Wish("root and stone worm", 2 * PIECE_TOKENS, 0.0)
    text = "".join(piece.text for piece in asyncio.run(told(world.asker, wish)))
    first = "".join(piece.text for piece in asyncio.run(told(world.asker, Wish(wish.prompt, PIECE_TOKENS, 0.0))))
    assert text.startswith(first) and len(text) > len(first)


def test_who_does_not_answer_is_passed_over_and_nobody_is_said(world: Any) -> None:
    world.stored["far"] = dict.fromkeys(world.stored["me"], 99)  # newer, and not to be reached
    pieces = asyncio.run(told(world.asker, Wish("root", 3, 0.0)))
    assert pieces, "this peer answers in its place"
    del world.stored["me"]
    with pytest.raises(NetworkError, match=r"nobody answers: branch\.\d of far: no network here"):
        asyncio.run(told(world.asker, Wish("root", 3, 0.0)))
    world.stored.clear()
    with pytest.raises(NetworkError, match="nobody has a sub-model yet; ask again later"):
        asyncio.run(told(world.asker, Wish("root", 3, 0.0)))


def test_the_fixed_prompts_are_the_owners_or_beginnings_of_held_out_text(world: Any) -> None:
    own = Prompts(world.folder, ("a sky",), world.library, world.asker.ask)
    assert own.is_due(100.0)
    asyncio.run(own.ask(100.0, 7, 500))
    assert not own.is_due(100.0 + ASK_S - 1) and own.is_due(100.0 + ASK_S)
    (prompt,) = own.history.prompts
    assert prompt.prompt == "a sky" and not prompt.domain
    assert (prompt.answers[0].tick, prompt.answers[0].age) == (7, 500) and prompt.answers[0].pieces
    found = drawn(world.library)
    assert [domain for _, domain in found] == order(world)
    assert all(any(text in source for source in TEXTS[domain]) for text, domain in found)
    asyncio.run(own.ask(200.0, 8, 600))
    own.save()
    again = Prompts(world.folder, ("a sky",), world.library, world.asker.ask)
    assert len(again.history.prompts[0].answers) == 2
    changed = Prompts(world.folder, (), world.library, world.asker.ask)
    asyncio.run(changed.ask(300.0, 9, 700))
    assert [each.prompt for each in changed.history.prompts] == [text for text, _ in found]


def test_a_run_of_no_language_model_is_asked_nothing(world: Any) -> None:
    module = SimpleNamespace(spec=SimpleNamespace(model=SimpleNamespace(module="a module of somebody's own")))
    prompts: Any = Prompts(world.folder, (), module, world.asker.ask)  # type: ignore[arg-type]  # all that is asked of it
    asyncio.run(prompts.ask(100.0, 7, 500))
    assert not prompts.history.prompts and not prompts.is_due(101.0)


def test_answers_are_thinned_and_a_prompt_that_nobody_answers_costs_nothing(world: Any) -> None:
    async def mute(wish: Wish) -> Any:
        assert wish.max_tokens == ANSWER_TOKENS and wish.temperature == 0.0
        raise NetworkError("nobody answers; ask again later")
        yield

    async def speak(wish: Wish) -> Any:
        yield Piece(text="a", sub_model="x")
        yield Piece(text="b", sub_model="x")

    prompts = Prompts(world.folder, ("p",), world.library, mute)
    asyncio.run(prompts.ask(0.0, 0, 0))
    assert prompts.history.prompts[0].answers == []
    prompts = Prompts(world.folder, ("p",), world.library, speak)
    for tick in range(MAX_ANSWERS + 1):
        asyncio.run(prompts.ask(float(tick), tick, tick))
    answers = prompts.history.prompts[0].answers
    assert len(answers) <= MAX_ANSWERS and (answers[0].tick, answers[-1].tick) == (0, MAX_ANSWERS)
    assert answers[0].pieces == [Piece(text="ab", sub_model="x")]


def test_what_one_sub_model_writes_in_a_row_is_one_piece() -> None:
    one, two = Piece(text="a", sub_model="x"), Piece(text="b", sub_model="y")
    assert joined(joined([], one), one) == [Piece(text="aa", sub_model="x")]
    assert joined([one], two) == [one, two]
