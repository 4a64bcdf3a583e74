"""What should come of it without loss, delay and churn: the spread between replicas, and the way that work takes."""

import math
from dataclasses import dataclass

from torch import Tensor

from peer.simulate.work import NOISE
from protocols.grouping import bits_for, fragment_of

CYCLES = 40  # of all fragments, after which the spread is as good as steady


def pull_factor(peers: int, groups: float) -> float:
    """Return by how much the pull of whole anchors shrinks the variance between replicas: E[V'] = V·(r−1)/(N−1).

    For random groups of any sizes.
    """
    return (groups - 1) / (peers - 1)


def expected_groups(peers: int, group_size: int) -> float:
    """Return how many buckets are not empty, on average."""
    buckets = 2.0 ** bits_for(peers, group_size)
    return buckets * (1 - (1 - 1 / buckets) ** peers)


class Theory:
    """The expected second moments of the replicas' deviations from their mean, times the pseudo-gradient's.

    x is the deviation of a value of φ, fragment by fragment, b that of its momentum, g that of its group's mean noise:

        pull    x ← the mean of the group's x          var(x) and cov(x, b) shrink by `pull_factor`
        step    b ← μb + g,  x ← x − α(g + μb)
    """

    def __init__(self, fragments: int, alpha: float, mu: float) -> None:
        self._alpha, self._mu = alpha, mu
        self._var_x = [0.0] * fragments
        self._cov = [0.0] * fragments  # of x and b
        self._var_b = 0.0

    def advance(self, peers: int, groups: float, fragment: int) -> float:
        """Return the spread after a round of so many groups that sent this fragment."""
        alpha, mu = self._alpha, self._mu
        var_g = NOISE * (groups - 1) / peers  # the mean over the peers of 1/m − 1/N
        self._var_x[fragment] *= pull_factor(peers, groups)
        self._cov[fragment] *= pull_factor(peers, groups)
        added = alpha**2 * ((1 + mu) ** 2 * var_g + mu**4 * self._var_b)
        self._var_x = [x - 2 * alpha * mu**2 * c + added for x, c in zip(self._var_x, self._cov, strict=True)]
        self._cov = [mu * c - alpha * (mu**3 * self._var_b + (1 + mu) * var_g) for c in self._cov]
        self._var_b = mu**2 * self._var_b + var_g
        return math.sqrt(sum(self._var_x) / len(self._var_x))


def steady_spread(peers: int, groups: float, fragments: int, alpha: float, mu: float) -> float:
    """Return the spread after many rounds of so many groups."""
    theory = Theory(fragments, alpha, mu)
    spreads = [theory.advance(peers, groups, fragment_of(tick, fragments)) for tick in range(CYCLES * fragments)]
    late = spreads[len(spreads) // 2 :]
    return math.sqrt(sum(spread**2 for spread in late) / len(late))


@dataclass(frozen=True)
class Stand:
    """Where a swarm has come to: means over the peers, (values,) each."""

    moved: Tensor  # φ at the beginning − φ
    momentum: Tensor
    owed: Tensor  # residuals, and what was learnt since the last step


def work_done(stand: Stand, learnt: Tensor, alpha: float, mu: float) -> float:
    """Return the share of what was learnt, (values,), that stands in the replicas or will by itself.

    A pseudo-gradient moves φ by α/(1−μ) of itself in the end, of which αμ²/(1−μ) of the momentum is yet to come.
    Only the part along what was learnt counts: what differs between peers goes in all directions.
    """
    gain = alpha / (1 - mu)
    done = (stand.moved + gain * mu**2 * stand.momentum + gain * stand.owed).double()
    return float((done @ learnt) / (gain * (learnt @ learnt)))
