"""What has happened is what differs between two statuses."""

from status_example import example

from peer.http.status import BlockStatus, Status
from shoal.events import Event, events_between

STATUS = example()


def later(**changes: object) -> Status:
    return STATUS.model_copy(update=changes)


def test_the_first_status_tells_what_the_peer_does_and_what_it_has_seen() -> None:
    found = events_between(None, later(events=["12:00:00 joined"], blocks=[], tick=7))
    assert found == [Event("state", 7, STATUS.state), Event("news", 7, "12:00:00 joined")]


def test_a_round_is_told_once() -> None:
    block = BlockStatus(block="model", holders=[], keepers=[], version=3, last_round=9, outcome="sealed 2 of 2")
    before, after = later(blocks=[]), later(blocks=[block])
    assert events_between(before, after) == [Event("round", 9, "sealed 2 of 2", "model", 3)]
    assert events_between(after, after) == []


def test_of_a_list_that_forgets_its_oldest_only_the_end_is_new() -> None:
    before, after = later(events=["a", "b", "b"]), later(events=["b", "b", "c"])
    assert [event.text for event in events_between(before, after)] == ["c"]
    assert [event.text for event in events_between(after, later(events=["x", "y"]))] == ["x", "y"]
