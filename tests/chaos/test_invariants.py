"""Each invariant, on both sides of its threshold, on plays that are made up: one round a second, at each peer."""

import math
from collections.abc import Sequence

import pytest

from peer.chaos.daemons import Life, RoundLine, Sample
from peer.chaos.invariants import (
    AGREE_ROUNDS,
    AGREE_S,
    GOES_ON_ROUNDS,
    LAPSE_ROUNDS,
    Done,
    Orphan,
    Seen,
    Work,
    agree,
    agree_rounds,
    agreed_at,
    counts_what_was_trained,
    goes_on,
    loses_one_round,
    no_surprise,
    recovery_rounds,
    taken_up,
    waits_for_nobody,
)
from peer.chaos.schedule import Fault

FAULT = 10  # the tick at which something happens


def line(round_: int, outcome: str, version: int = 0, digest: str = "d", took_s: float = 0.2) -> RoundLine:
    return RoundLine(round_ + took_s, "model", round_, outcome, version or round_, 1000 * (version or round_), digest)


def life(rounds: Sequence[RoundLine]) -> Life:
    return Life(0.0, ready=0.5, rounds=list(rounds))


def seen(peers: dict[int, list[RoundLine]], *done: Done, gone: Sequence[int] = ()) -> Seen:
    lives = {peer: [life(rounds)] for peer, rounds in peers.items()}
    return Seen(0.0, 1.0, "model", lives, done, 0.0, frozenset(gone))


def killed(ended: float = FAULT + 5.0) -> Done:
    return Done(Fault(kind="kill"), FAULT - 0.5, ended)


def rounds(first: int, last: int, outcome: str = "sealed 4 of 4", took_s: float = 0.2) -> list[RoundLine]:
    return [line(number, outcome, took_s=took_s) for number in range(first, last)]


@pytest.mark.parametrize("late", [GOES_ON_ROUNDS, GOES_ON_ROUNDS + 1])
def test_the_others_seal_again_within_two_rounds(late: int) -> None:
    others = rounds(1, FAULT) + [line(n, "skipped: heard 1 of 4", FAULT) for n in range(FAULT, FAULT + late)]
    others += rounds(FAULT + late, 30, "sealed 3 of 4")
    broken = goes_on(seen({0: others, 1: rounds(1, FAULT), 2: others, 3: others}, killed()))
    assert len(broken) == (3 if late > GOES_ON_ROUNDS else 0)


@pytest.mark.parametrize("late", [LAPSE_ROUNDS, LAPSE_ROUNDS + 1])
def test_without_a_majority_the_records_of_the_others_lapse_first(late: int) -> None:
    last = rounds(1, FAULT) + rounds(FAULT + late, 40, "alone")
    gone = Done(Fault(kind="kill", peers=(0, 1, 2), is_final=True), FAULT - 0.5, FAULT)
    play = seen({0: [], 1: [], 2: [], 3: last}, gone, gone=[0, 1, 2])
    assert bool(goes_on(play)) == (late > LAPSE_ROUNDS)


def test_training_that_seals_without_growing_older_is_noticed() -> None:
    still = [line(n, "sealed 3 of 4", FAULT) for n in range(FAULT, 30)]
    assert goes_on(seen({0: still, 1: [], 2: still, 3: still}, killed()))


@pytest.mark.parametrize(("took_s", "waits"), [(0.9, False), (1.0, True)])
def test_nobody_waits_for_the_dead(took_s: float, waits: bool) -> None:
    others = rounds(1, FAULT) + rounds(FAULT, FAULT + LAPSE_ROUNDS, "sealed 3 of 4", took_s)
    others += [line(30, "sealed 3 of 4", took_s=9.0)]
    play = seen({0: others, 1: [], 2: others, 3: others}, killed())
    assert bool(waits_for_nobody(play)) == waits


def test_a_machine_that_was_slow_before_waits_for_nobody() -> None:
    def others(took_s: float) -> list[RoundLine]:
        slow = rounds(1, FAULT, took_s=1.2)
        return slow + rounds(FAULT, FAULT + LAPSE_ROUNDS, "sealed 3 of 4", took_s)

    for took_s, waits in ((1.75, False), (1.85, True)):
        play = seen({0: others(took_s), 1: [], 2: others(took_s), 3: others(took_s)}, killed())
        assert bool(waits_for_nobody(play)) == waits


def test_beside_another_fault_nothing_is_said_of_a_single_one() -> None:
    slow = rounds(FAULT, 30, "sealed 2 of 4", 3.0)
    other = Done(Fault(kind="kill", peers=(2,)), FAULT + 6.0, FAULT + 9.0)
    assert not waits_for_nobody(seen({0: slow, 1: [], 2: [], 3: slow}, killed(), other))


