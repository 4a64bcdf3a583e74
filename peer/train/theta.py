"""θ of one rank, which may be read at any moment of a step and changes only between two steps.

θ is constant from one optimizer step to the next. So whoever holds the worker's lock, which of a step only the
optimizer's update takes, can copy it out while a forward or backward pass goes on. A new anchor that comes in mid-step
waits for the step's end, since the pass under way needs the values that it began with; who reads θ meanwhile gets it
as if the anchor were in it already.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from peer.train.sharded import Piece, Rows


@dataclass(frozen=True)
class Change:
    """What will become of some of this rank's rows: θ + values, or, when it `replaces` them, the values."""

    values: tuple[tuple[Piece, Tensor], ...]
    replaces: bool


class Theta:
    """The parameters of one rank, and what is still to be done to them. Every method needs the worker's lock."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._changes: deque[Change] = deque()
        device = rows.pieces[0].values.device
        # On a GPU copies go beside the pass that is queued there, and behind the last update.
        has_streams = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if has_streams else None  # type: ignore[no-untyped-call]
        self._updated = torch.cuda.Event() if has_streams else None  # type: ignore[no-untyped-call]

    def read(self, flat: Tensor) -> None:
        """Write θ into `flat`, with all changes that wait."""
        if self._stream is None or self._updated is None:
            self._rows.copy_out(flat)
        else:
            self._stream.wait_event(self._updated)
            with torch.cuda.stream(self._stream):
                self._rows.copy_out(flat)
            self._stream.synchronize()
        if self._rows.is_first_replica:
            for change in self._changes:
                for piece, values in change.values:
                    _put(piece.of(flat), values, change.replaces)

    def shift_later(self, anchor: Tensor, snapshot: Tensor, blocks: Collection[str]) -> None:
        """Let θ become θ + anchor − snapshot for `blocks` when the step is over; copies what it needs of both."""
        pieces = [piece for piece in self._rows.pieces if piece.block in blocks]
        self._changes.append(Change(tuple((piece, piece.of(anchor) - piece.of(snapshot)) for piece in pieces), False))

    def replace_later(self, anchor: Tensor, blocks: Collection[str]) -> None:
        """Let θ become the anchor for `blocks` when the step is over."""
        pieces = [piece for piece in self._rows.pieces if piece.block in blocks]
        self._changes.append(Change(tuple((piece, piece.of(anchor).clone()) for piece in pieces), True))

    def replace(self, anchor: Tensor, blocks: Collection[str]) -> None:
        """θ ← anchor, for `blocks`, at once; a change of them that waited before must be among what the anchor has."""
        self._rows.copy_in(anchor, blocks)
        self._changes = deque(Change((), change.replaces) for change in self._changes)
        self.updated()

    @torch.no_grad()
    def take_up(self) -> None:
        """Do the change that has waited longest. For the thread that trains, between two steps."""
        change = self._changes.popleft()
        for piece, values in change.values:
            _put(piece.values, values.to(piece.values.device), change.replaces)
        self.updated()

    def updated(self) -> None:
        """Say that the parameters have just been changed: later copies wait for that."""
        if self._updated is not None:
            self._updated.record()


def _put(target: Tensor, values: Tensor, replaces: bool) -> None:
    if replaces:
        target.copy_(values)
    else:
        target.add_(values)
