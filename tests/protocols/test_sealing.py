"""Which offers count and whose history is followed: the rules, one by one."""

import hashlib
import random

import pytest

from protocols.sealing import (
    MARKS,
    PATIENCE_ROUNDS,
    RETRY_ROUNDS,
    SEATED_ROUNDS,
    UNHEARD,
    Mark,
    Standing,
    compare,
    is_decided,
    quorum,
    seal,
)

A, B, C, D = "abcd"


def test_an_offer_counts_when_more_than_half_of_the_view_names_it() -> None:
    lists = {A: {A: "1", B: "2"}, B: {A: "1", B: "2", C: "3"}, C: {C: "3"}}
    outcome = seal((A, B, C), lists)
    assert outcome.offers == {A: "1", B: "2", C: "3"}
    assert outcome.reason == "sealed 3 of 3"


def test_two_offers_of_one_peer_do_not_add_up() -> None:
    outcome = seal((A, B, C), {A: {A: "1"}, B: {A: "other"}, C: {}})
    assert outcome.is_skipped


def test_a_round_is_skipped_when_fewer_than_half_are_heard() -> None:
    assert seal((A, B, C), {A: {A: "1", B: "2", C: "3"}}).is_skipped
    assert "heard 1 of 3" in seal((A, B, C), {A: {A: "1"}}).reason


def test_one_of_two_asleep_skips() -> None:
    assert seal((A, B), {A: {A: "1"}}).is_skipped


def test_strangers_have_no_voice() -> None:
    lists = {A: {A: "1", "x": "9"}, B: {A: "1", "x": "9"}, "x": {"x": "9"}}
    assert seal((A, B), lists).offers == {A: "1"}


SILENT = 10  # ticks


def voters(view: str, sealed: list[tuple[int, str]], tick: int) -> str:
    return "".join(sorted(quorum(list(view), sealed, tick, SILENT, {}).voting))


def test_a_voice_is_had_by_an_offer_that_was_sealed_and_not_by_a_record() -> None:
    assert voters("abxyz", [(1, "ab")], 2) == "ab"
    assert voters("abc", [(1, "ab"), (2, "abc")], 3) == "abc"
    assert voters("ax", [(1, "ab")], 2) == "a"  # whose record has ended is not there


def test_a_voice_is_lost_by_silence_in_so_many_sealed_rounds() -> None:
    silent = [(at, "ab") for at in range(2, 2 + SEATED_ROUNDS)]
    assert voters("abc", [(1, "abc"), *silent[:-1]], 9) == "abc"
    assert voters("abc", [(1, "abc"), *silent], 9) == "ab"


def test_when_nothing_is_sealed_for_long_nobody_has_a_voice() -> None:
    assert voters("abcd", [(3, "abcd")], 3 + SILENT) == "abcd"
    assert voters("abcd", [(3, "abcd")], 4 + SILENT) == ""
    assert voters("abcd", [], 1) == ""


def test_what_was_before_such_a_time_gives_no_voice_after_it() -> None:
    """Else those who are silent would stop the others again in the next round."""
    assert voters("abcd", [(3, "abcd"), (3 + SILENT, "ab")], 4 + SILENT) == "abcd"
    assert voters("abcd", [(3, "abcd"), (4 + SILENT, "ab")], 5 + SILENT) == "ab"


def test_steps_without_offers_are_no_measure_of_who_takes_part() -> None:
    assert voters("abc", [(1, "ab"), (2, ""), (3, "")], 4) == "ab"


def test_those_with_a_voice_decide_alone_and_seal_whom_they_name() -> None:
    lists = {A: {A: "1", B: "2", C: "3"}, B: {A: "1", B: "2", C: "3"}, "x": {D: "4"}, "y": {D: "4"}}
    assert seal((A, B, C, D, "x", "y"), lists, {A, B}).offers == {A: "1", B: "2", C: "3"}
    assert seal((A, B, C), {A: {A: "1", B: "2"}, C: {A: "1", B: "2"}}, {A, B}).is_skipped, "half is not a majority"
    assert seal((A, B, C), {A: {A: "1"}, C: {A: "1"}}, {A}).offers == {A: "1"}
    assert seal((A, B, C), {B: {A: "1"}, C: {A: "1"}}, {A}).cause == UNHEARD


