"""What a peer answers beside its training, and when it declines."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fused_example import BRANCHES, tokenizer_json
from tokenizers import Tokenizer

from configs.errors import DataError, NetworkError, ShoalError, UsageError
from configs.run import RunSpec
from peer.answers.speaker import SAVED_S, SHARE, Leisure, Speaker
from peer.block.store import BlockStore
from peer.fused.generate import Generation
from peer.fused.parts import build_one
from peer.fused.routed import RoutedModel, SubModelInfo
from peer.fused.sampling import Sampling
from peer.train.outer import new_state
from peer.train.partition import Strategy
from protocols.answer import AnswerPart, AnswerRequest

PROMPT = [40, 41, 42]


def nobody(peer: str) -> Any:
    raise NetworkError("no network here")


@pytest.fixture
def daemon(tmp_path: Path, smallest_run: Callable[..., RunSpec]) -> Any:
    """What a speaker is given: a real store with one of two branches, in it for others."""
    spec, strategy = smallest_run(**BRANCHES), Strategy("branches", 2)
    store = BlockStore(tmp_path / "blocks", spec, strategy, nobody, nobody)
    generator = torch.Generator().manual_seed(0)
    phi = torch.empty(strategy.layout("branch.1", spec.model).size).normal_(0.0, 0.3, generator=generator)
    asyncio.run(store.put(new_state("branch.1", phi, None, version=3, round_=3, ages={}, is_final=False)))
    return SimpleNamespace(
        spec=spec,
        strategy=strategy,
        store=store,
        declined="",
        library=SimpleNamespace(frozen=lambda: None, domain_name=lambda index: "up", tokenizer_json=tokenizer_json()),
    )


def question(**changes: Any) -> AnswerRequest:
    asked = {"sub_model": "branch.1", "prompt": PROMPT, "max_tokens": 9, "temperature": 0.8, "top_k": 50, "seed": 3}
    return AnswerRequest(**{**asked, **changes})


def speaker_of(daemon: Any) -> Speaker:
    return Speaker(daemon, daemon.store, daemon.library, lambda: str(daemon.declined))


async def told(speaker: Speaker, request: AnswerRequest) -> list[AnswerPart]:
    return [part async for part in speaker.answer(request)]


def test_a_peer_answers_with_what_it_stores(daemon: Any) -> None:
    parts = asyncio.run(told(speaker_of(daemon), question()))
    phi = daemon.store.load("branch.1").phi
    llama = build_one(daemon.spec, daemon.strategy, {"branch.1": phi}, "branch.1")
    tokenizer = Tokenizer.from_str(tokenizer_json().decode())
    model = RoutedModel.single(SubModelInfo(name="branch.1", domain="down"), llama, 0, tokenizer)
    expected = Generation(model, PROMPT, Sampling(max_tokens=9, temperature=0.8, top_k=50, seed=3))
    assert "".join(part.text for part in parts) == "".join(expected)
    assert [part.end for part in parts if part.end] == ["stop" if expected.has_ended else "length"]


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"sub_model": "branch.0"}, NetworkError, r"it does not have branch\.0"),
        ({"sub_model": "expert.9"}, UsageError, r"no sub-model 'expert\.9'"),
        ({"prompt": [300]}, DataError, "not the model's own"),
    ],
)
def test_what_a_peer_cannot_answer_it_declines(
    changes: dict[str, Any], error: type[ShoalError], says: str, daemon: Any
) -> None:
    with pytest.raises(error, match=says):
        asyncio.run(told(speaker_of(daemon), question(**changes)))


def test_a_peer_declines_when_paused_busy_or_short_of_memory(daemon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = speaker_of(daemon)

    async def main() -> None:
        first = speaker.answer(question(max_tokens=512, temperature=0))
        await anext(first)
        with pytest.raises(ShoalError, match="it is busy"):
            await told(speaker, question())
        await first.aclose()
        assert await told(speaker, question()), "it is free again"
        daemon.declined = "it is paused"
        with pytest.raises(NetworkError, match="it is paused"):
            await told(speaker, question())
        daemon.declined = ""
        monkeypatch.setattr("peer.answers.speaker.can_answer", lambda spec: False)
        with pytest.raises(NetworkError, match="too little free memory"):
            await told(speaker, question())

    asyncio.run(main())


def test_answers_take_a_share_of_the_time_and_who_asks_now_and_then_never_waits() -> None:
    now = 1000.0
    leisure = Leisure(lambda: now)

    def answer(seconds: float) -> None:
        nonlocal now
        with leisure.spend():
            now += seconds

    answer(SAVED_S - 1)
    assert leisure.waits_s() == 0.0
    answer(10.0)
    assert leisure.waits_s() == pytest.approx((10.0 - 1.0) / SHARE - 10.0)  # what came in meanwhile counts
    now += leisure.waits_s() + 0.01
    assert leisure.waits_s() == 0.0
    now += 10 * SAVED_S / SHARE
    answer(SAVED_S - 1)  # what was saved up has a limit
    assert leisure.waits_s() == 0.0
    answer(3.0)
    assert leisure.waits_s() > 0.0


@pytest.mark.parametrize("trains", [True, False])
def test_a_peer_that_trains_declines_after_many_answers(daemon: Any, trains: bool) -> None:
    speaker = Speaker(daemon, daemon.store, daemon.library, lambda: "", lambda: trains)
    speaker._leisure._saved_s = 0.0
    asyncio.run(told(speaker, question()))
    if not trains:
        assert asyncio.run(told(speaker, question()))
        return
    with pytest.raises(NetworkError, match=r"answered much lately, and trains; ask another peer, or again in \d+ s"):
        asyncio.run(told(speaker, question()))
