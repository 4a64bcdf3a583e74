"""A question to the swarm over HTTP: its prompt is checked, its answer passed on, a line of JSON for each piece."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from configs.errors import ShoalError
from peer.http.history import Piece
from peer.http.server import refuse

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 << 10
MAX_ASKED = 4  # questions at once: each is work for the swarm
READ_S = 10.0  # for a question to arrive
ANSWER_S = 300.0  # for the whole answer
EXAMPLE = '{"prompt": "Once", "max_tokens": 128, "temperature": 0.7}'


class Prompt(BaseModel):
    """What is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1, max_length=16_000)
    max_tokens: int = Field(default=128, ge=1, le=2048)
    temperature: float = Field(default=0.7, ge=0.0, le=2.0)  # 0: always the likeliest token


Ask = Callable[[Prompt], AsyncGenerator[Piece, None]]


class Playground:
    """Passes questions on, a few at once."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._asked = 0

    async def answer(self, request: Request) -> Response:
        """Answer a question with a line for each piece, and a last one: `{"end": …}` or `{"error": …}`."""
        try:
            async with asyncio.timeout(READ_S):
                prompt = Prompt.model_validate_json(await _body(request))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            return refuse(
                400, f'{where}: {first["msg"]}; send {{"prompt": "…", "max_tokens": 128, "temperature": 0.7}}'
            )
        except ValueError:
            return refuse(413, f"a question may have {MAX_BODY_BYTES >> 10} KiB; shorten it")
        except (TimeoutError, ClientDisconnect):
            return refuse(408, f"the question did not arrive within {READ_S:.0f} s; ask again")
        if self._asked >= MAX_ASKED:
            return refuse(429, f"{MAX_ASKED} questions are being answered already; ask again when one is done")
        return StreamingResponse(self._lines(prompt), media_type="application/x-ndjson")

    async def _lines(self, prompt: Prompt) -> AsyncIterator[str]:
        if self._asked >= MAX_ASKED:  # another came between the check and the first line
            yield _line({"error": "too many questions at once; ask again"})
            return
        self._asked += 1
        try:
            async with asyncio.timeout(ANSWER_S), contextlib.aclosing(self._ask(prompt)) as pieces:
                async for piece in pieces:
                    yield f"{piece.model_dump_json()}\n"
            yield _line({"end": "complete"})
        except TimeoutError:
            yield _line({"error": f"the swarm did not finish within {ANSWER_S:.0f} s; ask for fewer tokens"})
        except ShoalError as error:
            yield _line({"error": str(error)})
        except Exception:
            log.exception("a question could not be answered")
            yield _line({"error": "this failed; the daemon's log says why"})
        finally:
            self._asked -= 1


async def _body(request: Request) -> bytes:
    """Read the request's body. Raises ValueError: it is longer than a question may be."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise ValueError
    return body


def _line(what: dict[str, str]) -> str:
    return json.dumps(what) + "\n"
