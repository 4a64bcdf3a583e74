"""The outer step: what a group's sealed offers do to a block's state. Pure, elementwise, the same bits everywhere.

A block's state is one blob, which is at the same time the bytes that peers download, the file on disk (a valid
safetensors file) and what the digest names. `phi` and `momentum` are views into it.

No fused operation (`alpha=`, `addcmul`, `lerp` round differently) and no reduction touches the state: a dot product
differs between one thread and two. Whatever decides how strongly an offer counts is plain Python arithmetic on the
signed headers.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median

import numpy as np
import torch
from torch import Tensor

from configs.content import content_id_of
from configs.errors import PeerError
from configs.names import MAX_COUNT
from configs.run import OuterSpec, RunSpec
from peer.train.checkpoint import tensors_header
from peer.train.robust import MAX_TRUSTED, ROBUST_MEMBERS, UNIT, Trust, judged, kept

WEIGHT_CAP = 4.0  # most tokens that count, in medians of the group, inside a domain
PARTS = 16  # parts of a run's tokens, of which one offer may claim one: no signature proves that they were trained
NORM_CAP = 2.0  # largest norm, in medians of the group, in groups of three or more
ROBUST_NORM_CAP = 1.15  # the same where offers are combined robustly; then most tokens that count are the median
MAX_HEADER_BYTES = 1 << 20
MAX_PEERS = 4096  # entries in a block's ages, that of `SWARM` among them
# Pseudo-peer in `ages`: the tokens of all who have no counts of their own, in random groups or since they were folded.
SWARM = "swarm"
TILE = 1 << 16  # values of a step that are worked on at a time; so many stay in a core's cache


@dataclass(frozen=True)
class Contribution:
    """One sealed offer, decoded: `values` is D(u), (N,); the rest stands in its signed header."""

    peer_id: str
    values: Tensor
    tokens: int  # the peer's cumulative count on this block
    norm: float
    domain: str


@dataclass(frozen=True)
class OuterState:
    """A block after its `version`-th outer step, taken at tick `round`.

    `blob` is a safetensors file of `phi` and `momentum`, float32, (N,) each, with the other fields in its metadata.
    """

    blob: memoryview
    phi: Tensor
    momentum: Tensor
    block: str
    version: int
    round: int
    ages: Mapping[str, int]  # peer → tokens it has put into this block; `SWARM` → those of all others
    is_final: bool  # nobody will train this block any more: the common phase has ended
    trust: Trust = field(default_factory=dict)  # of the members, where combined robustly

    @property
    def age(self) -> int:
        """Tokens that the block's weights have absorbed, across the swarm."""
        return sum(self.ages.values())

    @property
    def size(self) -> int:
        """Number of parameters."""
        return self.phi.numel()

    @cached_property
    def digest(self) -> str:
        """The content id of the blob: equal digests are equal bits."""
        return content_id_of(self.blob)


def new_state(
    block: str,
    phi: Tensor,
    momentum: Tensor | None,
    *,
    version: int,
    round_: int,
    ages: Mapping[str, int],
    is_final: bool,
) -> OuterState:
    """Lay a state out in a fresh blob. `momentum` None means zeros."""
    return _filled(_blank_state(block, phi.numel(), version, round_, ages, is_final, {}), phi, momentum)


def most_state_bytes(size: int) -> int:
    """Return how many bytes a state with so many parameters has at the most."""
    return MAX_HEADER_BYTES + 8 * size


