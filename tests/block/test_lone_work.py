"""What another history lacks of the work that was done alone."""

import pytest
import torch

from peer.block.lone_work import LoneWork
from peer.train.outer import OuterState, new_state

WORK = torch.tensor([3.0, 5.0])


def at(version: int, value: float = 0.0) -> OuterState:
    phi = torch.full((2,), value)
    return new_state("model", phi, None, version=version, round_=10 * version, ages={"me": 1}, is_final=False)


LONE = LoneWork(round=50, version=7, digest="a" * 64, counted_tokens=100, work=WORK)


@pytest.mark.parametrize(
    ("base", "state", "lacks"),
    [
        (at(4), at(7), WORK),  # from before the first step
        (at(5, 2.0), at(7, 1.0), torch.ones(2)),  # the last one led from the base to where this peer stands
        (at(7), at(7), None),  # from after the last
        (at(8), at(9), None),
        (at(6), at(8), None),  # others have taken it over
    ],
)
def test_what_lies_after_the_newest_state_in_common_is_lacking(
    base: OuterState, state: OuterState, lacks: torch.Tensor | None
) -> None:
    found = LONE.lacking_after(base, state)
    assert (found is None) == (lacks is None)
    if found is not None and lacks is not None:
        assert torch.equal(found, lacks)


@pytest.mark.parametrize(
    ("told", "is_older", "lacks"),
    [
        ({7: "a" * 64}, True, False),  # the state after the last step is in it, whatever it counts
        ({7: "b" * 64}, False, True),  # another one is in its place
        ({8: "a" * 64}, True, True),  # nothing is told of that version: counts must do
        ({8: "a" * 64}, False, False),
        ({}, True, True),
    ],
)
def test_without_a_state_in_common_digests_tell_it_or_else_counts(
    told: dict[int, str], is_older: bool, lacks: bool
) -> None:
    found = LONE.lacking_in(told, is_older)
    assert found is (WORK if lacks else None)
