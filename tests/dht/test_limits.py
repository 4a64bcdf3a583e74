import pytest

from dht.limits import (
    ALL_AT_ONCE,
    ALL_BYTES,
    AT_ONCE,
    BURST,
    CALL_BYTES,
    CALLS_PER_S,
    CALLS_PER_TICK,
    CALM_S,
    HELD,
    MAX_CALLERS,
    MOST_BYTES,
    OUT_S,
    PATIENCE,
    Limits,
    Refused,
)

RATE = CALLS_PER_S + CALLS_PER_TICK  # in a run with ticks of a second


class World:
    """Limits by a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.limits = Limits(lambda: self.now)

    def call(self, peer: str = "x") -> float:
        """A call that is over at once; returns what it had to wait."""
        delay_s = self.limits.enter(peer)
        self.limits.leave(peer)
        return delay_s


def test_a_burst_goes_through_and_what_is_beyond_waits_for_its_turn() -> None:
    world = World()
    assert [world.call() for _ in range(BURST)] == [0.0] * BURST
    assert world.call() == pytest.approx(1 / RATE)
    assert world.call() == pytest.approx(2 / RATE)
    assert world.call("y") == 0.0  # nobody pays for another
    world.now += 2 / RATE + BURST / RATE
    assert [world.call() for _ in range(BURST)] == pytest.approx([0.0] * BURST)
    assert world.call() > 0.0


def test_over_a_while_the_rate_is_the_limit() -> None:
    world = World()
    began = world.now
    for _ in range(3000):
        world.now += world.call()
    assert world.now - began == pytest.approx((3000 - BURST) / RATE, rel=0.01)


@pytest.mark.parametrize("tick_s", [0.5, 1.0, 30.0])
def test_the_rate_goes_by_the_rounds(tick_s: float) -> None:
    world = World()
    world.limits.tick_s = tick_s
    began = world.now
    for _ in range(3000):
        world.now += world.call()
    rate = CALLS_PER_S + CALLS_PER_TICK / tick_s
    assert world.now - began == pytest.approx((3000 - BURST) / rate, rel=0.01)


@pytest.mark.parametrize(("size_bytes", "calls"), [(CALL_BYTES - 1, 1), (CALL_BYTES, 2), (16 * CALL_BYTES, 17)])
def test_a_fat_call_counts_as_many(size_bytes: int, calls: int) -> None:
    world = World()
    world.limits.enter("x", size_bytes)
    for _ in range(BURST - calls):
        assert world.call() == 0.0
    assert world.call() > 0.0


def test_a_fat_answer_is_paid_for_by_the_next_call() -> None:
    world = World()
    world.call()
    world.limits.answered("x", 16 * CALL_BYTES)
    for _ in range(BURST - 17):
        assert world.call() == 0.0
    assert world.call() > 0.0


def test_too_many_at_once_are_refused() -> None:
    world = World()
    for _ in range(AT_ONCE):
        world.limits.enter("x")
    with pytest.raises(Refused) as refused:
        world.limits.enter("x")
    assert not refused.value.is_out
    world.limits.enter("y")
    world.limits.leave("x")
    world.limits.enter("x")


def test_fat_calls_at_once_are_refused_before_they_fill_the_memory() -> None:
    world = World()
    size = MOST_BYTES // 4
    for _ in range(4):
        world.limits.enter("x", size)
    with pytest.raises(Refused) as refused:
        world.limits.enter("x", 1)
    assert not refused.value.is_held and not refused.value.is_out
    world.limits.leave("x", size)
    world.limits.enter("x", size)
    for peer in range(ALL_BYTES // MOST_BYTES - 1):
        world.limits.enter(f"peer {peer}", MOST_BYTES)
    with pytest.raises(Refused):
        world.limits.enter("me", 1)
    world.limits.leave("peer 0", MOST_BYTES)
    world.limits.enter("me", 1)


def test_who_goes_on_with_fat_calls_is_out_soon() -> None:
    world = World()
    world.limits.enter("x", MOST_BYTES)
    fat = PATIENCE // 4 * CALL_BYTES
    outs = []
    for _ in range(4):
        with pytest.raises(Refused) as refused:
            world.limits.enter("x", fat)
        outs.append(refused.value.is_out)
    assert outs == [False, False, False, True]


def test_all_together_have_a_limit_for_which_nobody_is_to_blame() -> None:
    world = World()
    for number in range(ALL_AT_ONCE):
        world.limits.enter(f"peer {number // 100}")
    for _ in range(2 * PATIENCE):
        with pytest.raises(Refused) as refused:
            world.limits.enter("me")
        assert not refused.value.is_out
    world.limits.leave("peer 0")
    world.limits.enter("me")


def test_who_goes_on_is_out_for_a_while() -> None:
    world = World()
    for _ in range(AT_ONCE):
        world.limits.enter("x")
    for _ in range(HELD):
        with pytest.raises(Refused) as refused:
            world.limits.enter("x")
        assert refused.value.is_held and not refused.value.is_out
    for count in range(1, PATIENCE + 1):
        with pytest.raises(Refused) as refused:
            world.limits.enter("x")
        assert not refused.value.is_held and refused.value.is_out == (count == PATIENCE)
    for _ in range(HELD):
        world.limits.release("x")
    for _ in range(AT_ONCE):
        world.limits.leave("x")
    world.now += OUT_S - 0.1
    assert world.limits.is_out("x")
    with pytest.raises(Refused):
        world.limits.enter("x")
    world.now += 0.1
    assert not world.limits.is_out("x")
    assert world.call() == 0.0


def test_refusals_now_and_then_are_forgotten() -> None:
    world = World()
    for _ in range(AT_ONCE):
        world.limits.enter("x")
    for _ in range(HELD):
        with pytest.raises(Refused):
            world.limits.enter("x")
    for _ in range(3):
        for _ in range(PATIENCE - 1):
            with pytest.raises(Refused) as refused:
                world.limits.enter("x")
            assert not refused.value.is_out
        world.now += CALM_S + 0.1


def test_callers_without_end_fill_no_memory() -> None:
    world = World()
    for number in range(MAX_CALLERS + 100):
        world.call(f"peer {number}")
    limits = world.limits
    assert len(limits._callers) == MAX_CALLERS and not (limits._running or limits._held or limits._bytes)