def read_state(data: bytes | bytearray, block: str, size: int) -> OuterState:
    """Read a state of `block` with `size` parameters from a peer's bytes or a file.

    Raises PeerError if it is anything else, or holds a value that is not finite.
    """
    blob = memoryview(bytearray(data))
    length = int.from_bytes(blob[:8], "little")
    if length > MAX_HEADER_BYTES or len(blob) != 8 + length + 8 * size:
        raise PeerError(f"state of {block}: {len(blob)} bytes do not hold {size} parameters")
    try:
        facts = json.loads(bytes(blob[8 : 8 + length]))["__metadata__"]
        ages = {str(peer): int(tokens) for peer, tokens in json.loads(facts["ages"]).items()}
        name, version, round_ = facts["block"], int(facts["version"]), int(facts["round"])
        is_final = bool(int(facts["is_final"]))
        told = json.loads(facts.get("trust", "{}")).items()
        trust = {str(peer): (int(ahead), int(beside)) for peer, (ahead, beside) in told}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PeerError(f"state of {block}: unreadable header ({type(error).__name__})") from None
    counts = (version, round_, *ages.values())
    if name != block or len(ages) > MAX_PEERS or not all(0 <= count < MAX_COUNT for count in counts):
        raise PeerError(f"state of {block}: the header is of another block, or a count in it is impossible")
    if len(trust) > MAX_TRUSTED or any(abs(each) > UNIT for pair in trust.values() for each in pair):
        raise PeerError(f"state of {block}: a trust in its header is impossible")
    if blob[8 : 8 + length] != _header(block, size, version, round_, ages, is_final, trust):
        raise PeerError(f"state of {block}: the header is not as it is written here")
    phi, momentum = _views(blob, 8 + length, size)
    if not (bool(torch.isfinite(phi).all()) and bool(torch.isfinite(momentum).all())):
        raise PeerError(f"state of {block}: holds values that are not finite")
    return OuterState(blob, phi, momentum, block, version, round_, ages, is_final, trust)


def outer_step(
    state: OuterState,
    contributions: Sequence[Contribution],
    spec: RunSpec,
    *,
    round_: int,
) -> OuterState:
    """Return the state after one round: b ← μb + Δ̄, φ ← φ − α(Δ̄ + μb), Nesterov as in DiLoCo (2311.08105, 2)."""
    ordered = sorted(contributions, key=lambda c: c.peer_id)
    fresh = believed([c.tokens - state.ages.get(c.peer_id, 0) for c in ordered], spec)
    trust = state.trust
    if spec.outer.combine == "robust" and len(ordered) >= ROBUST_MEMBERS:
        fresh = [int(tokens) for tokens in capped(fresh, 1.0)]  # nobody's word alone makes the schedule faster
        offered = [c.peer_id for c in ordered], [c.values for c in ordered], [c.norm for c in ordered]
        factors, trust = judged(*offered, state.momentum, state.trust)
        shares = robust_weights(ordered, fresh, factors)
    else:
        shares = weights(ordered, fresh)
    ages, common = grown(state.ages, ordered, fresh), common_tokens_of(spec, state.block)
    told = replace(state, trust=trust)
    return nesterov(told, ordered, shares, spec.outer, round_=round_, ages=ages, common_tokens=common)


def nesterov(
    state: OuterState,
    ordered: Sequence[Contribution],
    shares: Sequence[float],
    outer: OuterSpec,
    *,
    round_: int,
    ages: Mapping[str, int],
    common_tokens: int | None,
) -> OuterState:
    """Return the state after a step with the contributions, every one multiplied with its share; its ages are given.

    `common_tokens` is the age at which the common phase ends, for the block that it trains; None for all others.
    """
    is_final = common_tokens is not None and sum(ages.values()) >= common_tokens
    after = _blank_state(state.block, state.size, state.version + 1, round_, ages, is_final, state.trust)
    for span in tiles(state.size):
        mean = torch.zeros_like(state.phi[span])
        for contribution, share in zip(ordered, shares, strict=True):
            mean += contribution.values[span] * share
        momentum = torch.mul(state.momentum[span], outer.mu, out=after.momentum[span])
        momentum += mean
        step = momentum * outer.mu
        step += mean
        step *= outer.alpha
        torch.sub(state.phi[span], step, out=after.phi[span])
    return after


def unwritten(size: int) -> Tensor:
    """Return `size` float32 values yet to be written."""
    return torch.from_numpy(np.empty(size, dtype=np.float32))  # NumPy asks for huge pages


def tiles(size: int) -> Iterator[slice]:
    """Cut `size` values into spans of at most `TILE`."""
    return (slice(at, min(at + TILE, size)) for at in range(0, size, TILE))


