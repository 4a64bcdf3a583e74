"""Whom a holder has heard: how long the others have been silent, and when it is left alone."""

from peer.block.hearing import MAX_REMEMBERED, Hearing


def ended(hearing: Hearing, round_: int, view: list[str], *heard: str) -> None:
    hearing.ended(round_, view, dict.fromkeys(heard, ()), ())


def test_silence_is_counted_in_rounds_of_the_view_and_ends_with_a_word() -> None:
    hearing = Hearing("me")
    ended(hearing, 1, ["a", "b", "me"], "me", "a")
    ended(hearing, 2, ["a", "b", "me"], "me")
    ended(hearing, 3, ["a", "me"], "me", "a")  # of another stride, b is in every second round
    assert hearing.silence == {"a": 0, "b": 2}
    ended(hearing, 4, ["a", "b", "me"], "me", "b")
    assert hearing.silence == {"a": 1, "b": 0}


def test_a_peer_is_left_when_nobody_has_been_heard_for_longer_than_that() -> None:
    hearing = Hearing("me")
    ended(hearing, 1, ["a", "me"], "me", "a")
    for round_ in range(2, 12):
        ended(hearing, round_, ["a", "me"], "me")
    assert not hearing.is_left(12, 10) and hearing.is_left(13, 10)
    ended(hearing, 13, ["a", "me"], "me", "a")
    assert not hearing.is_left(30, 10)
    ended(hearing, 30, ["a", "me"], "me", "stranger")
    assert hearing.is_left(41, 10), "who is not in the view is not company"


def test_not_every_name_is_remembered_for_ever() -> None:
    hearing = Hearing("me")
    for round_ in range(3 * MAX_REMEMBERED):
        ended(hearing, round_, [f"peer{round_}", "me"], "me")
    assert len(hearing.silence) <= MAX_REMEMBERED + 1


def test_who_can_be_heard_by_another_voter_alone_is_vouched_for() -> None:
    """Not by itself, not by who has no voice, and not for longer than it is named."""
    hearing, view = Hearing("me"), ["a", "b", "c", "me"]
    hearing.ended(1, view, {"me": ["me"], "a": ["a", "c"], "b": ["b"]}, {"me", "a"})
    assert hearing.vouched == {"c"}
    hearing.ended(2, view, {"me": ["c"], "a": ["a"], "b": ["b", "c"]}, {"me", "a"})
    assert hearing.vouched == set()
