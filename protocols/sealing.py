"""Which offers count, and whose history is followed: pure functions of what the members said.

Nothing here knows a clock, a network or a tensor; the simulator and the daemon call the same code.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

MARKS = 16  # digests that a member remembers of its own past
SEATED_ROUNDS = 4  # sealed rounds, the last ones, whose members have a voice
PATIENCE_ROUNDS = 4  # rounds of silence after which a member without a voice is not waited for,
RETRY_ROUNDS = 8  # but in every eighth
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


@dataclass(frozen=True)
class Quorum:
    """Who decides a round, and what a member makes of those who do not.

    `voting` are those whose lists decide; none: whoever is heard. `named` are those whose offers this member names in
    its list, `awaited` those for whom it waits: what concerns only this member may follow from what it alone has heard.
    """

    voting: frozenset[str]
    named: frozenset[str]
    awaited: frozenset[str]


def quorum(
    view: Sequence[str],
    sealed: Sequence[tuple[int, Collection[str]]],
    tick: int,
    silent_ticks: int,
    silence: Mapping[str, int],
    vouched: Collection[str] = (),
) -> Quorum:
    """Return the quorum of a round at `tick` by a block's last steps: (tick, the peers whose offers were in it) each.

    A record gives nobody a voice, an offer that was sealed does; it is lost by silence in `SEATED_ROUNDS` sealed steps.
    So all who have the same history name the same voters. Where nothing was sealed for `silent_ticks`, so many are
    silent that the others have no majority: what was before is forgotten, and those decide who are heard, as at a
    block's beginning.

    `silence` maps a member to the rounds in a row in which it gave this one no list. Who has no voice is named when it
    gave one, or a voter has `vouched` for it, whom it may reach alone; so nobody gets a voice by offers alone. It is
    waited for unless it has been silent for long.
    """
    seated: set[str] = set()
    since = tick
    for at, peers in [(at, peers) for at, peers in sealed if peers][: -SEATED_ROUNDS - 1 : -1]:
        if since - at > silent_ticks:
            break
        seated |= set(peers)
        since = at
    voting = frozenset(peer for peer in view if peer in seated)
    named = {peer for peer in view if not voting or silence.get(peer) == 0}
    awaited = frozenset(peer for peer in view if peer in voting or _is_awaited(silence.get(peer, 0)))
    return Quorum(voting, voting | named | (set(vouched) & set(view)), awaited)


def _is_awaited(silent_rounds: int) -> bool:
    return silent_rounds < PATIENCE_ROUNDS or silent_rounds % RETRY_ROUNDS == 0


def seal(view: Sequence[str], lists: Mapping[str, Mapping[str, str]], voting: Collection[str] | None = None) -> Seal:
    """Return the sealed set: the offers that more than half of those name whose lists decide.

    `lists` maps a member that was heard (oneself too) to what it holds: peer → offer id. `voting` are the members that
    decide, all of the view unless it is given. A round is skipped when fewer than half of them were heard, or nothing
    is named by more than half. Where `voting` is empty those decide who are heard, two at least, and only their offers
    are sealed: who offers and lists nothing gets no voice by it.
    """
    members = set(view)
    deciding = members if voting is None else members & set(voting)
    heard = {member: held for member, held in lists.items() if member in members}
    if not deciding:
        members = deciding = set(heard)
        if len(deciding) < 2:
            return Seal({}, f"skipped: heard {len(heard)} of {len(view)}", UNHEARD)
    heard = {member: held for member, held in heard.items() if member in deciding}
    if 2 * len(heard) < len(deciding):
        return Seal({}, f"skipped: heard {len(heard)} of {len(deciding)}", UNHEARD)
    named = _names(heard, members)
    sealed = {peer: offer for (peer, offer), count in sorted(named.items()) if 2 * count > len(deciding)}
    if not sealed:
        return Seal({}, f"skipped: no offer is held by more than half of {len(deciding)}", UNNAMED)
    return Seal(sealed, f"sealed {len(sealed)} of {len(view)}")


def is_decided(view: Sequence[str], lists: Mapping[str, Mapping[str, str]], voting: Collection[str]) -> bool:
    """Return whether something is sealed, and all the same whatever the voters name that were not heard yet."""
    deciding = set(view) & set(voting)
    named = _names({member: held for member, held in lists.items() if member in deciding}, view)
    unheard, half = len(deciding - lists.keys()), len(deciding) / 2
    sealed = [count for count in named.values() if count > half]
    return bool(sealed) and all(count > half or count + unheard <= half for count in named.values())


def _names(lists: Mapping[str, Mapping[str, str]], view: Collection[str]) -> Counter[tuple[str, str]]:
    """Count how many of the lists name each offer, (peer, offer id), of a peer in the view."""
    return Counter((peer, offer) for held in lists.values() for peer, offer in held.items() if peer in view)


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

    Who stands at a mark that is in fewer histories than there must be witnesses counts for nothing, as long as others
    stand at one that is in enough: anybody can claim a state that nobody made. Who really is there alone follows when
    the others have gone on without it.
    """
    heard = {member: marks for member, marks in histories.items() if marks}
    if me not in heard or len({marks[-1] for marks in heard.values()}) == 1:
        return Standing()
    mine, told = heard[me][-1], _witnessed(heard)
    newest = {member: marks[-1] for member, marks in told.items()}
    if me not in told and set(newest.values()) <= set(heard[me]):
        return Standing()  # they go on from where they are, and next time have another history
    pasts: dict[Mark, set[Mark]] = {}
    for member, mark in newest.items():
        pasts.setdefault(mark, set()).update(told[member][:-1])
    tips = {mark for mark in pasts if not any(mark in past for other, past in pasts.items() if other != mark)}
    if not tips:  # members that contradict each other: every mark lies in somebody's past
        return Standing()
    at = {tip: tuple(sorted(m for m, mark in newest.items() if mark == tip)) for tip in tips}
    winner = next(iter(tips)) if len(tips) == 1 else next((t for t in tips if 2 * len(at[t]) > len(newest)), None)
    if winner is None and not newest.keys() >= set(view):
        winner = min(tips, key=lambda tip: tip.digest)
    if winner is not None:
        return Standing() if mine == winner else Standing(follow=winner, sources=at[winner])
    return Standing(merge=tuple((tip, at[tip]) for tip in sorted(tips, key=lambda t: t.digest)))


def witnesses(members: int) -> int:
    """Return how many of so many members must have a mark in their histories: more than may be hostile, one in five.

    Of two, each believes the other: neither knows who is wrong.
    """
    return max(2, members // 5 + 1) if members > 2 else 1


def _witnessed(told: Mapping[str, Sequence[Mark]]) -> Mapping[str, Sequence[Mark]]:
    """Return the histories whose newest mark has its witnesses; all if there is no such one."""
    voices = Counter(mark for marks in told.values() for mark in set(marks))
    least = witnesses(len(told))
    return {member: marks for member, marks in told.items() if voices[marks[-1]] >= least} or told