def test_where_nobody_has_a_voice_those_who_are_heard_decide() -> None:
    lists = {A: {A: "1", B: "2", C: "3"}, B: {A: "1", B: "2", C: "3"}}
    assert seal((A, B, C, D), lists, ()).offers == {A: "1", B: "2"}, "not who offers, and gives no list"
    assert seal((A, B, C, D), {A: {A: "1"}}, ()).cause == UNHEARD, "one alone is no group"
    assert seal((A, B, C, D), {A: {A: "1"}, B: {B: "2"}}, ()).is_skipped


def test_of_a_divided_swarm_at_most_one_part_seals_until_it_has_stood_still_for_long() -> None:
    """Whatever parts it, and whoever took part in which of the last rounds."""
    chance, view = random.Random(3), "abcdef"
    for _ in range(500):
        past = [(at, "".join(p for p in view if chance.random() < 0.7)) for at in range(1, 6)]
        last = max((at for at, peers in past if peers), default=0)
        side = {peer: chance.random() < 0.5 for peer in view}
        for tick, most in ((last + SILENT, 1), (last + SILENT + 1, 2)):
            sealing = 0
            for here in (True, False):
                part = [peer for peer in view if side[peer] is here]
                held = {member: dict.fromkeys(part, "1") for member in part}
                deciding = quorum(list(view), past, tick, SILENT, {}).voting
                sealing += not seal(list(view), held, deciding).is_skipped
            assert sealing <= most or not last


def test_who_has_no_voice_is_named_once_it_has_given_a_list() -> None:
    named = quorum([A, B, C, D], [(1, [A, B])], 2, SILENT, {A: 3, C: 0, D: 1}).named
    assert named == {A, B, C}, "a voter that was not heard is named, too: its work counts"
    assert quorum([A, B, C], [], 2, SILENT, {}).named == {A, B, C}
    assert quorum([A, C, D], [(1, [A])], 2, SILENT, {D: 9}, [D, "x"]).named == {A, D}, "a voter vouches for it"


def test_who_is_silent_for_long_is_waited_for_now_and_then() -> None:
    def waited(rounds: int) -> bool:
        return B in quorum([A, B], [(1, [A])], 2, SILENT, {B: rounds}).awaited

    assert [waited(rounds) for rounds in (0, PATIENCE_ROUNDS - 1, PATIENCE_ROUNDS)] == [True, True, False]
    assert [waited(RETRY_ROUNDS + more) for more in (-1, 0, 1)] == [False, True, False]
    assert B in quorum([A, B], [(1, [A, B])], 2, SILENT, {B: PATIENCE_ROUNDS}).awaited, "who votes is waited for"


def chain(*digests: str) -> list[Mark]:
    return [Mark(version, digest) for version, digest in enumerate(digests)]


def test_equal_histories_need_nothing() -> None:
    standing = compare(A, [A, B], {A: chain("p", "q"), B: chain("p", "q")})
    assert standing.follow is None and not standing.merge


def test_who_is_late_follows_whoever_went_on() -> None:
    histories = {A: chain("p"), B: chain("p", "q"), C: chain("p", "q"), D: chain("p")}
    assert compare(A, list(histories), histories).follow == Mark(1, "q")
    assert compare(A, list(histories), histories).sources == (B, C)
    assert compare(B, list(histories), histories).follow is None
    two = {A: chain("p"), B: chain("p", "q")}
    assert compare(A, list(two), two).follow == Mark(1, "q"), "of two, each believes the other"
    assert compare(B, list(two), two).follow is None


