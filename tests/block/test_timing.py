"""What happens at a tick follows from ages and the spec alone."""

import random
from functools import partial

import pytest

from configs.load import load
from configs.run import RunSpec, StrategySpec
from dht.membership import ACT_TICKS, HOLD_TICKS
from peer.block.timing import (
    LIST_SHARE,
    BlockRounds,
    due,
    group_stride,
    meeting,
    round_seconds,
    round_timing,
    silent_ticks,
)
from peer.member.report import agreement, eta_seconds
from peer.train.partition import REPLICA, Strategy


@pytest.fixture
def spec() -> RunSpec:
    plan = load("tiny").run
    assert plan is not None
    rounds = {"tick_seconds": 2.0, "first_ticks": 1, "last_ticks": 4, "double_tokens": 100, "cut_share": 0.25}
    founded = {"genesis": 0.0, "tokenizer_sha256": "0" * 64, "end_of_text": 0}
    return plan.founded(2.0, **founded, rounds=rounds)


def test_blocks_exchange_when_their_round_length_divides_the_tick(spec: RunSpec) -> None:
    ages = {"young": 0, "grown": 100, "old": 10_000}
    assert [due(spec, ages, tick) for tick in range(1, 5)] == [
        ["young"],
        ["young", "grown"],
        ["young"],
        ["young", "grown", "old"],
    ]


def test_different_rounds_meet_at_common_multiples(spec: RunSpec) -> None:
    """A block that a part of the swarm believes older still exchanges with all at every tick of the longer round."""
    for tick in range(1, 65):
        if due(spec, {"b": 10_000}, tick):
            assert due(spec, {"b": 0}, tick) and due(spec, {"b": 150}, tick)


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        ({"a": 1}, 1),
        ({"a": 8}, 1),  # alone it waits for nobody
        ({"a": 1, "b": 1, "c": 8}, 1),  # the slow one is not waited for
        ({"a": 1, "b": 4}, 4),  # there is no round of one while there are others
        ({"a": 4, "b": 4, "c": 2}, 4),
        ({"a": 4, "b": 8, "c": 4}, 4),  # all are slow: so are the rounds
    ],
)
def test_a_group_meets_when_two_of_it_do(strides: dict[str, int], expected: int) -> None:
    assert group_stride(strides) == expected


def always(strides: dict[str, int], tick: int) -> dict[str, int]:
    return strides


def test_all_who_meet_know_the_same_group_and_nobody_meets_alone() -> None:
    """Whatever the strides: who begins a round, early or not, begins it with those who begin it with him."""
    draw = random.Random(0)
    for _ in range(200):
        strides = {f"peer{n}": draw.choice((1, 1, 2, 4, 8)) for n in range(draw.randint(1, 5))}
        length, turn = draw.choice((1, 2, 4)), draw.randint(0, 3)
        met: dict[int, set[tuple[str, ...]]] = {}
        began: dict[tuple[int, str], int] = {}
        for tick in range(1, 65):
            for me in strides:
                begun = max((at for at, peer in began if peer == me), default=0)
                if found := meeting(BlockRounds(length, turn), me, tick, begun, partial(always, strides)):
                    met.setdefault(found.tick, set()).add(found.group)
                    began[found.tick, me] = tick
        for tick, groups in met.items():
            (group,) = groups
            assert len(group) > 1 or len(strides) == 1
            if ACT_TICKS < tick < 64:
                assert {me for at, me in began if at == tick} == set(group)
        for (tick, me), at in began.items():
            is_slower = strides[me] > group_stride(strides)
            assert at == tick or is_slower
            if is_slower and tick > 16:  # the first may have begun when it was due
                assert at == tick - ACT_TICKS


def test_a_slow_peer_meets_the_others_at_its_own_rounds() -> None:
    strides = {"a": 1, "b": 1, "slow": 4}
    groups = {tick: meeting(BlockRounds(2), "a", tick, 0, partial(always, strides)) for tick in range(1, 9)}
    assert {tick: found.group for tick, found in groups.items() if found} == {
        2: ("a", "b"), 4: ("a", "b"), 6: ("a", "b"), 8: ("a", "b", "slow"),
    }  # fmt: skip
    early = meeting(BlockRounds(2), "slow", 8 - ACT_TICKS, 0, partial(always, strides))
    assert early is not None and (early.tick, early.group, early.stride) == (8, ("a", "b", "slow"), 1)


@pytest.mark.parametrize("last_ticks", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_take_turns_in_rounds_of_every_length(spec: RunSpec, last_ticks: int, parts: int) -> None:
    """As evenly as may be; and those who believe a part younger still meet the others at all of their ticks."""
    rounds = spec.rounds.model_copy(update={"last_ticks": last_ticks})
    strategy = StrategySpec(kind="replicas", parts=parts)
    spec = spec.model_copy(update={"rounds": rounds, "strategy": strategy})
    blocks = Strategy.of(strategy, 1).blocks(REPLICA)
    for age in (0, 100, 300, 700, 1500):
        length = rounds.length(age)
        at = [due(spec, dict.fromkeys(blocks, age), tick) for tick in range(64, 64 + length)]
        assert sorted(block for due_now in at for block in due_now) == sorted(blocks)  # each once in a round
        assert max(map(len, at)) == -(-parts // length)  # ceil
        for tick in range(64, 128):
            for block in blocks:
                if due(spec, {block: age}, tick):
                    assert due(spec, {block: age // 3}, tick)


def test_the_cut_and_the_lists_stay_where_they_are_for_who_begins_late(spec: RunSpec) -> None:
    assert round_seconds(spec, 100) == 4.0
    assert round_seconds(spec, 100, stride=4) == 16.0
    assert round_timing(spec, 100, 0.0, stride=4)[0] == pytest.approx(4.0)
    assert round_timing(spec, 100, -3.0)[0] == pytest.approx(4.0)  # who begins before the tick has longer
    cut, end, fetch = round_timing(spec, 100, 0.0)
    assert (cut, end) == pytest.approx((1.0, 1.0 + 4.0 * LIST_SHARE))
    assert end + fetch < 4.0
    assert round_timing(spec, 100, 0.3) == pytest.approx((cut - 0.3, end - 0.3, fetch))
    assert round_timing(spec, 100, 60.0) == (0.0, 0.0, fetch)


def test_the_time_left_is_known_once_somebody_trains() -> None:
    assert eta_seconds(250, 1000, 50.0) == 15.0
    assert eta_seconds(2000, 1000, 50.0) == 0.0
    assert eta_seconds(0, 1000, 0.0) is None


def test_agreement_is_taken_where_most_can_be_compared() -> None:
    same = [(4, "p"), (5, "q")]
    assert agreement({}, []) == 1.0
    assert agreement({"a": same, "b": same, "c": same}, "abc") == 1.0
    assert agreement({"a": [*same, (6, "new")], "b": same, "c": same}, "abc") == 1.0  # one is ahead
    assert agreement({"a": [(4, "p"), (5, "x")], "b": same, "c": same}, "abc") == pytest.approx(2 / 3)
    assert agreement({"a": [(5, "x")], "b": same, "c": same}, "bc") == 1.0  # a holds it no longer


def test_nobody_goes_on_without_a_majority_before_the_records_of_the_dead_have_ended(spec: RunSpec) -> None:
    assert silent_ticks(spec, 0) == HOLD_TICKS + ACT_TICKS
    assert silent_ticks(spec, 100) == 16 and silent_ticks(spec, 10_000) == 32  # eight rounds
    assert silent_ticks(spec, 10_000, stride=2) == 32 and silent_ticks(spec, 10_000, stride=16) == 3 * 16 * 4
