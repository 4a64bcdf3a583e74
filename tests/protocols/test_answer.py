"""Answers arrive part by part over real hosts; whoever declines, is silent or talks nonsense is one line."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgpack
import pytest
import uvloop
from hivemind.p2p import P2P, P2PContext

from benchmarks.patience import patience
from configs.errors import NetworkError, PeerError
from protocols.answer import MAX_PROMPT_TOKENS, AnswerPart, AnswerRequest, Answers, ask_answer
from protocols.wire import Frame, Frames, end_of_stream

ANSWER_S = 3.0  # in which all is said that is there to be said


def question(**changes: Any) -> AnswerRequest:
    asked = {"sub_model": "expert.0", "prompt": [1, 2], "max_tokens": 3, "temperature": 0.8, "top_k": 50, "seed": 0}
    return AnswerRequest(**{**asked, **changes})


class Echo:
    """Says the prompt's tokens, and waits for `gate` before the last part."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.has_closed = asyncio.Event()
        self.reason = ""

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerPart, None]:
        if self.reason:
            raise NetworkError(self.reason)
        try:
            for token in request.prompt:
                yield AnswerPart(text=f"{token} ")
            await self.gate.wait()
            yield AnswerPart(end="stop")
        finally:
            self.has_closed.set()


class Raw:
    """Answers with given frames."""

    frames: list[bytes]

    async def rpc_answer(self, request: AnswerRequest, context: P2PContext) -> Frames:
        for frame in self.frames:
            yield Frame(frame)
        async for frame_ in end_of_stream():
            yield frame_


async def heard(client: P2P, server: P2P, request: AnswerRequest, **options: Any) -> list[AnswerPart]:
    async with aclosing(ask_answer(Answers.get_stub(client, server.peer_id), request, **options)) as parts:
        return [part async for part in parts]


def test_an_answer_comes_part_by_part(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            echo = Echo()
            await Answers(echo).add_p2p_handlers(server)
            async with aclosing(ask_answer(Answers.get_stub(client, server.peer_id), question())) as parts:
                assert [(await anext(parts)).text, (await anext(parts)).text] == ["1 ", "2 "]
                echo.gate.set()  # only now is there more
                assert (await anext(parts)).end == "stop"
                assert await anext(parts, None) is None
            long = question(prompt=list(range(MAX_PROMPT_TOKENS)), max_tokens=512)
            with pytest.raises(PeerError, match="no end"):  # more than was asked for
                await heard(client, server, long)

    uvloop.run(main())


def test_one_who_leaves_early_frees_the_teller(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            echo = Echo()
            await Answers(echo).add_p2p_handlers(server)
            async with aclosing(ask_answer(Answers.get_stub(client, server.peer_id), question())) as parts:
                await anext(parts)
            async with patience("the teller to end"):
                await echo.has_closed.wait()

    uvloop.run(main())


def test_declined_cut_and_silent(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            echo = Echo()
            await Answers(echo, answer_s=ANSWER_S).add_p2p_handlers(server)
            assert [part.end for part in await heard(client, server, question())] == ["", "", "time"]
            echo.reason = "it is\n paused"
            with pytest.raises(NetworkError, match=r"^it is\\n paused$"):
                await heard(client, server, question())

        async with open_peers(2) as (server, client):
            await Answers(Echo()).add_p2p_handlers(server)
            with pytest.raises(NetworkError, match=r"no answer within 0\.3|no answer"):
                await heard(client, server, question(), part_s=0.3)
            with pytest.raises(NetworkError, match="no answer"):  # it does not serve this
                await heard(server, client, question())

    uvloop.run(main())


HOSTILE: list[list[bytes]] = [
    [],
    [b"x"],
    [msgpack.packb({"protocol": 1, "text": "a"})],  # no end
    [msgpack.packb({"protocol": 1, "text": "a" * 5000})],
    [msgpack.packb({"protocol": 1, "text": b"a"})],
    [msgpack.packb({"protocol": 1, "end": "later"})],
    [msgpack.packb({"protocol": 1, "more": 1})],
    [msgpack.packb({"protocol": 1, "text": "a"})] * 9,
]


def test_hostile_answers_are_peer_errors(open_peers: Any) -> None:
    async def main() -> None:
        async with open_peers(2) as (server, client):
            raw = Raw()
            await Answers(Echo()).add_p2p_handlers(server, wrapper=raw)
            for raw.frames in HOSTILE:
                with pytest.raises(PeerError):
                    await heard(client, server, question())

    uvloop.run(main())


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": []},
        {"prompt": [0] * (MAX_PROMPT_TOKENS + 1)},
        {"prompt": [-1]},
        {"prompt": ["a"]},
        {"max_tokens": 513},
        {"temperature": -0.1},
        {"sub_model": "../x"},
        {"seed": 2**63},
        {"extra": 1},
    ],
)
def test_hostile_questions_are_refused(fields: dict[str, Any]) -> None:
    data = msgpack.packb({**question().model_dump(), **fields})
    with pytest.raises(PeerError):
        AnswerRequest.FromString(data)
