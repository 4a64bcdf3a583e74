"""A server in a thread, and OpenAI's own client of it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai

from benchmarks.patience import HANG_S
from peer.answers.chat import ChatTemplate
from peer.answers.endpoint import Endpoint, refuse
from peer.answers.serve import application
from peer.fused.routed import RoutedModel
from peer.http.server import Place, bind, open_server

PLACE = Place("the endpoint", "127.0.0.1", 0, "--host", "--port", "name it as --host")
PROMPT = "A shoal of fish"


@contextmanager
def server(model: RoutedModel, *, is_task: bool = False, template: ChatTemplate | None = None) -> Iterator[str]:
    """Serve in a thread; yield the URL."""
    ready = threading.Event()
    told: dict[str, Any] = {}

    async def live() -> None:
        told["end"], told["loop"] = asyncio.Event(), asyncio.get_running_loop()
        endpoint = Endpoint(model, "fused", is_task, template)
        async with open_server(application(endpoint), PLACE, bind(PLACE), refuse=refuse) as url:
            told["url"] = url
            ready.set()
            await told["end"].wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    assert ready.wait(HANG_S)
    try:
        yield told["url"]
    finally:
        told["loop"].call_soon_threadsafe(told["end"].set)
        thread.join()


@contextmanager
def client_of(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=HANG_S) as client:
        yield client