@pytest.mark.parametrize("late", [AGREE_S, AGREE_S + 1])
def test_all_agree_within_so_many_seconds_of_the_last_fault(late: float) -> None:
    late = int(late)
    apart = [line(n, "sealed 4 of 4", digest="other") for n in range(15, 15 + late)]
    one, two = rounds(15, 80), apart + rounds(15 + late, 80)
    play = seen({0: one, 1: two, 2: one, 3: one}, killed(15.0))
    found = agreed_at(play)
    assert found is not None and found.round == 15 + max(late, 1)
    assert bool(agree(play)) == (late > AGREE_S)


def test_long_rounds_count_as_rounds() -> None:
    assert agree_rounds(seen({0: []})) == AGREE_S
    assert agree_rounds(Seen(0.0, 10.0, "model", {}, [])) == AGREE_ROUNDS


def test_who_never_agrees_is_said_with_the_last_outcome() -> None:
    play = seen({0: rounds(15, 50), 1: rounds(15, 50, "alone")}, killed(15.0))
    assert agree(play) == ["they did not agree after the last fault: {0: 'sealed 4 of 4', 1: 'alone'}"] and math.isinf(
        recovery_rounds(play)
    )


def test_one_that_is_left_agrees_with_itself() -> None:
    gone = Done(Fault(kind="kill", peers=(0,), is_final=True), FAULT, FAULT)
    play = seen({0: [], 1: rounds(12, 15, "alone")}, gone, gone=[0])
    assert recovery_rounds(play) == 2 and not agree(play)


@pytest.mark.parametrize(("version", "is_lost"), [(8, False), (7, True)])
def test_who_comes_back_has_lost_its_unfinished_round_at_most(version: int, is_lost: bool) -> None:
    play = Seen(0.0, 1.0, "model", {1: [life(rounds(1, FAULT)), life([line(20, "alone", version)])]}, [killed()])
    assert bool(loses_one_round(play)) == is_lost


@pytest.mark.parametrize("kind", ["checkpoint", "book"])
def test_what_was_damaged_may_be_older(kind: str) -> None:
    damaged = Done(Fault(kind="damage", file=kind), FAULT, FAULT + 5.0)
    play = Seen(0.0, 1.0, "model", {1: [life(rounds(1, FAULT)), life([line(20, "alone", 2)])]}, [damaged])
    assert not loses_one_round(play)


def sample(at: float, tokens: int) -> Sample:
    return Sample(at, int(at), "training", 1, tokens, 4, ())


@pytest.mark.parametrize(
    ("counted", "is_right"), [(9_400, True), (10_000, True), (10_101, False), (9_000, False), (0, False)]
)
def test_tokens_counted_are_tokens_trained(counted: int, is_right: bool) -> None:
    """A hundred tokens a round: up to one more than was seen, and eight less that may be on their way."""
    samples = [sample(float(at), 100 * at) for at in range(101)]
    work = Work(0, [Life(0.0, samples=samples)], [0], counted, 0, False)
    assert (not counts_what_was_trained(work, 1.0)) == is_right


def test_what_a_life_began_with_is_not_counted_twice() -> None:
    lives = [
        Life(0.0, ended=51.0, samples=[sample(float(at), 100 * at) for at in range(51)]),
        Life(60.0, samples=[sample(60.0 + at, 4_800 + 100 * at) for at in range(51)]),
    ]
    assert not counts_what_was_trained(Work(0, lives, [0, 4_800], 10_000, 0, False), 1.0)
    assert counts_what_was_trained(Work(0, lives, [0, 4_800], 14_800, 0, False), 1.0)


@pytest.mark.parametrize(("version", "is_so"), [(13, True), (12, False), (1, False)])
def test_a_block_is_taken_up_from_what_its_keepers_had(version: int, is_so: bool) -> None:
    orphan = Orphan("expert.1", 20, at=5.0)
    again = RoundLine(9.0, "expert.1", 9, "alone", version, 1, "d")
    assert taken_up(orphan, [again]) == is_so
    assert not taken_up(orphan, [RoundLine(4.0, "expert.1", 4, "alone", 21, 1, "d")])


def test_an_error_that_nobody_foresaw_counts_only_in_its_own_play() -> None:
    lives = {0: [Life(0.0, tracebacks=[3.0])]}
    assert no_surprise(Seen(0.0, 1.0, "model", lives, [], since=2.0))
    assert not no_surprise(Seen(0.0, 1.0, "model", lives, [], since=4.0))