def lone_step(
    state: OuterState, theta: Tensor, me: str, tokens: int, *, round_: int, common_tokens: int | None
) -> OuterState:
    """Return the state after a round with one holder: φ ← θ, b ← 0."""
    ages = folded({**state.ages, me: max(tokens, state.ages.get(me, 0))}, {me})
    is_final = common_tokens is not None and sum(ages.values()) >= common_tokens
    after = _blank_state(state.block, state.size, state.version + 1, round_, ages, is_final, state.trust)
    return _filled(after, theta, None)


def merge(states: Sequence[OuterState]) -> OuterState:
    """Return the one state that everybody computes where histories parted and none has a majority.

    The mean of the states in the order of their digests, weighted by the tokens that each saw alone. Where they come
    from random groups, what `SWARM` says of others is not counted twice: no age exceeds the oldest.
    """
    ordered = sorted(states, key=lambda s: s.digest)
    peers = sorted({peer for state in ordered for peer in state.ages})
    floor = {peer: min(state.ages.get(peer, 0) for state in ordered) for peer in peers}
    alone = [sum(state.ages.get(peer, 0) - floor[peer] for peer in peers) for state in ordered]
    total = sum(alone)
    shares = [tokens / total if total else 1 / len(ordered) for tokens in alone]
    ages = {peer: max(state.ages.get(peer, 0) for state in ordered) for peer in peers}
    if SWARM in ages:
        ages[SWARM] = max(0, max(state.age for state in ordered) - sum(ages.values()) + ages[SWARM])
    ages = folded(ages, ())
    # Who is distrusted in one of them stays so.
    members = sorted({member for state in ordered for member in state.trust})
    told = {m: min(state.trust[m] for state in ordered if m in state.trust) for m in members}
    phi, momentum = torch.zeros_like(ordered[0].phi), torch.zeros_like(ordered[0].phi)
    for state, share in zip(ordered, shares, strict=True):
        phi += state.phi * share
        momentum += state.momentum * share
    version, round_ = max(s.version for s in ordered) + 1, max(s.round for s in ordered)
    is_final = any(s.is_final for s in ordered)
    after = _blank_state(ordered[0].block, ordered[0].size, version, round_, ages, is_final, kept(told, {}))
    return _filled(after, phi, momentum)


def weights(ordered: Sequence[Contribution], fresh: Sequence[int]) -> list[float]:
    """Return what each contribution, of so many new tokens, is multiplied with.

    Domains weigh the same; inside one, by new tokens, capped; an outlying norm is scaled down to the cap.
    """
    return _shares(ordered, capped(fresh), norm_scales(ordered))


def robust_weights(ordered: Sequence[Contribution], fresh: Sequence[int], factors: Sequence[float]) -> list[float]:
    """Return the same where members may be hostile: with lower caps, and each by what its offer was judged to be.

    The new tokens are capped already, for the ages as well.
    """
    counted = [tokens * factor for tokens, factor in zip(fresh, factors, strict=True)]
    return _shares(ordered, counted, norm_scales(ordered, ROBUST_NORM_CAP))


def _shares(ordered: Sequence[Contribution], counted: Sequence[float], scales: Sequence[float]) -> list[float]:
    totals: dict[str, float] = {}
    for contribution, tokens in zip(ordered, counted, strict=True):
        totals[contribution.domain] = totals.get(contribution.domain, 0.0) + tokens
    active = sum(1 for total in totals.values() if total > 0)
    shares = []
    for contribution, tokens, scale in zip(ordered, counted, scales, strict=True):
        share = tokens / totals[contribution.domain] / active if tokens else 0.0
        shares.append(share * scale)
    return shares


