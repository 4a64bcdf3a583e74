from collections import Counter
from dataclasses import dataclass

import pytest

from dht.leases import assign, choose_shards, choose_sub_model, keepers, next_turn

NAMES = tuple(f"expert.{k}" for k in range(6))
PEERS = [f"peer{k}" for k in range(20)]


@dataclass(frozen=True)
class Slice:
    content_id: str


@pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 20])
def test_assign_is_even_and_the_same_for_all(count: int) -> None:
    taken = assign(PEERS[:count], NAMES, seed=3)
    assert taken == assign(reversed(PEERS[:count]), NAMES, seed=3)
    loads = Counter(dict.fromkeys(NAMES, 0)) + Counter()
    loads.update(taken.values())
    assert sum(loads.values()) == count
    assert max(loads.values(), default=0) - min((loads[name] for name in NAMES), default=0) <= 1


def test_a_peer_takes_the_fewest_holders_then_the_youngest() -> None:
    holders = {"expert.0": {"a", "b"}, "expert.1": {"c"}, "expert.2": {"d"}}
    ages = {"expert.0": 1, "expert.1": 20, "expert.2": 10}
    assert choose_sub_model(holders, ages, "e", seed=0) == "expert.2"
    assert choose_sub_model(holders, ages, "c", seed=0) == "expert.1"  # its own hold does not count against it
    spread = {choose_sub_model({name: set() for name in NAMES}, {}, peer, seed=0) for peer in PEERS}
    assert len(spread) > 3


def test_two_boxes_train_six_experts_in_turn() -> None:
    ages = dict.fromkeys(NAMES, 0)
    current = {"a": "expert.0", "b": "expert.1"}
    trained: Counter[str] = Counter()
    for _ in range(30):
        for name in current.values():
            ages[name] += 10
            trained[name] += 1
        holders = {name: {peer for peer, own in current.items() if own == name} for name in NAMES}
        turns = {peer: next_turn(own, holders, ages, peer) for peer, own in current.items()}
        current = {peer: turns[peer] or own for peer, own in current.items()}
        assert len(set(current.values())) == 2
    assert max(trained.values()) - min(trained[name] for name in NAMES) <= 1


def test_a_peer_moves_only_for_a_reason() -> None:
    alone = {"m.0": {"a"}, "m.1": {"b"}}
    assert next_turn("m.0", alone, {"m.0": 9, "m.1": 1}, "a") is None  # nothing is free
    free = {"m.0": {"a"}, "m.1": {"b"}, "m.2": set[str]()}
    assert next_turn("m.0", free, {"m.0": 1, "m.1": 1, "m.2": 5}, "a") is None  # the free one is older
    crowded = {"m.0": {"a", "b", "c"}, "m.1": set[str]()}
    turns = [next_turn("m.0", crowded, {"m.0": 1, "m.1": 5}, peer) for peer in "abc"]
    assert sorted(turns, key=str) == [None, None, "m.1"]  # exactly one can be spared


def test_shards_that_fewest_have_are_taken_first() -> None:
    shards = [Slice(f"{k:02x}") for k in range(8)]
    leased = {shard.content_id: 2 for shard in shards[:5]}
    assert set(choose_shards(shards, leased, 3, seed="a")) == set(shards[5:])
    assert choose_shards(shards, {}, 100, seed="a") != choose_shards(shards, {}, 100, seed="b")
    assert len(choose_shards(shards, {}, 100, seed="a")) == 8


def test_keepers_fill_up_the_copies_and_seldom_change() -> None:
    holders = PEERS[:1]
    chosen = keepers("expert.1", holders, PEERS, copies=3)
    assert len(chosen) == 2
    assert not set(chosen) & set(holders)
    assert keepers("expert.1", PEERS[:3], PEERS, copies=3) == ()
    assert keepers("expert.1", holders, holders, copies=3) == ()
    gone = next(peer for peer in PEERS[1:] if peer not in chosen)
    assert keepers("expert.1", holders, [p for p in PEERS if p != gone], copies=3) == chosen
    assert len({keepers(name, holders, PEERS, copies=3) for name in NAMES}) > 1
