"""One prompt after the other, and none that holds up the others for ever."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from peer.answers.writer import BusyError, ClosedError, Writer


def pieces(count: int) -> Any:
    def write() -> Iterator[str]:
        for n in range(count):
            yield str(n)

    return write()


async def read(writer: Writer, begin: Any) -> str:
    async with writer.write(begin) as answer:
        return "".join([piece async for piece in answer])


def test_answers_come_in_the_order_in_which_they_were_asked_for() -> None:
    async def main() -> list[str]:
        writer = Writer(max_waiting=2)
        return await asyncio.gather(*(read(writer, lambda count=count: pieces(count)) for count in (3, 1, 2)))

    assert asyncio.run(main()) == ["012", "0", "01"]


def test_one_more_than_may_wait_is_refused_at_once() -> None:
    async def main() -> None:
        writer = Writer(max_waiting=0)
        async with writer.write(lambda: pieces(9)):
            assert writer.is_busy
            with pytest.raises(BusyError):
                await read(writer, lambda: pieces(1))
        assert await read(writer, lambda: pieces(1)) == "0", "it is free again"

    asyncio.run(main())


def test_what_is_wrong_with_a_prompt_is_its_own_affair() -> None:
    def begin() -> Any:
        raise ValueError("no such token")

    async def main() -> None:
        writer = Writer(max_waiting=0)
        with pytest.raises(ValueError, match="no such token"):
            await read(writer, begin)
        assert await read(writer, lambda: pieces(2)) == "01"
        writer.close()
        with pytest.raises(ClosedError):
            await read(writer, lambda: pieces(2))

    asyncio.run(main())


def test_some_are_written_at_once_and_a_close_cuts_them_all() -> None:
    async def main() -> None:
        writer = Writer(max_waiting=1, at_once=2)
        async with writer.write(lambda: pieces(9)) as first, writer.write(lambda: pieces(1)) as second:
            assert [await anext(second), await anext(first)] == ["0", "0"] and not writer.is_busy
            waiting = asyncio.create_task(read(writer, lambda: pieces(1)))
            await asyncio.sleep(0)
            assert writer.is_busy
            with pytest.raises(BusyError):
                await read(writer, lambda: pieces(1))
            writer.close()
        with pytest.raises(ClosedError):
            await waiting

    asyncio.run(main())
