import asyncio
import math
import os
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from status_example import example

from configs.errors import NetworkError, ShoalError
from peer.commands import demo
from peer.commands.demo_scores import is_won
from peer.commands.demo_story import LINE_S, STALL_S, STILL_S, Lines, Pace, Story, least_share, swarm_share
from peer.commands.demo_tokens import LEAST_TOKENS, MOST_TOKENS, STEP_TOKENS, TARGET_S, durations, tokens_for
from peer.commands.processes import Process, founder
from peer.http.status import BlockStatus, Status

REFERENCE_STEP_S = 0.28


def story() -> Story:
    return Story(Pace("the tokens", 60.0, 0.0), 0.0)


def told(*, tokens: int, age: int, phase: str = "parted") -> Status:
    """Return the status of a daemon that has trained `tokens`, in a swarm of this `age`."""
    status = example()
    own = status.peers[0].model_copy(update={"tokens": tokens})
    return status.model_copy(update={"peers": [own], "age": age, "total_tokens": 1_000, "phase": phase})


# How many tokens


@pytest.mark.parametrize(
    ("step_s", "cores", "least_s", "most_s"),
    [
        (REFERENCE_STEP_S, 2, TARGET_S - 10, TARGET_S),  # the reference machine
        (REFERENCE_STEP_S, 1, 250, 15 * 60),
        (3 * REFERENCE_STEP_S, 2, 300, 10 * 60),
        (3 * REFERENCE_STEP_S, 1, 300, 16 * 60),  # fewer tokens would be no comparison, so it takes longer
        (0.1, 16, TARGET_S - 10, TARGET_S),
        (0.47, 2 / 3, 300, 10 * 60),  # a quota: the step was measured with it
        (0.002, 16, 0, 60),  # a fast machine is done sooner
    ],
)
def test_the_time_that_the_demo_should_take(step_s: float, cores: float, least_s: float, most_s: float) -> None:
    assert least_s <= durations(tokens_for(step_s, cores), step_s, cores).total_s <= most_s


@pytest.mark.parametrize(("step_s", "cores"), [(REFERENCE_STEP_S, 2), (REFERENCE_STEP_S, 1.5), (0.1, 1), (0.1, 4)])
def test_one_step_more_would_take_too_long(step_s: float, cores: float) -> None:
    tokens = tokens_for(step_s, cores)
    assert LEAST_TOKENS < tokens < MOST_TOKENS
    assert tokens % STEP_TOKENS == 0
    assert durations(tokens, step_s, cores).total_s <= TARGET_S
    assert durations(tokens + STEP_TOKENS, step_s, cores).total_s > TARGET_S


def last_step_s(bound: int, cores: float) -> float:
    """Return the step at which the demo takes TARGET_S with exactly `bound` tokens, by halving."""
    low, high = 1e-6, 1e3
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if durations(bound, middle, cores).total_s < TARGET_S else (low, middle)
    return low


@pytest.mark.parametrize("cores", [0.5, 1, 2, 16])
def test_both_sides_of_the_least(cores: float) -> None:
    limit_s = last_step_s(LEAST_TOKENS, cores)
    assert tokens_for(limit_s * 0.99, cores) > LEAST_TOKENS
    assert tokens_for(limit_s * 1.01, cores) == LEAST_TOKENS
    assert tokens_for(limit_s * 100, cores) == LEAST_TOKENS  # what is fixed alone takes longer than the target


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_both_sides_of_the_most(cores: float) -> None:
    limit_s = last_step_s(MOST_TOKENS, cores)
    assert tokens_for(limit_s * 1.01, cores) < MOST_TOKENS - STEP_TOKENS
    assert MOST_TOKENS - STEP_TOKENS < tokens_for(limit_s * 0.99, cores) <= MOST_TOKENS
    assert MOST_TOKENS - STEP_TOKENS < tokens_for(1e-6, cores) <= MOST_TOKENS


def test_a_slower_machine_never_trains_more() -> None:
    steps_s = [0.01 * 1.1**n for n in range(60)]
    for cores in (0.3, 1, 1.5, 2, 8):
        chosen = [tokens_for(step_s, cores) for step_s in steps_s]
        assert chosen == sorted(chosen, reverse=True)
    for step_s in steps_s:
        chosen = [tokens_for(step_s, cores) for cores in (0.3, 1, 1.5, 2, 8)]
        assert chosen == sorted(chosen)


# What is told


