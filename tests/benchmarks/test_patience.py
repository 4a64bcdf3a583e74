import asyncio
import itertools

import pytest

from benchmarks.patience import Hung, patience, until, until_async

pytestmark = pytest.mark.bench


def test_a_wait_ends_with_what_it_waited_for() -> None:
    numbers, more = itertools.count(), itertools.count()

    async def look() -> int:
        return next(more)

    assert until(lambda: next(numbers), lambda number: number == 2, "two") == 2
    assert asyncio.run(until_async(look, lambda number: number == 2, "two")) == 2


def test_a_wait_in_vain_says_for_what_and_what_was_seen_last() -> None:
    async def look() -> int:
        return 7

    said = r"^waited 0 s in vain for a fish; seen last: 7 birds$"
    with pytest.raises(Hung, match=said):
        until(lambda: 7, lambda _: False, "a fish", seen=lambda number: f"{number} birds", most_s=0.0)
    with pytest.raises(Hung, match=said):
        asyncio.run(until_async(look, lambda _: False, "a fish", seen=lambda number: f"{number} birds", most_s=0.0))


def test_a_look_that_hangs_ends_too_and_other_time_outs_stay_what_they_are() -> None:
    async def look() -> int:
        await asyncio.Event().wait()
        return 7

    async def fail() -> None:
        async with patience("a fish"):
            raise TimeoutError("of its own")

    with pytest.raises(Hung, match="in vain for a fish; seen last: nothing"):
        asyncio.run(until_async(look, lambda _: True, "a fish", most_s=0.01))
    with pytest.raises(TimeoutError, match="of its own"):
        asyncio.run(fail())
