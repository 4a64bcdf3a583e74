"""Which offers count, and whose history is followed: pure functions of what the members said.

Nothing here knows a clock, a network or a tensor; the simulator and the daemon call the same code.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MARKS = 16  # digests that a member remembers of its own past
UNHEARD, UNNAMED = "unheard", "unnamed"  # why a round is skipped: too few members, or too few offers in time


@dataclass(frozen=True)
class Mark:
    """A point in a block's history: the state after its `version`-th outer step has this digest."""

    version: int
    digest: str


@dataclass(frozen=True)
class Seal:
    """The outcome of a round's lists: the offers that count, by peer, or none and the reason."""

    offers: Mapping[str, str]  # peer → offer id
    reason: str
    cause: str = ""  # of a skipped round: UNHEARD or UNNAMED

    @property
    def is_skipped(self) -> bool:
        """Whether the round leaves everything as it was."""
        return not self.offers


def seal(view: Sequence[str], lists: Mapping[str, Mapping[str, str]]) -> Seal:
    """Return the sealed set: the offers that more than half of the view name.

    `lists` maps a member that was heard (oneself too) to what it holds: peer → offer id. A round is skipped when
    fewer than half of the members were heard or nothing is named by more than half.
    """
    members = set(view)
    heard = {member: held for member, held in lists.items() if member in members}
    if 2 * len(heard) < len(members):
        return Seal({}, f"skipped: heard {len(heard)} of {len(members)}", UNHEARD)
    named = Counter((peer, offer) for held in heard.values() for peer, offer in held.items() if peer in members)
    sealed = {peer: offer for (peer, offer), count in sorted(named.items()) if 2 * count > len(members)}
    if not sealed:
        return Seal({}, f"skipped: no offer is held by more than half of {len(members)}", UNNAMED)
    return Seal(sealed, f"sealed {len(sealed)} of {len(members)}")


@dataclass(frozen=True)
class Standing:
    """How one's own history relates to the group's.

    `follow` is the mark to reach (None: stay), `sources` the members who stand there; `merge` are the marks of
    histories that parted with no majority, each with its members, in the order of their digests.
    """

    follow: Mark | None = None
    sources: tuple[str, ...] = ()
    merge: tuple[tuple[Mark, tuple[str, ...]], ...] = ()


def compare(me: str, view: Sequence[str], histories: Mapping[str, Sequence[Mark]]) -> Standing:
    """Return what `me` must do so that the group has the same bits again.

    `histories` maps each member that was heard (oneself too) to its last marks, oldest first. A member whose newest
    mark lies in another's past is only late; of histories that have parted, the majority's is followed; without one,
    all are merged. If a member of the view was not heard, others may see a majority that we do not. So nobody merges;
    the history with the smallest digest is followed.
    """
    newest = {member: marks[-1] for member, marks in histories.items() if marks}
    if me not in newest or len(set(newest.values())) == 1:
        return Standing()
    pasts: dict[Mark, set[Mark]] = {}
    for member, mark in newest.items():
        pasts.setdefault(mark, set()).update(histories[member][:-1])
    tips = {mark for mark in pasts if not any(mark in past for other, past in pasts.items() if other != mark)}
    if not tips:  # members that contradict each other: every mark lies in somebody's past
        return Standing()
    at = {tip: tuple(sorted(m for m, mark in newest.items() if mark == tip)) for tip in tips}
    winner = next(iter(tips)) if len(tips) == 1 else next((t for t in tips if 2 * len(at[t]) > len(newest)), None)
    if winner is None and not newest.keys() >= set(view):
        winner = min(tips, key=lambda tip: tip.digest)
    if winner is not None:
        return Standing() if newest[me] == winner else Standing(follow=winner, sources=at[winner])
    return Standing(merge=tuple((tip, at[tip]) for tip in sorted(tips, key=lambda t: t.digest)))
