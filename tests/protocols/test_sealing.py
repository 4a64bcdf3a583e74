"""Which offers count and whose history is followed: the rules, one by one."""

import hashlib
import random

from protocols.sealing import MARKS, Mark, Standing, compare, seal

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


def chain(*digests: str) -> list[Mark]:
    return [Mark(version, digest) for version, digest in enumerate(digests)]


def test_equal_histories_need_nothing() -> None:
    standing = compare(A, [A, B], {A: chain("p", "q"), B: chain("p", "q")})
    assert standing.follow is None and not standing.merge


def test_who_is_late_follows_whoever_went_on() -> None:
    histories = {A: chain("p"), B: chain("p", "q"), C: chain("p")}
    assert compare(A, list(histories), histories).follow == Mark(1, "q")
    assert compare(A, list(histories), histories).sources == (B,)
    assert compare(B, list(histories), histories).follow is None


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


def test_who_has_no_history_yet_waits() -> None:
    assert compare(A, [A, B], {B: chain("p", "q"), C: chain("p")}).follow is None
    assert compare(A, [A, B], {A: [], B: chain("p")}).follow is None


def test_histories_become_one_whatever_parts_them() -> None:
    """Members take steps that part them, and lose lists; once all are heard, one repair each makes them equal."""
    chance, members = random.Random(1), "abcde"
    parted = merged = 0
    for _ in range(200):
        histories = {member: chain("p") for member in members}
        for version in range(1, chance.randrange(2, 6)):
            for member in members:
                if chance.random() < 0.7:
                    mark = Mark(histories[member][-1].version + 1, f"{version}{chance.choice('xyyy')}")
                    histories[member] = [*histories[member], mark][-MARKS:]
        tips = {marks[-1] for marks in histories.values()}
        after = set()
        for member in members:
            standing = compare(member, list(histories), histories)
            if standing.follow is not None:
                assert all(histories[source][-1] == standing.follow for source in standing.sources)
            after.add(standing.merge or standing.follow or histories[member][-1])
        parted += len(tips) > 1
        merged += any(isinstance(outcome, tuple) for outcome in after)
        assert len(after) == 1
    assert parted > 150 and merged > 20
