"""Buckets, what they stay when views differ, and how peers that see one bucket each agree on their number."""

import random
from collections import Counter, defaultdict
from statistics import mean

import pytest

from protocols.grouping import (
    ALONE,
    DRAWN_BITS,
    MAX_SOUGHT,
    Census,
    begin,
    bits_for,
    counted_share,
    draw,
    fragment_of,
    group,
    revised,
    sought,
)

RUN, BLOCK, SIZE = "0" * 32, "model", 8


def peers(count: int) -> list[str]:
    return [f"peer{number}" for number in range(count)]


def drawn(names: list[str], tick: int = 7) -> dict[str, str]:
    return {name: draw(RUN, BLOCK, tick, name) for name in names}


def buckets(draws: dict[str, str], bits: int) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name, bits_drawn in draws.items():
        found[bits_drawn[:bits]][name] = bits_drawn
    return found


def test_a_draw_depends_on_everything_that_it_is_drawn_from() -> None:
    said = (RUN, BLOCK, 7, "a", "n")
    draws = [draw(*said), draw("1" * 32, *said[1:]), draw(RUN, "trunk", 7, "a", "n"), draw(RUN, BLOCK, 8, "a", "n")]
    draws += [draw(RUN, BLOCK, 7, "b", "n"), draw(RUN, BLOCK, 7, "a")]
    assert len(set(draws)) == 6 and draw(*said) == draws[0]
    assert {len(bits) for bits in draws} == {DRAWN_BITS} and set("".join(draws)) == {"0", "1"}


def test_views_that_differ_by_one_peer_have_all_other_buckets_the_same() -> None:
    names = peers(1000)
    one, two = buckets(drawn(names), 7), buckets(drawn([*names[:500], *names[501:], "newcomer"]), 7)
    changed = {draw(RUN, BLOCK, 7, "newcomer")[:7], draw(RUN, BLOCK, 7, names[500])[:7]}
    assert {prefix for prefix in one if one[prefix] != two[prefix]} == changed


def test_prefixes_nest() -> None:
    draws = drawn(peers(500))
    wide, narrow = buckets(draws, 5), buckets(draws, 6)
    for prefix, members in wide.items():
        assert members == narrow.get(prefix + "0", {}) | narrow.get(prefix + "1", {})


def test_who_meets_whom_changes_with_every_tick() -> None:
    names = peers(1000)
    mates = [Counter(group(names[0], drawn(names, tick), 7, SIZE)) for tick in range(20)]
    assert sum(mates, Counter()).most_common(2)[1][1] <= 3


def test_groups_are_near_their_size_and_never_above_twice_it() -> None:
    for count in (16, 100, 300, 1000):
        names, bits = peers(count), bits_for(count, SIZE)
        sizes = []
        for tick in range(10):
            for members in buckets(drawn(names, tick), bits).values():
                parts = {group(me, members, bits, SIZE) for me in members}
                assert sorted(peer for part in parts for peer in part) == sorted(members)
                sizes += [len(part) for part in parts]
        print(count, bits, sorted(Counter(sizes).items()))
        assert max(sizes) <= 2 * SIZE
        assert SIZE / 2 <= count / 2**bits <= 9 / 8 * SIZE
        in_tiny = sum(size for size in sizes if size <= 2) / sum(sizes)
        assert in_tiny < 0.1


def test_a_crowded_bucket_is_parted_by_all_its_members_alike() -> None:
    names = peers(100)
    draws = drawn(names)
    parts = {group(me, draws, 0, SIZE) for me in names}
    assert sorted(peer for part in parts for peer in part) == sorted(names)
    assert max(map(len, parts)) <= 2 * SIZE


def test_a_stranger_to_the_bucket_is_left_out() -> None:
    draws = {"a": "0" * DRAWN_BITS, "b": "00" + "1" * (DRAWN_BITS - 2), "c": "1" * DRAWN_BITS}
    assert group("a", draws, 2, SIZE) == ("a", "b")


@pytest.mark.parametrize("fragments", [1, 2, 16, 64])
@pytest.mark.parametrize("ticks", [1, 2, 8, 32, 256])
def test_each_fragment_is_sent_in_its_turn_whatever_the_length_of_a_round(fragments: int, ticks: int) -> None:
    turns = [fragment_of(ticks * number, fragments) for number in range(8 * fragments)]
    for start in range(0, len(turns), fragments):
        assert sorted(turns[start : start + fragments]) == list(range(fragments))


def test_the_number_of_bits_goes_by_factors_of_two() -> None:
    assert [bits_for(count, SIZE) for count in (0, 1, 9, 10, 16, 18, 19, 36, 37, 10_000)] == [
        0, 0, 0, 1, 1, 1, 2, 2, 3, 11,
    ]  # fmt: skip


def test_bits_do_not_change_at_a_border_by_chance() -> None:
    census = Census(18.0, 18.0, 1)
    assert revised(census, {1: [18.5] * 9}, [18.5, 19.0, 18.7], SIZE).bits == 1  # the range ends at 18
    assert revised(census, {1: [21.0] * 9}, [21.0, 21.0, 21.0], SIZE).bits == 2


