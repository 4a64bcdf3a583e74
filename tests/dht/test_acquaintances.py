"""Whom a peer knows, and whom it dials: no flood of names crowds out who is known, or keeps it dialling."""

from itertools import pairwise

from dht.acquaintances import MAX_DIALS, MAX_MET, PAUSE_S, TRIALS, TRIALS_S, TRIES, Acquaintances

NAMES = [f"name{number}" for number in range(420)]


def test_who_was_connected_or_took_part_is_known() -> None:
    peers = Acquaintances("me")
    peers.met(["friend"])
    peers.took_part = {"partner"}
    assert [peer for peer in ("me", "friend", "partner", "name") if peers.knows(peer)] == ["me", "friend", "partner"]
    peers.met(str(number) for number in range(MAX_MET))
    assert not peers.knows("friend") and peers.knows("partner")


def test_known_peers_are_looked_at_and_dialled_before_any_number_of_names() -> None:
    peers = Acquaintances("me")
    peers.met(["friend"])
    assert peers.in_turn([*NAMES, "friend"], 5)[0] == "friend"
    assert peers.to_dial([*NAMES, "friend"], 0.0)[0] == "friend"


def test_which_names_come_first_is_another_draw_at_every_tick() -> None:
    peers = Acquaintances("me")
    first = {peers.in_turn(NAMES, tick)[0] for tick in range(20)}
    assert len(first) > 10


def test_names_are_dialled_at_a_bounded_rate() -> None:
    peers, dialled = Acquaintances("me"), 0
    for second in range(100):
        dialled += len(peers.to_dial(NAMES, float(second)))
    assert TRIALS * 9 <= dialled <= TRIALS * (100 / TRIALS_S + 1)


def test_a_name_is_given_up_after_so_many_tries_and_believed_again_when_it_connects() -> None:
    peers, at = Acquaintances("me"), []
    for second in range(2000):
        at += [second] * len(peers.to_dial(["name"], float(second)))
    pauses = [later - earlier for earlier, later in pairwise(at)]
    assert len(at) == TRIES and pauses[:3] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S]
    assert peers.has_given_up("name")
    peers.met(["name"])
    assert not peers.has_given_up("name")


def test_known_peers_are_dialled_again_for_ever_some_at_a_time() -> None:
    peers, many = Acquaintances("me"), [str(number) for number in range(3 * MAX_DIALS)]
    peers.met(many)
    assert len(peers.to_dial(many, 0.0)) == MAX_DIALS
    assert len(peers.to_dial(many, 1.0)) == MAX_DIALS
    for second in range(0, 100_000, 1000):
        assert peers.to_dial(["1"], 100.0 + second) == ["1"]
