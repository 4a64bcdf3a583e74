"""What a peer does, and what it may do next."""

import asyncio

import pytest

from configs.errors import UsageError
from peer.member.activity import FROM, Activity, State


@pytest.fixture
def activity() -> Activity:
    return Activity(asyncio.Event())


def test_a_life(activity: Activity) -> None:
    seen = [activity.state]
    for step in (activity.download, activity.train, activity.pause, activity.resume, activity.change, activity.serve):
        step()
        seen.append(activity.state)
    activity.leave()
    assert [*seen, activity.state] == [
        "starting", "downloading", "training", "paused", "training", "changing", "serving", "leaving",
    ]  # fmt: skip


@pytest.mark.parametrize("before", ["download", "change"])
def test_a_pause_holds_through_whatever_begins(activity: Activity, before: str) -> None:
    """At a start, and in the midst of a change of sub-model."""
    activity.download()
    if before == "change":
        activity.train()
        activity.change()
    activity.pause()
    assert activity.state in ("downloading", "changing")
    activity.train()
    assert activity.state == "paused" and not activity.takes_part()
    activity.resume()
    assert activity.takes_part()


def test_what_is_not_allowed_is_a_defect_that_is_seen(activity: Activity) -> None:
    with pytest.raises(RuntimeError, match="a peer that is starting cannot become training"):
        activity.train()
    activity.leave()
    for step in (activity.download, activity.train, activity.serve, activity.change, activity.leave):
        with pytest.raises(RuntimeError):
            step()


def test_who_leaves_can_neither_pause_nor_go_on(activity: Activity) -> None:
    activity.leaving.set()
    for step in (activity.pause, activity.resume):
        with pytest.raises(UsageError, match="this peer is leaving"):
            step()


def test_prompts_are_declined_with_the_reason(activity: Activity) -> None:
    assert activity.declines() == ""
    activity.pause()
    assert activity.declines() == "it is paused"
    activity.leaving.set()
    assert activity.declines() == "it is leaving"


def test_every_state_can_be_left_and_reached() -> None:
    assert set(FROM) == set(State) - {State.STARTING}
    assert all(FROM[state] for state in FROM)
