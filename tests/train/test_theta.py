"""What reads θ in mid-step sees all anchors that wait; what trains gets them one after the other."""

import pytest
import torch

from peer.train.sharded import Piece, Rows
from peer.train.theta import Theta


@pytest.fixture
def rows() -> Rows:
    rows = Rows.__new__(Rows)  # of two blocks, without a model
    rows.pieces = [
        Piece("a", "a.weight", torch.tensor([1.0, 2.0]), slice(0, 2)),
        Piece("b", "b.weight", torch.tensor([3.0]), slice(2, 3)),
    ]
    rows.is_first_replica = True
    return rows


def read(theta: Theta) -> list[float]:
    flat = torch.zeros(3)
    theta.read(flat)
    return flat.tolist()


def values(rows: Rows) -> list[float]:
    return torch.cat([piece.values for piece in rows.pieces]).tolist()


def test_what_waits_is_seen_at_once_and_done_in_order(rows: Rows) -> None:
    theta = Theta(rows)
    anchor, snapshot = torch.tensor([10.0, 10.0, 10.0]), torch.tensor([1.0, 1.0, 1.0])
    theta.shift_later(anchor, snapshot, ["a"])
    anchor.zero_()  # the buffers are the daemon's again
    theta.replace_later(torch.tensor([7.0, 7.0, 7.0]), ["b"])
    theta.shift_later(torch.tensor([0.5, 0.5, 0.5]), torch.zeros(3), ["a", "b"])
    assert read(theta) == [10.5, 11.5, 7.5]
    assert values(rows) == [1, 2, 3]
    theta.take_up()
    assert values(rows) == [10, 11, 3] and read(theta) == [10.5, 11.5, 7.5]
    theta.take_up()
    theta.take_up()
    assert values(rows) == read(theta) == [10.5, 11.5, 7.5]


def test_going_back_to_the_anchor_does_what_waits_no_more(rows: Rows) -> None:
    theta = Theta(rows)
    theta.shift_later(torch.ones(3), torch.zeros(3), ["a", "b"])
    theta.replace(torch.tensor([5.0, 5.0, 5.0]), ["a", "b"])
    assert values(rows) == read(theta) == [5, 5, 5]
    theta.take_up()  # it is still asked for
    assert values(rows) == [5, 5, 5]
