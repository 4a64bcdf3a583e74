"""The outer step where a swarm is larger than one group: replicas differ, and a pull keeps them together. Pure.

    φ ← φ − mean_j clip(D(φ) − D(φ_j))       on this round's fragment of the anchor, outside the momentum
    b ← μb + Δ̄,  φ ← φ − α(Δ̄ + μb)           the step of `outer.py`, with uniform weights

Each member's difference is clipped, not the mean of them, so that one hostile anchor moves nothing by more than its
share of the limit (clipping of neighbours as in 2202.01545). It is clipped as a whole, by its norm: values whose
pseudo-gradients are unlike would need a limit each. The limit follows the pseudo-gradients on the same fragment, whose
median no single member decides. The own anchor counts as the others have it, decoded: rounding then is no reason to
move.

Whom a peer exchanges with, and which fragment is sent, stands in `protocols/grouping.py`. Members of one group have
different bits anyway, so a norm may be a reduction here; one that does not exceed the limit leaves no trace.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, median_low

import torch
from torch import Tensor

from configs.names import MAX_COUNT
from configs.run import RunSpec
from peer.train.outer import (
    SWARM,
    Contribution,
    OuterState,
    believed,
    capped,
    common_tokens_of,
    nesterov,
    norm_scales,
    unwritten,
)

FRAGMENT_CODEC = "bfloat16"  # half the error of int8 at the end of a run, where the pseudo-gradient is small


@dataclass(frozen=True)
class Mixed:
    """One sealed offer of a random group, decoded.

    `fragment` is D(φ_j) on this round's span, (n,), and `age` the age of the sender's block, both before the round.
    """

    contribution: Contribution  # its `tokens` are the new ones of this offer, not a cumulative count
    fragment: Tensor
    age: int


@dataclass(frozen=True)
class Fragment:
    """A peer's own fragment in a round: `values` is D(φ), (n,), as the others decode it, and `at` its `span`."""

    values: Tensor
    at: slice


def span(size: int, fragments: int, fragment: int) -> slice:
    """Return where in a flat block of `size` parameters a fragment lies; all spans together cover it once."""
    return slice(fragment * size // fragments, (fragment + 1) * size // fragments)


def mixed_step(
    state: OuterState,
    me: str,
    own: Fragment,
    offers: Sequence[Mixed],
    spec: RunSpec,
    *,
    round_: int,
    holders: float,
) -> OuterState:
    """Return the state of `me` after a round in a random group. `offers`, not empty, are the sealed ones that it has.

    own      counts whether or not the own offer was sealed
    holders  how many peers hold the block, by estimate: all of them together grow as old as this group did
    """
    ordered = sorted(offers, key=lambda offer: offer.contribution.peer_id)
    contributions = [offer.contribution for offer in ordered]
    shares = [scale / len(ordered) for scale in norm_scales(contributions)]
    age = max(state.age, grown_age(ordered, holders, spec))
    common = common_tokens_of(spec, state.block)
    counted = [c.tokens for c in contributions if c.peer_id == me]
    mine = min(age, state.ages.get(me, 0) + sum(counted))  # it goes on from there where groups are complete again
    ages = {me: mine, SWARM: age - mine}
    after = nesterov(state, contributions, shares, spec.outer, round_=round_, ages=ages, common_tokens=common)
    limit = pull_limit(contributions, own.at, spec.rounds.pull_clip)
    # Pull and step commute.
    after.phi[own.at] -= pull(own.values, [offer.fragment for offer in ordered], limit)
    return after


def pull(own: Tensor, anchors: Sequence[Tensor], limit: float) -> Tensor:
    """Return what the `anchors`, decoded like the `own` one, (n,), take off it: the mean, each at most `limit` long."""
    total = torch.zeros_like(own)
    for anchor in anchors:
        difference = own - anchor
        norm = float(torch.linalg.vector_norm(difference))
        if norm > limit:
            difference = difference * (limit / norm) if math.isfinite(norm) else torch.zeros_like(own)
        total += difference
    total *= 1 / len(anchors)
    return total


def pull_limit(contributions: Sequence[Contribution], at: slice, pull_clip: float) -> float:
    """Return `pull_clip` times the median norm of the members' pseudo-gradients on the fragment."""
    return pull_clip * median(float(torch.linalg.vector_norm(c.values[at])) for c in contributions)


def owed(produced: Tensor, decoded: Tensor, share: float) -> Tensor:
    """Return the residual e = u − s·D(u) after a round in which the share `s` of the own offer counted."""
    if not share:
        return produced
    # Nobody else computes it, so its bits may be what they are.
    return torch.sub(produced, decoded, alpha=share, out=unwritten(produced.numel()))


def grown_age(offers: Sequence[Mixed], holders: float, spec: RunSpec) -> int:
    """Return the block's age after the round: that of the group, and what all holders will have added by now.

    The median age, of two the lower one, so that no liar ends anybody's schedule; new tokens are capped as weights are.
    """
    gained = sum(capped(believed([offer.contribution.tokens for offer in offers], spec)))
    age = int(median_low(offer.age for offer in offers)) + int(holders / len(offers) * gained)
    return min(age, MAX_COUNT - 1)
