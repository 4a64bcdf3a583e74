"""Whom a holder has heard: how long the others have been silent, and when it is left alone."""

from peer.block.hearing import MAX_REMEMBERED, Hearing


def test_silence_is_counted_in_rounds_of_the_view_and_ends_with_a_word() -> None:
    hearing = Hearing("me")
    hearing.ended(1, ["a", "b", "me"], {"me", "a"})
    hearing.ended(2, ["a", "b", "me"], {"me"})
    hearing.ended(3, ["a", "me"], {"me", "a"})  # of another stride, b is in every second round
    assert hearing.silence == {"a": 0, "b": 2}
    hearing.ended(4, ["a", "b", "me"], {"me", "b"})
    assert hearing.silence == {"a": 1, "b": 0}


def test_a_peer_is_left_when_nobody_has_been_heard_for_longer_than_that() -> None:
    hearing = Hearing("me")
    hearing.ended(1, ["a", "me"], {"me", "a"})
    for round_ in range(2, 12):
        hearing.ended(round_, ["a", "me"], {"me"})
    assert not hearing.is_left(12, 10) and hearing.is_left(13, 10)
    hearing.ended(13, ["a", "me"], {"me", "a"})
    assert not hearing.is_left(30, 10)
    hearing.ended(30, ["a", "me"], {"me", "stranger"})
    assert hearing.is_left(41, 10), "who is not in the view is not company"


def test_not_every_name_is_remembered_for_ever() -> None:
    hearing = Hearing("me")
    for round_ in range(3 * MAX_REMEMBERED):
        hearing.ended(round_, [f"peer{round_}", "me"], {"me"})
    assert len(hearing.silence) <= MAX_REMEMBERED + 1
