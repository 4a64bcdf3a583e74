"""What is said of what is wrong, on both sides of each threshold."""

import pytest

from peer.http.history import Fate, Part, RoundRecord
from peer.member.clocks import verdict
from peer.member.diagnosis import (
    BUSY_SHARE,
    DEATHS,
    DEATHS_S,
    GAP_TURNS,
    LATE_ROUNDS,
    REPEATS,
    RETURNS,
    SILENCE_TICKS,
    SILENT_S,
    SILENT_STEPS,
    SKEW,
    SubModel,
    Trouble,
    of_busy_cores,
    of_disk,
    of_lateness,
    of_long_steps,
    of_memory,
    of_silence,
    of_silent_worker,
    of_skew,
    of_sub_models,
    of_worker,
    told,
)
from protocols.describe import Offset


def record(fate: Fate, offer_s: float | None = 0.5, *, is_step: bool = True) -> RoundRecord:
    parts = [Part(peer="me", fate=fate, size_bytes=2_000_000), Part(peer="other", fate="sealed")]
    phases = {} if offer_s is None else {"offer": offer_s}
    shown = {"block": "model", "tick": 1, "at": 0.0, "length_s": 15.0, "cut_s": 3.0, "outcome": ""}
    return RoundRecord.model_validate(shown | {"is_step": is_step, "parts": parts, "phases": phases})


def late(fates: list[RoundRecord], step_s: float | None = 0.3) -> str:
    found = of_lateness(fates, "me", step_s, tick_s=2.0)
    return "" if found is None else found.line()


def test_who_is_missing_from_the_others_rounds_is_told_after_three_of_five() -> None:
    assert not late([record("late")] * (LATE_ROUNDS - 1) + [record("sealed")] * 2)
    assert late([record("late")] * LATE_ROUNDS + [record("sealed")] * 2)
    assert not late([record("late")] * LATE_ROUNDS + [record("sealed")] * 3), "that is over"
    assert not late([record("late", is_step=False)] * 5), "nobody's offer counted: that is another trouble"
    alone = [each.model_copy(update={"parts": each.parts[:1]}) for each in [record("late")] * 5]
    assert not late(alone)


def test_the_reason_is_in_the_users_words() -> None:
    assert "your steps take 16 s, the cut is after 3 s; found the run with ticks of 64 s" in late(
        [record("late")] * 5, step_s=16.0
    )
    assert "ready after 3.1 s, the cut is after 3 s: this machine is too busy" in late([record("late", 3.1)] * 5)
    assert "is not ready by the cut" in late([record("absent", None)] * 5)
    assert "your offer of 2 MB is ready after 3 s and does not reach" in late([record("left out", 3.0)] * 5)


def test_a_worker_that_dies_or_diverges_again_and_again_is_told() -> None:
    deaths = [Trouble("restarted", "out of memory on cpu", at) for at in (0.0, 10.0)]
    assert len(deaths) == DEATHS
    assert not of_worker(deaths[:1], 20.0, 0.01)
    (found,) = of_worker(deaths, 20.0, 0.01)
    assert found.code == "worker" and "--micro-batch 1" in found.cure
    assert not of_worker(deaths, DEATHS_S, 0.01), "the first is long ago"
    (other,) = of_worker([Trouble("restarted", "ended with exit code 1", at) for at in (0.0, 1.0)], 2.0, 0.01)
    assert "report" in other.cure
    (killed,) = of_worker([Trouble("restarted", "was ended by SIGKILL", at) for at in (0.0, 1.0)], 2.0, 0.01)
    assert "another program ends it" in killed.cure and "start again" in killed.cure
    returns = [Trouble("diverged", "the loss became nan", at) for at in (0.0, 10.0)]
    assert len(returns) == RETURNS and not of_worker(returns[1:], 20.0, 0.01)
    (found,) = of_worker(returns, 20.0, 0.01)
    assert (
        found.code == "diverging"
        and "a lower rate than 0.01 (SHOAL_RUN__INNER__LEARNING_RATE), such as 0.001" in found.cure
    )


def test_a_worker_that_takes_no_step_is_told_once_it_is_known_how_long_one_takes() -> None:
    assert of_silent_worker(SILENT_S - 0.1, 0.1) is None and of_silent_worker(600.0, None) is None
    found = of_silent_worker(SILENT_S, 0.1)
    assert found is not None and found.code == "worker" and "no step for 30 s" in found.cause
    assert of_silent_worker(SILENT_STEPS * 9.0 - 0.1, 9.0) is None and of_silent_worker(SILENT_STEPS * 9.0, 9.0)