@pytest.mark.parametrize(("members", "alone"), [(3, 1), (4, 1), (9, 1), (10, 2), (15, 3)])
def test_where_too_few_stand_nobody_follows(members: int, alone: int) -> None:
    """One in five may be hostile: what so few claim, with whatever behind it, counts for nothing."""
    view = [f"m{number:02}" for number in range(members)]
    for claimed in (chain("o", "p", "q"), chain("o", "q"), chain("q"), [Mark(7, "q")]):
        histories = {m: claimed if m in view[:alone] else chain("o", "p") for m in view}
        for member in view[alone:]:
            assert compare(member, view, histories) == Standing()
        there, is_ahead = compare(view[0], view, histories), Mark(1, "p") in claimed
        assert there == (Standing() if is_ahead else Standing(follow=Mark(1, "p"), sources=tuple(view[alone:])))
        gone_on = {m: [*marks, Mark(9, "s")] if m in view[alone:] else marks for m, marks in histories.items()}
        assert compare(view[0], view, gone_on).follow == Mark(9, "s"), "who was there comes back"
        one_more = {**histories, view[alone]: claimed}
        if len(claimed) == 3:
            assert compare(view[-1], view, one_more).follow == Mark(2, "q"), "so many may be right"


def test_who_is_further_than_the_others_in_a_row_are_met_where_two_were() -> None:
    histories = {A: chain("p", "q", "r"), B: chain("p", "q"), C: chain("p")}
    assert [compare(m, list(histories), histories).follow for m in (A, B, C)] == [None, None, Mark(1, "q")]
    assert compare(C, list(histories), histories).sources == (B,)


def test_where_nothing_has_witnesses_it_is_as_if_all_had() -> None:
    histories = {A: chain("x"), B: chain("y"), C: chain("z")}
    assert len(compare(A, list(histories), histories).merge) == 3


def test_of_histories_that_parted_the_majority_is_followed() -> None:
    histories = {A: chain("p", "x"), B: chain("p", "q"), C: chain("p", "q")}
    assert compare(A, list(histories), histories).follow == Mark(1, "q")
    assert compare(B, list(histories), histories).follow is None


def test_without_a_majority_all_compute_the_same_merge() -> None:
    histories = {A: chain("p", "x"), B: chain("p", "x"), C: chain("p", "q"), D: chain("p", "q")}
    merges = {compare(member, list(histories), histories).merge for member in (A, B, C, D)}
    assert merges == {((Mark(1, "q"), (C, D)), (Mark(1, "x"), (A, B)))}


def test_where_somebody_was_not_heard_nobody_merges() -> None:
    """A leaf that hears the hub alone, of three: the hub and the one that it does not hear are the majority."""
    histories = {A: chain("p", "x"), B: chain("p", "q"), C: chain("p", "q")}
    leaf = compare(A, [A, B, C], {A: histories[A], B: histories[B]})
    assert leaf.follow == Mark(1, "q") and leaf.sources == (B,) and not leaf.merge
    assert compare(B, [A, B, C], histories).follow is None
    for silent in (compare(m, [A, B, D], {A: histories[A], B: histories[B]}) for m in (A, B)):
        assert not silent.merge and silent.follow in (None, Mark(1, "q"))  # both take the same one


def test_a_leaf_that_hears_the_hub_alone_comes_back_to_the_others() -> None:
    view, hears = [A, B, C], {A: (A, B), B: (A, B, C), C: (B, C)}
    histories = {A: chain("p", "x"), B: chain("p", "q"), C: chain("p", "q")}

    def stepped(past: list[Mark], standing: Standing) -> list[Mark]:
        tips = "".join(tip.digest for tip, _ in standing.merge) or past[-1].digest
        return [*past, Mark(past[-1].version + 1, hashlib.sha256(tips.encode()).hexdigest())]

    for _ in range(20):
        before = dict(histories)
        for me in view:
            standing = compare(me, view, {member: before[member] for member in hears[me]})
            histories[me] = stepped(before[standing.sources[0] if standing.follow else me], standing)
    assert histories[A][-1] == histories[B][-1] == histories[C][-1]


