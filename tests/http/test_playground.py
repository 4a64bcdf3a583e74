import asyncio
import json
from collections.abc import AsyncGenerator

import httpx
import pytest
from page_server import with_page

from benchmarks.page_swarm import PageSwarm
from configs.errors import NetworkError
from peer.http.history import Piece
from peer.http.playground import MAX_ASKED, MAX_BODY_BYTES, Prompt


def lines(answer: httpx.Response) -> list[dict[str, str]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_an_answer_comes_piece_by_piece_and_says_when_it_is_whole() -> None:
    async def ask(prompt: Prompt) -> AsyncGenerator[Piece, None]:
        assert prompt == Prompt(prompt="def", max_tokens=7, temperature=0.5)
        yield Piece(text=" read(", sub_model="expert.0")
        yield Piece(text="path\n", sub_model="expert.1")

    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        answer = await client.post("/ask", json={"prompt": "def", "max_tokens": 7, "temperature": 0.5})
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        assert lines(answer) == [
            {"text": " read(", "sub_model": "expert.0"},
            {"text": "path\n", "sub_model": "expert.1"},
            {"end": "complete"},
        ]

    with_page(check, ask=ask)


def test_what_goes_wrong_is_the_last_line() -> None:
    async def ask(prompt: Prompt) -> AsyncGenerator[Piece, None]:
        yield Piece(text="a", sub_model="expert.0")
        if prompt.prompt == "net":
            raise NetworkError("no peer of expert.1 answers; ask again")
        raise RuntimeError("secret")

    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        told = lines(await client.post("/ask", json={"prompt": "net"}))
        assert told[-1] == {"error": "no peer of expert.1 answers; ask again"}
        told = lines(await client.post("/ask", json={"prompt": "bug"}))
        assert told[-1] == {"error": "this failed; the daemon's log says why"}

    with_page(check, ask=ask)


@pytest.mark.parametrize(
    ("body", "code", "reason"),
    [
        (json.dumps({"prompt": "a" * 16_000}), 200, ""),
        (json.dumps({"prompt": "a" * 16_001}), 400, "prompt: "),
        (json.dumps({"prompt": ""}), 400, "prompt: "),
        (json.dumps({"prompt": "a", "max_tokens": 2048}), 200, ""),
        (json.dumps({"prompt": "a", "max_tokens": 2049}), 400, "max_tokens: "),
        (json.dumps({"prompt": "a", "max_tokens": 0}), 400, "max_tokens: "),
        (json.dumps({"prompt": "a", "temperature": 2.0}), 200, ""),
        (json.dumps({"prompt": "a", "temperature": 2.01}), 400, "temperature: "),
        (json.dumps({"prompt": "a", "model": "b"}), 400, "model: "),
        ("{}", 400, "prompt: "),
        ("", 400, "the body: "),
        (" " * MAX_BODY_BYTES, 400, "the body: "),
        (" " * (MAX_BODY_BYTES + 1), 413, "shorten it"),
    ],
)
def test_a_question_is_checked_at_the_door(body: str, code: int, reason: str) -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        answer = await client.post("/ask", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == code
        if code != 200:
            assert reason in answer.json()["error"]

    with_page(check)


def test_another_site_cannot_ask() -> None:
    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        assert (await client.post("/ask", content=b'{"prompt": "a"}')).status_code == 403
        headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}
        assert (await client.post("/ask", content=b'{"prompt": "a"}', headers=headers)).status_code == 403

    with_page(check)


@pytest.mark.parametrize(("others", "code"), [(MAX_ASKED - 1, 200), (MAX_ASKED, 429)])
def test_so_many_questions_at_once_and_no_more(others: int, code: int) -> None:
    waiting, goes_on = asyncio.Semaphore(0), asyncio.Event()

    async def ask(prompt: Prompt) -> AsyncGenerator[Piece, None]:
        if prompt.prompt == "wait":
            waiting.release()
            await goes_on.wait()
        yield Piece(text="a", sub_model="expert.0")

    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(client.post("/ask", json={"prompt": "wait"})) for _ in range(others)]
            for _ in asked:
                await waiting.acquire()
            answer = await client.post("/ask", json={"prompt": "go"})
            goes_on.set()
        assert answer.status_code == code
        assert all(lines(task.result())[-1] == {"end": "complete"} for task in asked)

    with_page(check, ask=ask)


def test_who_goes_ends_his_answer() -> None:
    ended: list[bool] = []

    async def ask(prompt: Prompt) -> AsyncGenerator[Piece, None]:
        try:
            for _ in range(10_000_000):
                yield Piece(text="a" * 1000, sub_model="expert.0")
                await asyncio.sleep(0)
        finally:
            ended.append(True)

    async def check(client: httpx.AsyncClient, swarm: PageSwarm) -> None:
        async with client.stream("POST", "/ask", json={"prompt": "a"}) as answer:
            await anext(answer.aiter_lines())
        while not ended:  # the server hears of it in its own time
            await asyncio.sleep(0.01)

    with_page(check, ask=ask)