def test_before_there_is_a_pace_the_expectation_counts() -> None:
    pace = Pace("the tokens", 60.0, began_s=100.0)
    assert pace.left_s(110.0) == 50.0
    assert pace.left_s(160.0) is None  # it takes longer than was expected
    assert pace.told(110.0) == "0% of the tokens, about 50 s left"
    assert Pace("the measurement", None, 0.0).told(5.0) == "0% of the measurement, not known yet how long"


def test_the_pace_begins_with_the_first_progress_not_with_the_start_of_daemons() -> None:
    pace = Pace("the tokens", 60.0, began_s=0.0)
    pace.note(0.0, 10.0)
    pace.note(0.1, 40.0)
    pace.note(0.11, 50.0)
    assert pace.left_s(50.0) == 10.0  # so little gives no pace yet
    pace.note(0.3, 60.0)
    assert pace.left_s(60.0) == pytest.approx(70.0)
    assert pace.left_s(65.0) == pytest.approx(65.0)  # the clock goes on between two looks
    pace.note(0.2, 61.0)  # somebody who knows less
    assert pace.share == 0.3
    pace.note(1.4, 130.0)
    assert pace.share == 1.0
    assert pace.left_s(131.0) is None


def test_a_line_at_each_headline_and_at_least_every_ten_seconds() -> None:
    assert LINE_S < 10
    lines, tale = Lines(), story()
    assert lines.due(tale, 0.0) == "    0 s  starting (0% of the tokens, about 60 s left)"
    assert lines.due(tale, LINE_S - 0.1) is None
    assert lines.due(tale, LINE_S) is not None
    tale.headline = "peer1 is back"
    assert lines.due(tale, LINE_S + 0.1) is not None
    assert lines.due(tale, LINE_S + 0.2) is None


def test_a_sub_model_that_has_more_than_its_part_does_not_hide_one_that_has_less() -> None:
    assert swarm_share({}) == 0
    names = {"model": "all", "expert.0": "python", "expert.1": "docs"}
    ages = {"model": 500, "expert.0": 900, "expert.1": 600}
    blocks = [BlockStatus(block=name, holders=[], keepers=[], age=age) for name, age in ages.items()]
    status = told(tokens=10, age=1_000).model_copy(update={"sub_models": names})
    common = status.model_copy(update={"blocks": blocks[:1]})
    assert swarm_share({"a": common}) == 0.5
    assert swarm_share({"a": common, "b": status.model_copy(update={"blocks": blocks})}) == 0.85


def test_the_baseline_that_is_done_last_counts() -> None:
    totals = {"alone": 100, "dense": 400}
    assert least_share({}, totals) == 0
    assert least_share({"alone": told(tokens=100, age=100)}, totals) == 0
    both = {"alone": told(tokens=100, age=100), "dense": told(tokens=100, age=100)}
    assert least_share(both, totals) == 0.25


# Who is stuck


def test_a_daemon_without_progress_is_stuck_after_a_while() -> None:
    tale = story()
    tale.take_in("peer1", told(tokens=10, age=10), 0.0, is_baseline=False)
    tale.take_in("peer2", told(tokens=10, age=10), 0.0, is_baseline=False)
    tale.take_in("peer1", told(tokens=20, age=20), 100.0, is_baseline=False)
    tale.take_in("peer2", told(tokens=10, age=10), 100.0, is_baseline=False)
    assert tale.stuck(STALL_S) is None
    assert tale.stuck(STALL_S + 1) == "peer2"


def test_one_that_never_answers_is_stuck_too_and_was_never_done() -> None:
    tale = story()
    tale.take_in("peer1", None, 0.0, is_baseline=False)
    tale.take_in("peer1", None, STALL_S, is_baseline=False)
    assert not tale.is_done("peer1") and tale.share == 0
    assert tale.stuck(STALL_S + 1) == "peer1"


def test_who_is_done_or_was_ended_is_not_stuck() -> None:
    tale = story()
    tale.take_in("alone", told(tokens=10, age=10, phase="done"), 0.0, is_baseline=True)
    tale.take_in("peer1", told(tokens=10, age=10), 0.0, is_baseline=False)
    tale.forget("peer1")
    assert tale.is_done("alone") and tale.stuck(10 * STALL_S) is None
    tale.take_in("peer1", None, 10 * STALL_S, is_baseline=False)  # it is back, and has time again
    assert tale.stuck(10 * STALL_S + 1) is None


@pytest.mark.parametrize(("fused", "expected"), [(47.0, True), (70.0, False), (80.0, False)])
def test_the_fused_model_must_beat_all(fused: float, expected: bool) -> None:
    row = {"mean": fused}
    assert is_won({"fused": row, "alone": {"mean": 80.0}, "sub_models": {"expert.0": {"mean": 70.0}}}) is expected