def believed(claimed: Sequence[int], spec: RunSpec) -> list[int]:
    """Return how many of the new tokens that each offer of a group claims are believed: never more than the run's cap.

    What is more than one of `PARTS` of the whole run is believed as far as it is like what the others bring. So one
    offer does not end the run; honest tokens beyond that count in the rounds that follow.
    """
    part = max(1, spec.total_tokens // PARTS)
    limits = []
    for index in range(len(claimed)):
        others = [tokens for other, tokens in enumerate(claimed) if other != index and tokens > 0]
        limits.append(min(spec.rounds.max_tokens, max(part, int(WEIGHT_CAP * median(others or [0])))))
    return [min(max(tokens, 0), limit) for tokens, limit in zip(claimed, limits, strict=True)]


def capped(fresh: Sequence[int], most: float = WEIGHT_CAP) -> list[float]:
    """Return how many of each peer's new tokens count: at most `most` times the median of those who have any."""
    cap = most * median([tokens for tokens in fresh if tokens] or [1])
    return [min(tokens, cap) for tokens in fresh]


def norm_scales(ordered: Sequence[Contribution], most: float = NORM_CAP) -> list[float]:
    """Return the factor that brings each norm down to `most` times the median, in groups of three or more."""
    limit = most * median([c.norm for c in ordered]) if len(ordered) >= 3 else math.inf
    return [limit / c.norm if c.norm > limit else 1.0 for c in ordered]


def grown(ages: Mapping[str, int], contributions: Sequence[Contribution], fresh: Sequence[int]) -> dict[str, int]:
    """Return the ages after `contributions` of so many new tokens: a grow-only counter."""
    after = dict(ages)
    for contribution, tokens in zip(contributions, fresh, strict=True):
        after[contribution.peer_id] = after.get(contribution.peer_id, 0) + tokens
    return folded(after, {contribution.peer_id for contribution in contributions})


def folded(ages: Mapping[str, int], kept: Collection[str]) -> dict[str, int]:
    """Return `ages` with at most `MAX_PEERS` entries: the smallest counts, but those of `kept`, are added to `SWARM`'s.

    The age stays what it was. A peer that was folded and comes back is counted from nothing: with the smallest counts
    that is the least there is to lose.
    """
    if len(ages) <= MAX_PEERS:
        return dict(ages)
    smallest = sorted((count, peer) for peer, count in ages.items() if peer != SWARM and peer not in kept)
    gone = {peer for _, peer in smallest[: len(ages) - MAX_PEERS + (SWARM not in ages)]}
    after = {peer: count for peer, count in ages.items() if peer not in gone}
    after[SWARM] = after.get(SWARM, 0) + sum(ages[peer] for peer in gone)
    return after


def _header(
    block: str, size: int, version: int, round_: int, ages: Mapping[str, int], is_final: bool, trust: Trust
) -> bytes:
    """Return the safetensors header, the same bytes everywhere; what comes from a peer must have exactly these."""
    facts = {
        "ages": json.dumps(dict(sorted(ages.items())), separators=(",", ":")),
        "block": block,
        "is_final": str(int(is_final)),
        "round": str(round_),
        "version": str(version),
    }
    if trust:  # without it, as states were written before there was any
        facts["trust"] = json.dumps(dict(sorted(trust.items())), separators=(",", ":"))
    tensors = {
        "phi": {"dtype": "F32", "shape": [size], "data_offsets": [0, 4 * size]},
        "momentum": {"dtype": "F32", "shape": [size], "data_offsets": [4 * size, 8 * size]},
    }
    return tensors_header(tensors, facts)


def _blank_state(
    block: str, size: int, version: int, round_: int, ages: Mapping[str, int], is_final: bool, trust: Trust
) -> OuterState:
    """Return a state whose values are yet to be written."""
    header = _header(block, size, version, round_, ages, is_final, trust)
    blob = np.empty(8 + len(header) + 8 * size, dtype=np.uint8).data
    blob[:8] = len(header).to_bytes(8, "little")
    blob[8 : 8 + len(header)] = header
    phi, momentum = _views(blob, 8 + len(header), size)
    return OuterState(blob, phi, momentum, block, version, round_, dict(ages), is_final, dict(trust))


def _filled(state: OuterState, phi: Tensor, momentum: Tensor | None) -> OuterState:
    state.phi.copy_(phi)
    state.momentum.zero_() if momentum is None else state.momentum.copy_(momentum)
    return state


def _views(blob: memoryview, start: int, size: int) -> tuple[Tensor, Tensor]:
    values = torch.frombuffer(blob, dtype=torch.float32, offset=start, count=2 * size)
    return values[:size], values[size:]


def common_tokens_of(spec: RunSpec, block: str) -> int | None:
    """Return the age at which `block` is final; None for a block whose training never parts."""
    return spec.strategy.common_tokens if block == "model" and spec.strategy.has_parting else None
