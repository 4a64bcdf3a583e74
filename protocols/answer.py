"""A question to a peer's sub-model: the prompt travels as tokens, the answer as pieces of text, as they are written."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal, Protocol

from hivemind.p2p import P2PContext
from hivemind.p2p.servicer import ServicerBase
from pydantic import Field

from configs.errors import NetworkError, PeerError, ShoalError
from configs.names import BlockName
from protocols.wire import FRAME_S, Frame, Frames, Message, call, each_frame, end_of_stream, printable

log = logging.getLogger(__name__)

MAX_PROMPT_TOKENS = 4096
MAX_ANSWER_TOKENS = 512
MAX_PART_CHARS = 4096
ANSWER_S = 60.0  # for a whole answer, the reading of the prompt included

Token = Annotated[int, Field(ge=0, lt=2**31)]


class AnswerRequest(Message):
    """«How does this sub-model go on from these tokens?»"""

    sub_model: BlockName
    prompt: Annotated[list[Token], Field(min_length=1, max_length=MAX_PROMPT_TOKENS)]
    max_tokens: Annotated[int, Field(ge=1, le=MAX_ANSWER_TOKENS)]
    temperature: Annotated[float, Field(ge=0, le=10)]
    top_k: Annotated[int, Field(ge=0, lt=2**31)]
    seed: Annotated[int, Field(ge=0, lt=2**63)]


class AnswerPart(Message):
    """«This comes next.» The last part says why; when it is the first and `refused`, its text is the reason."""

    text: Annotated[str, Field(max_length=MAX_PART_CHARS)] = ""
    end: Literal["", "stop", "length", "time", "refused"] = ""


class Teller(Protocol):
    """What answers for this peer."""

    def answer(self, request: AnswerRequest) -> AsyncGenerator[AnswerPart, None]:
        """Yield the parts of an answer, the last with its end. Raises ShoalError to decline."""


class Answers(ServicerBase):  # type: ignore[misc]
    """Lets the teller answer whoever asks, for at most `answer_s` seconds each time."""

    def __init__(self, teller: Teller, answer_s: float = ANSWER_S) -> None:
        self._teller = teller
        self._answer_s = answer_s

    async def rpc_answer(self, request: AnswerRequest, context: P2PContext) -> Frames:
        """Answer in parts as they are written; with one part when it is declined."""
        async with aclosing(self._parts(request)) as parts:
            async for part in parts:
                yield Frame(part.SerializeToString())
        async for frame in end_of_stream():  # the teller is free again
            yield frame

    async def _parts(self, request: AnswerRequest) -> AsyncGenerator[AnswerPart, None]:
        deadline = asyncio.get_running_loop().time() + self._answer_s
        try:
            async with aclosing(self._teller.answer(request)) as parts:
                while True:
                    async with asyncio.timeout_at(deadline):
                        part = await anext(parts, None)
                    if part is None:
                        return
                    yield part
        except TimeoutError:
            yield AnswerPart(end="time")
        except ShoalError as error:
            yield AnswerPart(text=str(error)[:MAX_PART_CHARS], end="refused")
        except Exception:
            log.exception("a question could not be answered")
            yield AnswerPart(text="it failed; see its log", end="refused")


async def ask_answer(
    stub: Any, request: AnswerRequest, *, first_s: float = ANSWER_S, part_s: float = FRAME_S
) -> AsyncGenerator[AnswerPart, None]:
    """Ask a peer; yield the parts of its answer, the last with its end. Close it where it may be left early.

    `first_s`, `part_s`: to wait for the first part and for each other one. Raises NetworkError (no answer, or the
    reason why it was declined), PeerError (nonsense, or more than was asked for).
    """
    limit_s, left = first_s, request.max_tokens + 2  # the rest of a character, and the end
    stream = await call(stub.rpc_answer, request, first_s)
    async with aclosing(each_frame(stream, first_s)) as frames:  # type: ignore[type-var]
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    frame = await anext(frames, None)
            except TimeoutError:
                raise NetworkError(f"no answer within {limit_s:g} s") from None
            if frame is None or not left:
                raise PeerError("the answer has no end")
            part = AnswerPart.FromString(bytes(frame.data))
            if part.end == "refused":
                raise NetworkError(printable(part.text))
            limit_s, left = part_s, left - 1
            yield part
            if part.end:
                return
