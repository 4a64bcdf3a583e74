"""Whom this peer has heard in the rounds of a block: what it knows alone, so it decides only for whom it waits.

Who decides a round follows from what all have in common, and stands in `protocols/sealing.py`.
"""

from collections.abc import Collection, Mapping, Sequence

MAX_REMEMBERED = 256  # members that are not in the view of a round, whose silence is remembered


class Hearing:
    """What a holder has heard of the others."""

    def __init__(self, me: str) -> None:
        self._me = me
        self.silence: dict[str, int] = {}  # other holder → rounds in a row in which it gave no list
        self.alone_since: int | None = None  # tick of the first round since which nobody else was heard
        self.vouched: frozenset[str] = frozenset()  # whom another voter has named in the last round

    def ended(
        self, round_: int, view: Sequence[str], heard: Mapping[str, Collection[str]], voting: Collection[str]
    ) -> None:
        """Take in whose lists came in a round of the `view`, and whom each of them names; `voting` were the voters."""
        voters = (set(voting) & heard.keys()) - {self._me}
        self.vouched = frozenset(peer for voter in voters for peer in heard[voter] if peer != voter)
        others = [peer for peer in view if peer != self._me]
        if set(others) & set(heard):
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = round_
        elsewhere = [(peer, rounds) for peer, rounds in self.silence.items() if peer not in others]
        after = {peer: 0 if peer in heard else self.silence.get(peer, 0) + 1 for peer in others}
        self.silence = dict(elsewhere[-MAX_REMEMBERED:]) | after

    def hears(self, peer: str) -> bool:
        """Return whether a holder was heard in its last round, by this peer or by a voter that named it."""
        return self.silence.get(peer) == 0 or peer in self.vouched

    def is_left(self, round_: int, silent_ticks: int) -> bool:
        """Return whether nobody else has been heard for so long that this peer goes on without them."""
        return self.alone_since is not None and round_ - self.alone_since > silent_ticks