def test_rounds_too_short_for_the_steps_of_all_are_told_and_those_of_one_slow_peer_are_not() -> None:
    assert of_long_steps(9.0, 3.0, 1, 3.0) is None, "the others hold the rounds between"
    assert of_long_steps(None, 3.0, 4, 3.0) is None
    assert of_long_steps(3.0, 3.0, 4, 3.0) is None, "these rounds are long for another reason"
    found = of_long_steps(9.0, 3.0, 4, 3.0)
    assert found is not None and found.code == "long-steps"
    assert "your steps take 9 s" in found.cause and "round should take 3 s" in found.cause
    assert "ticks of 36 s (SHOAL_RUN__ROUNDS__TICK_SECONDS)" in found.cure


def test_other_programs_that_take_the_processor_are_told() -> None:
    assert of_busy_cores(None) is None and of_busy_cores(BUSY_SHARE - 0.01) is None
    found = of_busy_cores(BUSY_SHARE)
    assert found is not None and "80% of the processor in the last minute" in found.cause


def test_a_disk_and_a_memory_are_told_below_what_is_needed() -> None:
    assert of_disk(None, 100, "/x") is None and of_disk(100, 100, "/x") is None
    found = of_disk(99, 100, "/x")
    assert found is not None and found.is_severe and "/x" in found.cause and "--state-dir" in found.cure
    assert of_memory(None, 100) is None and of_memory(100, 100) is None
    assert of_memory(99, 100) is not None


def sub_model(**changes: float | str | bool) -> SubModel:
    facts = {"name": "expert.1", "domain": "docs", "holders": 1, "keepers": 2, "unheld_turns": 0.0, "repeats": 1.0}
    return SubModel(**facts | {"is_done": False} | changes)  # type: ignore[arg-type]


def test_a_sub_model_that_nobody_trains_is_told_when_everybody_has_had_two_turns() -> None:
    gap = sub_model(holders=0, unheld_turns=GAP_TURNS)
    (found,) = of_sub_models([gap])
    assert found.code == "gap" and "--sub-model expert.1" in found.cure and "2 peers keep" in found.cause
    assert not found.is_severe
    (lost,) = of_sub_models([sub_model(holders=0, keepers=0, unheld_turns=GAP_TURNS)])
    assert lost.is_severe
    assert not of_sub_models([sub_model(holders=0, unheld_turns=GAP_TURNS - 0.1)])
    assert not of_sub_models([sub_model(unheld_turns=GAP_TURNS)])
    assert not of_sub_models([sub_model(holders=0, unheld_turns=GAP_TURNS, is_done=True)])


def test_text_that_was_read_too_often_and_domains_that_differ_too_much_are_told() -> None:
    assert not of_sub_models([sub_model(repeats=REPEATS - 0.1)])
    (found,) = of_sub_models([sub_model(repeats=REPEATS)])
    assert found.code == "little-text" and "docs" in found.affects and "more text" in found.cure
    assert of_skew({"one": 5}) is None and of_skew({"a": 10, "b": int(10 * SKEW) - 1}) is None
    skewed = of_skew({"a": 10, "b": int(10 * SKEW)})
    assert skewed is not None and "a has 10 tokens" in skewed.cause


def test_silence_all_around_is_told() -> None:
    assert of_silence(0, SILENCE_TICKS, []) is None and of_silence(3, SILENCE_TICKS - 1, []) is None
    found = of_silence(3, SILENCE_TICKS, ["no answer"])
    assert found is not None and "none of the 3" in found.cause and "no answer" in found.cause


@pytest.mark.parametrize(
    ("offsets", "is_told"),
    [([], False), ([3.05], False), ([3.2], True), ([-6.0], True), ([6.0, 0.0], False), ([6.0, 6.1, 0.0], True)],
)
def test_a_clock_is_off_by_what_most_of_those_who_are_asked_say(offsets: list[float], is_told: bool) -> None:
    found = verdict([Offset(each, 0.1) for each in offsets], cut_s=60.0)
    assert (found is not None) is is_told
    if found is not None:
        assert found.code == "clock" and "NTP" in found.cure
        assert ("behind" if offsets[0] > 0 else "ahead of") in found.cause


def test_short_rounds_bear_less_of_a_clock_that_is_off() -> None:
    assert verdict([Offset(0.85, 0.1)] * 2, cut_s=0.8) is None
    found = verdict([Offset(-0.95, 0.1)] * 2, cut_s=0.8)
    assert found is not None and "0.9 s ahead of those of 2 of 2 others; these rounds bear 0.8 s" in found.cause


def test_what_another_room_says_in_one_line_is_taken_apart() -> None:
    found = told("twin", "rounds", "two run: stop one", ": ", True)
    assert (found.cause, found.cure) == ("two run", "stop one") and found.line() == "two run; stop one"
