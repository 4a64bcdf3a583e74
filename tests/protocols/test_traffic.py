"""A peer's caps: what goes through over a while is the rate, whoever asks."""

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

import pytest
from loop import FakeTime

from protocols.traffic import BURST_S, IDLE_S, UP_SHARE, Pace, Traffic


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine by a clock that no machine is too slow for."""
    with asyncio.Runner(loop_factory=FakeTime) as runner:
        runner.run(main)


def traffic_of(up_mbit: float | None = None) -> Traffic:
    """Traffic by the clock of the event loop."""
    return Traffic(up_mbit, now=asyncio.get_running_loop().time)


def test_without_a_cap_nothing_waits() -> None:
    assert Pace(None).book(10**12) == 0.0


@pytest.mark.parametrize("size", [1, 1000, 262_144])
def test_over_a_while_the_rate_is_the_cap(size: int) -> None:
    now = 100.0
    pace = Pace(mbit=8.0, now=lambda: now)  # a million bytes a second
    sent, began = 0, now
    while sent < 3_000_000:
        now += pace.book(size)
        sent += size
    assert now - began == pytest.approx((sent - size) / 1e6, abs=2 * BURST_S)


def test_an_idle_time_is_not_saved_up() -> None:
    now = 0.0
    pace = Pace(mbit=8.0, now=lambda: now)
    pace.book(1_000_000)
    now = 1000.0
    pace.book(1_000_000)
    assert pace.book(1) == pytest.approx(1.0 - BURST_S)


def test_those_who_share_a_cap_are_counted_together() -> None:
    async def main() -> None:
        traffic = traffic_of(8.0 / UP_SHARE)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(traffic.sent(50_000, "offers") for _ in range(6)), traffic.received(10**9, "states"))
        assert asyncio.get_running_loop().time() - began >= 0.2
        assert (traffic.bytes_out, traffic.bytes_in) == (300_000, 10**9)

    run(main())


def test_streams_divide_the_uplink_evenly_and_one_that_ends_leaves_its_part() -> None:
    async def main() -> None:
        traffic = traffic_of(8.0 / UP_SHARE)  # a million bytes a second
        sent = [0, 0]

        async def send(index: int, until: float) -> None:
            with traffic.lane(str(index), "offers") as lane:
                while asyncio.get_running_loop().time() < until:
                    await lane.sent(10_000)
                    sent[index] += 10_000

        began = asyncio.get_running_loop().time()
        await asyncio.gather(send(0, began + 0.2), send(1, began + 0.4))
        assert sent[0] == pytest.approx(100_000, abs=30_000)
        assert sent[1] == pytest.approx(300_000, abs=50_000)
        assert traffic.bytes_out == sum(sent)

    run(main())


def test_a_stream_gets_no_more_than_its_part_when_the_others_are_slower() -> None:
    async def main() -> None:
        traffic = traffic_of(8.0 / UP_SHARE)
        began = asyncio.get_running_loop().time()
        with traffic.lane("x", "offers") as other, traffic.lane("y", "offers") as lane:
            for _ in range(11):
                await other.sent(1)
                await lane.sent(10_000)
        assert asyncio.get_running_loop().time() - began >= 0.17

    run(main())


def test_without_a_cap_no_stream_waits() -> None:
    async def main() -> None:
        traffic = traffic_of()
        with traffic.lane("x", "offers") as lane, traffic.lane("y", "offers"):
            await lane.sent(10**12)
            assert asyncio.get_running_loop().time() == 0.0
            assert traffic.bytes_per_s_of(lane) is None

    run(main())


@pytest.mark.parametrize(("peers", "share"), [(["x"] * 100, 1 / 2), ([f"x{n}" for n in range(3)], 1 / 4)])
def test_the_uplink_is_divided_among_peers_however_many_streams_they_open(peers: list[str], share: float) -> None:
    async def main() -> None:
        traffic = traffic_of(8.0 / UP_SHARE)
        until = asyncio.get_running_loop().time() + 5.0
        sent: dict[str, int] = {}

        async def send(peer: str) -> None:
            with traffic.lane(peer, "offers") as lane:
                while asyncio.get_running_loop().time() < until:
                    await lane.sent(10_000)
                    sent[peer] = sent.get(peer, 0) + 10_000

        await asyncio.gather(*map(send, [*peers, "me"]))
        assert sent["me"] / traffic.bytes_out == pytest.approx(share, abs=0.1)

    run(main())


def test_streams_that_take_nothing_have_no_part() -> None:
    async def main() -> None:
        traffic = traffic_of(8.0 / UP_SHARE)
        with ExitStack() as stack:
            for index in range(100):
                await stack.enter_context(traffic.lane(f"idle {index}", "offers")).sent(1)
            lane = stack.enter_context(traffic.lane("me", "offers"))
            await asyncio.sleep(IDLE_S - 0.2)
            assert traffic.bytes_per_s_of(lane) == pytest.approx(1e6 / 101)
            await asyncio.sleep(0.3)
            assert traffic.bytes_per_s_of(lane) == pytest.approx(1e6)

    run(main())


def test_bytes_are_counted_by_what_they_go_for() -> None:
    async def count() -> Traffic:
        traffic = Traffic()
        await traffic.receiver("text")(5)
        await traffic.received(7, "offers")
        with traffic.lane("peer", "help") as lane:
            await lane.sent(3)
            await lane.sent(4)
        return traffic

    traffic = asyncio.run(count())
    assert traffic.causes_in == {"text": 5, "offers": 7} and traffic.bytes_in == 12
    assert traffic.causes_out == {"help": 7} and traffic.bytes_out == 7


def test_a_new_cap_counts_at_once_also_for_who_waits_by_the_old_one() -> None:
    """Megabytes that would take hours go in a second, up and down; in lanes and out of them."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        traffic = Traffic(0.001, 0.001, loop.time)
        with traffic.lane("a", "offers") as lane:
            await lane.sent(100), await traffic.received(100, "text")
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(lane.sent(10_000))
                    group.create_task(traffic.sent(10_000, "offers", "b"))
                    group.create_task(traffic.received(10_000, "text"))
                await asyncio.sleep(1.0)
                began = loop.time()
                traffic.change(8.0, 8.0)
            assert loop.time() - began < 1.0
            began = loop.time()
            for _ in range(10):
                await traffic.received(100_000, "text")
            assert loop.time() - began == pytest.approx(0.9, abs=0.05), "and the new one is kept"
            began = loop.time()
            traffic.change(None, None)
            await lane.sent(10**9)
            await traffic.received(10**9, "text")
            assert loop.time() == began, "without a cap nobody waits"

    run(main())