# How it ends before its time


@dataclass
class Daemon:
    """Answers as a process does that the demo looks at."""

    name: str
    answer: Status | None = None
    has_ended_by_itself: bool = False
    url: str = "http://127.0.0.1:1"
    last_line: str = "its last words"

    @property
    def is_running(self) -> bool:
        return not self.has_ended_by_itself

    async def status(self) -> Status:
        if self.answer is None:
            raise NetworkError("no answer")
        return self.answer


async def look(tale: Story, *daemons: Any) -> None:
    async with asyncio.timeout(20):
        await demo._look(list(daemons), tale)


def test_a_daemon_that_ended_by_itself_ends_the_demo() -> None:
    tale = story()
    healthy = Daemon("peer2", told(tokens=10, age=10))
    with pytest.raises(ShoalError, match=r"^peer1 ended by itself; the last line of peer1's log: its last words$"):
        asyncio.run(look(tale, healthy, Daemon("peer1", has_ended_by_itself=True)))
    assert set(tale.statuses) == {"peer2"}


def test_a_daemon_that_gets_no_further_ends_the_demo() -> None:
    tale = story()
    tale.marks["peer1"] = (None, time.monotonic() - STALL_S - 1)
    with pytest.raises(
        ShoalError, match=r"^peer1 has made no progress for 4 min; the last line of peer1's log: its last"
    ):
        asyncio.run(look(tale, Daemon("peer1")))


def test_a_swarm_whose_rounds_all_fail_ends_the_demo() -> None:
    tale = story()
    tale.begin("training", "the swarm's tokens", 60.0, lambda: swarm_share(tale.statuses))
    assert not tale.pace.is_still(tale.pace.began_s + STILL_S - 1)
    tale.pace.began_s -= STILL_S + 1
    tale.pace.note(0.0, tale.pace.began_s)
    stuck_at_0 = told(tokens=10, age=0).model_copy(update={"blocks": []})
    with pytest.raises(ShoalError, match=r"^0% of the swarm's tokens, and no more for 5 min; the last line of peer2's"):
        asyncio.run(look(tale, Daemon("peer1", stuck_at_0), Daemon("peer2", stuck_at_0)))


def test_what_is_waited_for_comes_with_a_look() -> None:
    tale = story()

    async def wait() -> None:
        watch = asyncio.create_task(look(tale, Daemon("dense", told(tokens=10, age=10, phase="done")), Daemon("peer1")))
        await demo._until(tale, lambda: tale.is_done("dense"))
        watch.cancel()

    asyncio.run(wait())
    assert not tale.is_done("peer1") and tale.statuses == {}


def test_a_daemon_that_does_not_start_says_why(tmp_path: Path) -> None:
    process = Process("peer1", tmp_path / "peer1", ["status"], {})

    async def start() -> None:
        with pytest.raises(ShoalError, match=r"^peer1 did not start: shoal: no daemon runs in"):
            await process.start()
        await process.kill()

    asyncio.run(start())
    assert process.last_line.startswith("shoal: no daemon runs in")
    assert not process.is_running and not process.has_ended_by_itself


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that name `folder`."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text(errors="replace"))
        except OSError:  # it has just ended
            continue
    return [line for line in lines if str(folder) in line]


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize("is_child_there", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_neither_daemons_nor_the_folder(
    number: signal.Signals, is_child_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(folder: Path, cast: list[Process], tale: Story) -> dict[str, Any]:
        peer = founder(folder, "founder", "tiny")
        cast.append(peer)
        starting = asyncio.create_task(peer.start())
        while is_child_there and not peer.is_running:
            await asyncio.sleep(0)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # an impatient user's
        await starting
        raise AssertionError("the signal was not heard")

    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where these tests run below nohup
    signal.signal(signal.SIGINT, signal.default_int_handler)  # and in the background of a script
    monkeypatch.setattr(demo, "_play", play)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the daemons' own temporary folders are, too
    try:
        assert demo.run(as_json=True, state_dir=tmp_path) == 128 + number
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


def test_an_error_leaves_no_folder_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(folder: Path, cast: list[Process], tale: Story) -> dict[str, Any]:
        raise ShoalError("one line")

    monkeypatch.setattr(demo, "_play", play)
    with pytest.raises(ShoalError, match=r"^one line$"):
        demo.run(as_json=True, state_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
