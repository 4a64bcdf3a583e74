"""A state is vouched for by those who should know; who may ask for one to be kept follows from the records."""

from typing import Any

import pytest

from configs.errors import PeerError
from peer.block.keeping import KeepRules, vouched
from protocols.state import BlockState


def named(text: str) -> list[BlockState]:
    """Return what sources name, each as a letter for the digest and a version."""
    facts: dict[str, Any] = {"block": "model", "round": 0, "age": 0, "size_bytes": 1, "is_final": False}
    return [
        BlockState(**facts, version=int(word[1:]), content_id=word[0].encode().hex().zfill(64)) for word in text.split()
    ]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ("a100", "a100"),
        ("a100 b101", "b101"),  # of two, none can vouch against the other
        ("a100 a100 f9999", "a100"),  # a stranger that claims more than all others
        ("f9999 b99 a100", "a100"),  # they are in the middle of a round, or replicas differ
        ("a100 b99 b99", "b99"),
        ("a100 a100 a100 f9999 f9999", "a100"),
        ("f9999 a100 b99 c98 d97", "b99"),
        ("a100 b100 b100 c100", "b100"),
        ("a100 f100 a9999", "a100"),  # a true digest with another version
    ],
)
def test_the_newest_state_is_the_one_that_a_majority_has_reached(sources: str, expected: str) -> None:
    assert vouched(named(sources)) == named(expected)[0]
    assert vouched(named(sources)[::-1]) == named(expected)[0]


def test_only_a_holder_may_ask_and_only_a_keeper_keeps() -> None:
    KeepRules().check("model", "anybody")
    duties = KeepRules(lambda block: ("a", "b"), is_keeper=lambda block, gone: gone == "a")
    duties.check("model", "a")
    with pytest.raises(PeerError, match="c neither holds nor keeps model"):
        duties.check("model", "c")
    with pytest.raises(PeerError, match="none of the keepers"):
        duties.check("model", "b")
    KeepRules(lambda block: ()).check("model", "c")  # nobody holds it any more: whoever keeps it may hand it over
