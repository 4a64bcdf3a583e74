"""The schedule follows the age without a jump, and a bad loss is noticed."""

import math

import pytest

from configs.run import InnerSpec, ModelSpec, RoundSpec, RunPlan, StrategySpec
from peer.train.inner import JUMP_NATS, Schedule, Watch, learning_rate
from peer.train.partition import COMMON, TRUNK, Strategy

INNER = InnerSpec(learning_rate=0.01, batch_tokens=64, warmup_tokens=100, min_rate_share=0.1)
PLAN = RunPlan(
    total_tokens=10_000,
    model=ModelSpec(
        vocab_size=300, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=2, mlp_size=16, context_length=8
    ),
    strategy=StrategySpec(kind="experts", common_tokens=4_000),
    inner=INNER,
    rounds=RoundSpec(tick_seconds=1, double_tokens=1000),
)


def test_learning_rate_warms_up_and_falls_to_its_share() -> None:
    assert learning_rate(INNER, 0, 10_000) == 0
    assert learning_rate(INNER, 50, 10_000) == pytest.approx(0.005)
    assert learning_rate(INNER, 100, 10_000) == pytest.approx(0.01)
    assert learning_rate(INNER, 10_000, 10_000) == learning_rate(INNER, 99_999, 10_000) == pytest.approx(0.001)
    rates = [learning_rate(INNER, age, 10_000) for age in range(100, 10_001, 100)]
    assert rates == sorted(rates, reverse=True)


def test_the_rate_does_not_jump_at_parting_and_all_blocks_end_together() -> None:
    schedule = Schedule(PLAN, Strategy("experts", 3))
    assert {block: schedule.last_age(block) for block in (COMMON, TRUNK, "expert.1")} == {
        COMMON: 6_000,
        TRUNK: 10_000,
        "expert.1": 6_000,
    }
    for block in (TRUNK, "expert.1"):
        assert schedule.rate(block, 4_000) == schedule.rate(COMMON, 4_000)
        assert schedule.rate(block, schedule.last_age(block)) == pytest.approx(0.001)


def test_the_rate_falls_with_the_share_of_all_work_that_is_done() -> None:
    schedule = Schedule(PLAN, Strategy("experts", 3))
    for done in (4_000, 7_000, 10_000):
        own = 4_000 + (done - 4_000) // 3
        assert schedule.rate("expert.1", own) == schedule.rate(TRUNK, done) == learning_rate(INNER, done, 10_000)


def test_replicas_use_all_tokens() -> None:
    assert Schedule(PLAN, Strategy("replicas", 3)).last_age(COMMON) == 10_000


def test_a_watch_knows_noise_from_a_jump() -> None:
    watch = Watch()
    assert not any(watch.is_bad(5.0 - 0.01 * step + 0.3 * math.sin(step)) for step in range(200))
    assert not watch.is_bad(6.0)  # one bad batch
    assert any(watch.is_bad(3.0 + 2 * JUMP_NATS) for _ in range(20))
    assert Watch().is_bad(math.nan)
    assert Watch().is_bad(math.inf)
