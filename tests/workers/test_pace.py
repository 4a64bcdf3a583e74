"""The clock of a run follows the machine that founds it."""

import asyncio

import pytest

from configs.load import load
from configs.machine import PeerConfig
from configs.run import RoundPlan
from peer.workers.pace import MAX_TICK_S, MIN_TICK_S, ROOM, Pace, choose_tick, measure_pace

ROUNDS = RoundPlan(double_tokens=100, tick_steps=4, first_ticks=2, cut_share=0.4)


@pytest.mark.parametrize(
    ("step_s", "tick_s"),
    [
        (0.001, MIN_TICK_S),
        (MIN_TICK_S / 4, MIN_TICK_S),
        (MIN_TICK_S / 4 + 0.05, MIN_TICK_S + 0.2),
        (2.0, 8.0),
        (MAX_TICK_S / 4 - 1, MAX_TICK_S - 4),
        (MAX_TICK_S, MAX_TICK_S),
    ],
)
def test_a_tick_is_so_many_steps_within_bounds(step_s: float, tick_s: float) -> None:
    chosen, why = choose_tick(ROUNDS, Pace(step_s, 0.01, 0.0))
    assert chosen == pytest.approx(tick_s)
    assert f"{step_s:.2g} s" in why


def test_the_cut_leaves_time_for_an_offer() -> None:
    tick_s, why = choose_tick(ROUNDS, Pace(0.3, 0.5, 1.5))
    assert tick_s == pytest.approx(ROOM * 2.0 / (0.4 * 2))
    assert why == "an offer takes 2 s to make and to send"


def test_a_machine_is_measured() -> None:
    plan = load("tiny").run
    assert plan is not None and plan.rounds.tick_seconds is None
    pace = asyncio.run(measure_pace(PeerConfig(threads=1, up_mbit=1.0), plan))
    assert 0 < pace.offer_s < pace.step_s
    assert pace.send_s == pytest.approx(4.2, rel=0.2)  # half a megabyte at 1 Mbit/s


def test_a_tick_in_seconds_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_RUN__ROUNDS__TICK_SECONDS", "7")
    plan = load("tiny").run
    assert plan is not None and plan.rounds.tick_seconds == 7.0
