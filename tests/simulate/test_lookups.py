"""The look-ups of a simulated DHT: they find what there is, and cost little more among many nodes."""

import itertools
from statistics import fmean

import pytest

from peer.simulate.lookups import BUCKET, REPLICAS, Kademlia, node_id


def names(count: int) -> list[str]:
    return [f"peer{number}" for number in range(count)]


@pytest.mark.parametrize(("left", "unknown"), [(0, 1), (200, 4)])  # nodes that nobody on the way knows
def test_a_search_finds_the_nearest_nodes_that_answer(left: int, unknown: int) -> None:
    dht = Kademlia(names(600), [f"gone{number}" for number in range(left)], seed=0)
    for key in map(node_id, ("a", "b", "c", "d")):
        nearest = sorted((node_id(name) for name in names(600)), key=lambda node: node ^ key)[:BUCKET]
        _, found = dht.search(node_id("peer7"), key)
        assert len(set(found) & set(nearest)) >= BUCKET - unknown


def test_few_nodes_are_all_asked() -> None:
    dht = Kademlia(names(8), (), seed=0)
    assert dht.fetch("peer0", "key") == 7
    assert dht.store("peer0", "key") == 7 + REPLICAS


def test_the_cost_of_a_look_up_grows_like_the_logarithm() -> None:
    def cost(count: int) -> float:
        dht = Kademlia(names(count), (), seed=0)
        return fmean(dht.fetch(f"peer{number}", f"key{number}") for number in range(30))

    costs = [cost(count) for count in (100, 1000, 10_000)]
    assert all(BUCKET <= one < 2 * BUCKET for one in costs)
    assert all(after - before < 3 for before, after in itertools.pairwise(costs))  # for ten times the nodes


def test_nodes_that_have_left_cost_questions() -> None:
    calm = Kademlia(names(500), (), seed=0)
    churned = Kademlia(names(500), [f"gone{number}" for number in range(250)], seed=0)
    asked = [fmean(dht.fetch(f"peer{n}", f"key{n}") for n in range(20)) for dht in (calm, churned)]
    assert asked[1] > 1.2 * asked[0]
