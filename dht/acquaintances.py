"""Whom this peer knows among all who say that they are there, and whom it dials next.

Anybody can write the records of identities behind which there is nobody. Known is who took part in a block that lies
here, or who has been connected to this peer: a connection proves an identity. All others are on trial: so many at a
time, each for so many tries, so that no flood of names crowds out whoever is known, or keeps this peer dialling.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from hashlib import sha256

MAX_ON_TRIAL = 64  # peers that are believed without being known
TRIES = 8  # dials of one on trial, with pauses that double; then it is not believed, and not dialled any more
PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
TRIALS, TRIALS_S = 16, 10.0  # at most so many dials of peers on trial, in so many seconds
MAX_DIALS = 32  # of known peers, at one look
MAX_MET = 1024  # peers that are remembered as met, those met last
MAX_TRIED = 8192  # peers on trial whose tries are remembered


class Acquaintances:
    """Whom one peer knows. `now` is an argument: seconds of any steady clock."""

    def __init__(self, me: str) -> None:
        self._me = me
        self.took_part: Collection[str] = frozenset()  # peers that are in the state of a block here
        self._met: OrderedDict[str, None] = OrderedDict()
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()  # peer → dials, and when it may be dialled
        self._trials: deque[float] = deque(maxlen=TRIALS)  # when the last peers on trial were dialled

    def met(self, peers: Iterable[str]) -> None:
        """Take in who is connected now."""
        for peer in peers:
            self._met[peer] = None
            self._met.move_to_end(peer)
            self._tries.pop(peer, None)
        while len(self._met) > MAX_MET:
            self._met.popitem(last=False)

    def knows(self, peer: str) -> bool:
        """Whether a peer has been met, or took part in what lies here."""
        return peer == self._me or peer in self._met or peer in self.took_part

    def has_given_up(self, peer: str) -> bool:
        """Whether a peer was on trial and could not be reached."""
        return self._tries.get(peer, (0, 0.0))[0] >= TRIES and not self.knows(peer)

    def in_turn(self, peers: Iterable[str], tick: int) -> list[str]:
        """Return peers in the order in which to look at them: known ones first, then by a draw of this tick."""

        def draw(peer: str) -> bytes:
            return sha256(f"{self._me}/{tick}/{peer}".encode()).digest()

        return sorted(peers, key=lambda peer: (not self.knows(peer), draw(peer)))

    def to_dial(self, peers: Iterable[str], now: float) -> list[str]:
        """Return which of those that are not connected to dial now; they are taken to be dialled."""
        due = [peer for peer in peers if self._tries.get(peer, (0, 0.0))[1] <= now and not self.has_given_up(peer)]
        due.sort(key=lambda peer: self._tries.get(peer, (0, 0.0))[1])
        known = [peer for peer in due if self.knows(peer)][:MAX_DIALS]
        for peer in known:
            self._note(peer, 0, now + PAUSE_S)
        chosen = []
        for peer in due:
            if self.knows(peer):
                continue
            if len(self._trials) == TRIALS and now - self._trials[0] < TRIALS_S:
                break
            self._trials.append(now)
            tries = self._tries.get(peer, (0, 0.0))[0]
            self._note(peer, tries + 1, now + min(PAUSE_S * 2.0**tries, LONGEST_PAUSE_S))
            chosen.append(peer)
        return known + chosen

    def _note(self, peer: str, tries: int, until: float) -> None:
        self._tries[peer] = tries, until
        self._tries.move_to_end(peer)
        while len(self._tries) > MAX_TRIED:
            self._tries.popitem(last=False)