def test_one_liar_does_not_move_the_number_of_bits() -> None:
    census = begin(64.0, SIZE)
    after = revised(census, {3: [64.0] * 7}, [64.0, 60.0, 1e9, 66.0, 63.0], SIZE)
    assert after.bits == 3 and after.agreed == 64.0


def test_one_group_sees_everybody() -> None:
    assert revised(begin(2.0, SIZE), {0: [2.0] * 7}, [2.0, 2.0], SIZE) == Census(8.0, 8.0, 0)
    assert revised(begin(2.0, SIZE), {0: [2.0] * 11}, [2.0, 2.0], SIZE).bits == 1


def test_who_has_strayed_goes_where_the_others_are() -> None:
    """All others have gone over to one bit more; a peer that stayed sees nobody, and does not take itself for all."""
    census = begin(60.0, SIZE)
    assert sought(census, {3: [60.0] * 3}) == []
    assert sought(census, {3: []}) == [2, 4]
    found = {3: [], 2: [], 4: [66.0, 70.0, 68.0]}
    assert sought(census, found) == []
    assert revised(census, found, [60.0], SIZE) == Census(68.0, 68.0, 4)


def test_who_finds_nobody_for_long_looks_everywhere() -> None:
    census, nobody = begin(60.0, SIZE), {3: [], 2: [], 4: []}
    assert sought(census, nobody) == []
    for _ in range(ALONE):
        census = revised(census, {max(0, census.bits + near): [] for near in (-1, 0, 1)}, [census.holders], SIZE)
    assert census.holders < 60.0 and census.alone == ALONE
    here = {census.bits: [], census.bits - 1: [], census.bits + 1: []}
    everywhere = sought(census, here)
    assert set(everywhere) | here.keys() == set(range(MAX_SOUGHT))
    found = here | {bits: [] for bits in everywhere} | {8: [1250.0] * 5}
    assert sought(census, found) == []
    assert revised(census, found, [census.holders], SIZE) == Census(1250.0, 1250.0, 8)


def let_them_count(count: int, rounds: int, told: float) -> list[tuple[Census, int]]:
    """A swarm in which each peer sees its own bucket; returns the last censuses and how many keys each has read."""
    chance = random.Random(count)
    names = peers(count)
    census = {name: begin(told, SIZE) for name in names}
    reads = Counter(names)
    for tick in range(rounds):
        draws = drawn(names, tick)
        listed: dict[str, list[str]] = defaultdict(list)
        for name in names:
            listed[draws[name][: census[name].bits]].append(name)
        before = dict(census)
        chance.shuffle(names)
        for name in names:
            mine = before[name]
            members = listed[draws[name][: mine.bits]]
            found = {mine.bits: [before[member].holders for member in members if member != name]}
            reads[name] += 1
            while more := sought(mine, found):
                for bits in more:
                    others = listed.get(draws[name][:bits], [])
                    found[bits] = [before[other].holders for other in others if other != name]
                    reads[name] += 1
            census[name] = revised(mine, found, [before[member].holders for member in members], SIZE)
    return [(census[name], reads[name] - 1) for name in names]


@pytest.mark.parametrize(("count", "told"), [(16, 16.0), (100, 100.0), (500, 500.0), (500, 60.0), (500, 4000.0)])
def test_peers_that_see_one_bucket_each_agree_on_their_number(count: int, told: float) -> None:
    rounds = 60
    last = let_them_count(count, rounds, told)
    estimates = [census.holders for census, _ in last]
    bits = Counter(census.bits for census, _ in last)
    print(count, told, mean(estimates), bits, mean(reads for _, reads in last) / rounds)
    assert mean(estimates) == pytest.approx(count, rel=0.25)
    assert bits.most_common(1)[0][1] >= 0.95 * count
    # From a wrong start they have to look around; then hardly ever.
    assert mean(reads for _, reads in last) / rounds < (1.3 if told == count else 1.8)


def test_what_fewer_members_have_counts_less_and_all_of_it_counts_once() -> None:
    sealed = {"a": "1", "b": "2", "c": "3"}
    lists = {
        "a": {"a": "1", "b": "2"},
        "b": {"a": "1", "b": "2", "c": "other"},
        "c": {"a": "1", "b": "2", "c": "3"},
        "d": {"a": "1", "c": "3"},
    }
    shares = {peer: counted_share(peer, sealed, lists) for peer in (*sealed, "d")}
    assert shares == {"a": pytest.approx(12 / 9), "b": pytest.approx(1.0), "c": pytest.approx(6 / 9), "d": 0.0}
    everything = dict.fromkeys("abc", sealed)
    assert [counted_share(peer, sealed, everything) for peer in sealed] == [1.0] * 3


def test_one_stranger_does_not_make_a_small_bucket_a_crowd_of_millions() -> None:
    census = Census(30.0, 30.0, 1)
    one = revised(census, {1: [2.0**32]}, [30.0, 2.0**32], SIZE)
    strayed = revised(census, {1: [], 0: [2.0**32]}, [30.0], SIZE)
    assert one.agreed <= 256 and strayed.agreed <= 128
    assert max(one.bits, strayed.bits) <= 5
