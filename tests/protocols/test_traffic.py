"""A peer's caps: what goes through over a while is the rate, whoever asks."""

import asyncio

import pytest

from protocols.traffic import BURST_S, UP_SHARE, Pace, Traffic


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
        traffic = Traffic(up_mbit=8.0 / UP_SHARE)
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(traffic.sent(50_000) for _ in range(6)), traffic.received(10**9))
        assert asyncio.get_running_loop().time() - began >= 0.2
        assert (traffic.bytes_out, traffic.bytes_in) == (300_000, 10**9)

    asyncio.run(main())


def test_streams_divide_the_uplink_evenly_and_one_that_ends_leaves_its_part() -> None:
    async def main() -> None:
        traffic = Traffic(up_mbit=8.0 / UP_SHARE)  # a million bytes a second
        sent = [0, 0]

        async def send(index: int, until: float) -> None:
            with traffic.lane() as lane:
                while asyncio.get_running_loop().time() < until:
                    await lane.sent(10_000)
                    sent[index] += 10_000

        began = asyncio.get_running_loop().time()
        await asyncio.gather(send(0, began + 0.2), send(1, began + 0.4))
        assert sent[0] == pytest.approx(100_000, abs=30_000)
        assert sent[1] == pytest.approx(300_000, abs=50_000)
        assert traffic.bytes_out == sum(sent)

    asyncio.run(main())


def test_a_stream_gets_no_more_than_its_part_when_the_others_are_slower() -> None:
    async def main() -> None:
        traffic = Traffic(up_mbit=8.0 / UP_SHARE)
        began = asyncio.get_running_loop().time()
        with traffic.lane(), traffic.lane() as lane:
            for _ in range(11):
                await lane.sent(10_000)
        assert asyncio.get_running_loop().time() - began >= 0.17

    asyncio.run(main())


def test_without_a_cap_no_stream_waits() -> None:
    async def main() -> None:
        traffic = Traffic()
        with traffic.lane() as lane, traffic.lane():
            await lane.sent(10**12)
        assert traffic.bytes_per_s_of_lane is None

    asyncio.run(asyncio.wait_for(main(), 1.0))
