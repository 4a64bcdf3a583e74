"""What happens to a peer, told by comparing what its status was with what it is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from peer.http.status import Status


@dataclass(frozen=True)
class Event:
    """Something that has happened to a peer since its last tick.

    `state`: the peer does something else now. `round`: a block's exchange has ended, `text` says how. `news`: whatever
    else its status shows among its events, with the time of day.
    """

    kind: Literal["state", "round", "news"]
    tick: int
    text: str
    block: str = ""  # of a round
    version: int = 0  # of the block, after a round


def events_between(before: Status | None, after: Status) -> list[Event]:
    """Return what has happened from one status of a peer to a later one, in no finer order than that."""
    found = []
    if before is None or before.state != after.state:
        found.append(Event("state", after.tick, after.state))
    known = [] if before is None else before.events
    found += [Event("news", after.tick, text) for text in _later(known, after.events)]
    last = {} if before is None else {block.block: block.last_round for block in before.blocks}
    for block in after.blocks:
        if block.outcome and block.last_round != last.get(block.block, 0):
            found.append(Event("round", block.last_round, block.outcome, block.block, block.version))
    return found


def _later(before: Sequence[str], after: Sequence[str]) -> Sequence[str]:
    """Return what is new at the end of a list whose oldest entries may have gone."""
    for common in range(min(len(before), len(after)), 0, -1):
        if before[-common:] == after[:common]:
            return after[common:]
    return after
