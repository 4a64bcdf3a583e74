"""What a status says in numbers, by name: the curves that every tracker shows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from peer.http.status import Status

STRANGE = re.compile(r"[^\w.-]+", re.ASCII)  # in a name that several libraries would refuse


@dataclass(frozen=True)
class Scalar:
    """One value of one curve."""

    group: str  # such as `loss/held-out`
    value: float
    label: str = ""  # what tells it from the others of its group, such as `domain`
    of: str = ""  # and its value there, such as `python`

    @property
    def name(self) -> str:
        """The whole name: `loss/held-out/python`."""
        return f"{self.group}/{self.of}" if self.of else self.group


def scalars(status: Status) -> list[Scalar]:
    """Return the curves' values in a status; none before this peer is in it."""
    return list(_scalars(status)) if status.peers else []


def _scalars(status: Status) -> Iterator[Scalar]:
    own = status.peers[0]
    if own.loss is not None:
        yield Scalar("loss/train", own.loss)
    for domain, points in sorted(status.held_out.items()):
        yield Scalar("loss/held-out", points[-1][1], "domain", _plain(domain))
    yield Scalar("speed/tokens_per_s", own.tokens_per_s)
    yield Scalar("traffic/bytes_in", own.bytes_in)
    yield Scalar("traffic/bytes_out", own.bytes_out)
    yield Scalar("rounds/sealed", own.rounds)
    for cause, count in sorted(status.skipped.items()):
        yield Scalar("rounds/skipped", count, "cause", _plain(cause))
    yield Scalar("swarm/peers", len(status.peers))
    yield Scalar("swarm/age", status.age)
    for block in status.blocks:
        yield Scalar("agreement", block.agreement, "block", _plain(block.block))
        yield Scalar("age", block.age, "block", _plain(block.block))


def _plain(name: str) -> str:
    return STRANGE.sub("_", name)
