"""Who trains alone although there are others is told so, with the cause and what helps."""

import pytest

from peer.block.stride import Trial
from peer.http.status import Finding
from peer.member.company import ALONE_ROUNDS, ALONE_S, BUSY_LOAD, Circumstances, Company
from protocols.sealing import UNHEARD, UNNAMED

SEALED, FAILED, LATE = Trial(0.1, 0.8, True), Trial(0.1, 0.8, False), Trial(1.9, 0.8, False)


HANGS = Finding(code="worker", affects="training", cause="no step for 40 s", cure="leave")


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def company(time: Time) -> Company:
    return Company(time)


def met(
    others: int = 2, round_s: float = 2.0, step_s: float = 0.3, load: float = 0.0, because: Finding | None = None
) -> Circumstances:
    return Circumstances(others, round_s, step_s, load, because, cores=lambda: 2.0)


def line(company: Company, circumstances: Circumstances) -> str:
    finding = company.finding(circumstances)
    assert finding is not None
    return finding.line()


def test_it_is_said_after_five_rounds_or_a_minute(company: Company, time: Time) -> None:
    for _ in range(ALONE_ROUNDS - 1):
        company.ended(FAILED, UNHEARD)
    assert company.finding(met()) is None
    time.now += ALONE_S - 1
    assert company.finding(met()) is None
    time.now += 1
    assert "trains alone" in line(company, met())
    company.ended(SEALED, "")
    assert company.finding(met()) is None
    for _ in range(ALONE_ROUNDS):
        company.ended(FAILED, UNHEARD)
    assert f"{ALONE_ROUNDS} rounds" in line(company, met())


def test_a_minute_is_nothing_where_rounds_are_long(company: Company, time: Time) -> None:
    time.now += 119
    assert company.finding(met(round_s=60)) is None
    time.now += 1
    assert company.finding(met(round_s=60))


def test_nobody_is_alone_without_others(company: Company, time: Time) -> None:
    time.now += 1000
    assert company.finding(met(others=0)) is None
    company.begin()  # as the daemon does while there is nobody
    assert company.finding(met(others=1)) is None


@pytest.mark.parametrize(
    ("trial", "cause", "circumstances", "told"),
    [
        (FAILED, UNNAMED, met(step_s=9.0, round_s=3.0), "a step takes 9 s here, and a round 3 s"),
        (FAILED, UNNAMED, met(step_s=9.0, round_s=3.0), "SHOAL_RUN__ROUNDS__TICK_SECONDS=36"),
        (LATE, UNHEARD, met(load=2 * BUSY_LOAD + 0.1), "cores are busy, 2.6 programs want 2); end other programs"),
        (LATE, UNHEARD, met(load=2 * BUSY_LOAD), "ready 1.9 s after the tick, the cut is after 0.8 s"),
        (LATE, UNHEARD, met(load=5, because=HANGS), "5 rounds: no step for 40 s; leave"),
        (FAILED, UNHEARD, met(), "the others were not heard"),
        (FAILED, UNHEARD, met(load=5), "this machine's cores are busy, too"),
        (FAILED, UNNAMED, met(), "offers do not arrive in time"),
    ],
)
def test_the_cause_is_in_the_users_words(
    company: Company, trial: Trial, cause: str, circumstances: Circumstances, told: str
) -> None:
    for _ in range(ALONE_ROUNDS):
        company.ended(trial, cause)
    assert told in line(company, circumstances)