def test_members_that_contradict_each_other_change_nothing() -> None:
    liar = [Mark(1, "q"), Mark(0, "p")]
    assert compare(A, [A, B], {A: chain("p", "q"), B: liar}).follow is None


def test_whatever_lists_are_lost_no_two_members_seal_different_offers_of_one_peer() -> None:
    chance, view = random.Random(0), "abcde"
    sealed = 0
    for _ in range(500):
        held = {m: {p: chance.choice("12") for p in view if chance.random() < 0.8} for m in view}  # b may sign two
        outcomes = []
        for me in view:
            heard = {m: held[m] for m in view if m == me or chance.random() < 0.8}
            outcome = seal(view, heard)
            assert outcome.is_skipped == (not outcome.offers)
            assert all(2 * sum(h.get(p) == o for h in heard.values()) > len(view) for p, o in outcome.offers.items())
            outcomes.append(outcome.offers)
        named = {(peer, offer) for offers in outcomes for peer, offer in offers.items()}
        assert len(named) == len(dict(named))
        sealed += len(named)
    assert sealed > 500


def test_what_is_decided_no_list_changes_any_more() -> None:
    chance, view = random.Random(0), "abcdef"
    early = 0
    for _ in range(2000):
        voting = chance.sample(view, chance.randint(0, 6))
        held = {m: {p: chance.choice("112") for p in view if chance.random() < 0.8} for m in view}
        heard = {m: held[m] for m in view if chance.random() < 0.7}
        if is_decided(view, heard, voting):
            assert seal(view, heard, voting).offers == seal(view, held, voting).offers != {}
            early += len(heard) < len(view)
    assert early > 100


@pytest.mark.parametrize(
    ("names", "decided"), [("xxx", True), ("xx", False), ("xx--", False), ("x---", True), ("xx---", True)]
)
def test_a_round_is_decided_when_the_unheard_can_make_no_majority(names: str, decided: bool) -> None:
    """Five voters: with three names an offer counts; with two it may yet, while one is unheard."""
    lists = {
        member: {A: "y"} if name == "-" else {A: "y", B: name} for member, name in zip("abcde", names, strict=False)
    }
    assert is_decided("abcde", lists, "abcde") is decided


def test_who_has_no_history_yet_waits() -> None:
    assert compare(A, [A, B], {B: chain("p", "q"), C: chain("p")}).follow is None
    assert compare(A, [A, B], {A: [], B: chain("p")}).follow is None


def test_histories_become_one_whatever_parts_them() -> None:
    """Members take steps that part them, and lose lists; once all are heard, one repair each makes them equal.

    But for who is ahead of them alone: it follows when they have taken a step without it.
    """
    chance, members = random.Random(1), "abcde"
    parted = merged = lone = 0
    for _ in range(200):
        histories = {member: chain("p") for member in members}
        for version in range(1, chance.randrange(2, 6)):
            for member in members:
                if chance.random() < 0.7:
                    mark = Mark(histories[member][-1].version + 1, f"{version}{chance.choice('xyyy')}")
                    histories[member] = [*histories[member], mark][-MARKS:]
        tips = {marks[-1] for marks in histories.values()}
        after, ahead = set(), []
        for member in members:
            standing = compare(member, list(histories), histories)
            if standing == Standing() and sum(histories[member][-1] in marks for marks in histories.values()) == 1:
                ahead.append(histories[member])
                continue
            if standing.follow is not None:
                assert all(standing.follow in histories[source] for source in standing.sources)
            after.add(standing.merge or standing.follow or histories[member][-1])
        parted += len(tips) > 1
        merged += any(isinstance(outcome, tuple) for outcome in after)
        assert len(after) == 1
        lone += len(ahead)
        assert all(mark in marks for mark in after for marks in ahead)
    assert lone > 20 and parted > 150 and merged > 10
