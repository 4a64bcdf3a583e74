"""How far each offer of a complete group counts where some members may be hostile. Pure: the same bits everywhere.

What a member learns goes on, in part, where the last steps went, and where the others go; what hurts does not. So two
cosines judge an offer: to the momentum, and to the sum of the others' offers. An offer that lies far below the median
of its round is left out of it; whose running means, kept in the block's state, lie far below the median weighs less,
or nothing. So does who goes where the last steps went far more than the others do: he repeats them, and has learnt
nothing. Those whose offers are nearly the same share the weight of one, so that a copy or an accomplice adds nothing.
All others weigh as they would in the mean, which is what honest training costs.

No direction that is new to the others is punished by its length alone, and nothing is pulled towards a centre: clipping
around the last step was tried, and costs honest members whose texts are unlike (`docs/decisions.md`).

**Exact sums.** A floating-point dot product depends on threads and vector widths. Here values are first rounded to
whole numbers so small that all their products, and all sums of these, are whole numbers below 2⁵³: exact in float64,
in any order. Of a large block some chunks are drawn by what was sealed, which nobody knows when he makes his offer.
What an offer hides in the others lowers its cosine, in which the norm of all values counts, which is signed.
"""

import hashlib
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

import torch
from torch import Tensor

ROBUST_MEMBERS = 5  # fewest offers that are judged: of four, a liar and one who is unlike the others look alike
NOW = 0.5  # of the median cosine of this round, below which an offer counts less, down to nothing at none
AHEAD = (0.4, 0.8)  # of the median running cosine to the last steps: counts nothing, and in full
BESIDE = (0.4, 0.75)  # the same for that to the others
# Who goes where the last steps went far more than others do repeats them, and learns nothing.
ECHO_NOW = (2.0, 1.4)  # of the median cosine of this round to the last steps: counts nothing, and in full
ECHO = (1.5, 1.25)  # of the median running cosine to them: the same
# Two who train on the same text are at 0.79 at most, as they read it at different places; a copy, rounded, is at 0.99.
ALIKE = (0.8, 0.95)  # cosine of two offers from which they share their weight: not at all, and wholly
MEMORY = 0.9  # what a running mean keeps of itself in a round
UNIT = 1 << 20  # in which cosines are kept
MAX_TRUSTED = 256  # members whose cosines are kept: of those who are away, the lowest
SAMPLED = 1 << 22  # most values of a block that are looked at
CHUNK = 4096  # values
EXACT_BITS = 53  # of a float64

# Member → its running cosines to the last steps and to the others, in `UNIT`s; 0 where there is none yet.
Trust = Mapping[str, tuple[int, int]]


def judged(
    members: Sequence[str], values: Sequence[Tensor], norms: Sequence[float], last: Tensor, trust: Trust
) -> tuple[list[float], dict[str, tuple[int, int]]]:
    """Return the factor, from 0 to 1, of each member's offer, and the trust after the round.

    members, values, norms    of the offers, in the order of the members' names: D(u), (N,), and the signed norms
    last                      the momentum, (N,): the direction of the last steps; zeros where there were none
    """
    seed = ",".join(f"{member} {norm.hex()}" for member, norm in zip(members, norms, strict=True))
    spans = list(drawn(last.numel(), seed))
    seen = sum(span.stop - span.start for span in spans) / last.numel()
    products = [[each / seen for each in row] for row in exact_products([*values, last], spans)]
    length = math.sqrt(products[-1][-1])
    before = [trust.get(member, (0, 0)) for member in members]
    factors, ahead = [1.0] * len(members), [old for old, _ in before]
    if length:
        cosines = [_cosine(row[-1], norm, length) for row, norm in zip(products, norms, strict=False)]
        ahead = _running(ahead, cosines)
        of_round = _ramp(cosines, 0.0, NOW), _ramp(cosines, *ECHO_NOW)
        factors = list(map(min, *of_round, _ramp(ahead, *AHEAD), _ramp(ahead, *ECHO)))
    else:  # nothing to go by but the others, of whom some may lie: look again without those
        for _ in range(3):
            factors = _ramp(_to_others(products, norms, factors), 0.0, NOW)
    beside = _running([old for _, old in before], _to_others(products, norms, factors))
    factors = _shared(products, norms, list(map(min, factors, _ramp(beside, *BESIDE))))
    now = {m: (forth, side) for m, forth, side in zip(members, ahead, beside, strict=True)}
    return factors if any(factors) else [1.0] * len(members), kept(trust, now)


def kept(trust: Trust, now: Trust) -> dict[str, tuple[int, int]]:
    """Return the trust with that of `now`; of those who are away, as many of the least trusted as there is room for."""
    away = sorted((cosines, member) for member, cosines in trust.items() if member not in now)
    return {member: cosines for cosines, member in away[: max(0, MAX_TRUSTED - len(now))]} | dict(now)


def drawn(size: int, seed: str) -> Iterator[slice]:
    """Yield the spans of a block that are looked at: all of it, or some evenly spaced chunks, drawn by `seed`."""
    if size <= SAMPLED:
        yield from (slice(at, min(at + CHUNK, size)) for at in range(0, size, CHUNK))
        return
    stride = -(-size // SAMPLED)
    first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") % stride
    yield from (slice(at, min(at + CHUNK, size)) for at in range(first * CHUNK, size, stride * CHUNK))


def exact_products(vectors: Sequence[Tensor], spans: Sequence[slice]) -> list[list[float]]:
    """Return the dot products of all pairs of `vectors`, float32, (N,) each, over `spans`: the same bits always.

    Each vector is rounded to whole numbers of at most so many bits that no sum of products reaches 2⁵³: with 4 M
    values 15 bits, so an error of 2⁻¹⁶ of its largest value.
    """
    count = sum(span.stop - span.start for span in spans)
    bits = (EXACT_BITS - max(1, count.bit_length())) // 2
    exponents = [_exponent(vector, spans) for vector in vectors]
    scales = torch.tensor([[2.0 ** (bits - exponent)] for exponent in exponents], dtype=torch.float64)
    sums = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for span in spans:
        whole = torch.stack([vector[span] for vector in vectors]).double().mul_(scales).round_()
        sums += whole @ whole.T
    return [
        [math.ldexp(float(each), exponent + other - 2 * bits) for each, other in zip(row, exponents, strict=True)]
        for row, exponent in zip(sums, exponents, strict=True)
    ]


def _exponent(vector: Tensor, spans: Sequence[slice]) -> int:
    """Return the least e for which all values in the spans are below 2ᵉ. A maximum is exact in any order."""
    largest = max((float(each) for span in spans for each in vector[span].aminmax()), key=abs)
    return math.frexp(largest)[1]


def _to_others(products: Sequence[Sequence[float]], norms: Sequence[float], factors: Sequence[float]) -> list[float]:
    """Return the cosine of each offer to the sum of the others', by their factors, none longer than the median."""
    limit = median(norms)
    shares = [factor * min(1.0, limit / norm) if norm else 0.0 for factor, norm in zip(factors, norms, strict=True)]
    sums = [math.fsum(share * each for share, each in zip(shares, row, strict=False)) for row in products[:-1]]
    total = math.fsum(share * each for share, each in zip(shares, sums, strict=True))
    found = []
    for index, (share, norm) in enumerate(zip(shares, norms, strict=True)):
        own = products[index][index]
        rest = total - 2 * share * sums[index] + share * share * own
        found.append(_cosine(sums[index] - share * own, norm, math.sqrt(max(0.0, rest))))
    return found


def _shared(products: Sequence[Sequence[float]], norms: Sequence[float], factors: Sequence[float]) -> list[float]:
    """Return the factors, with those of nearly the same offers shared between them: copies count as much as one."""
    shared = []
    for index, (factor, norm) in enumerate(zip(factors, norms, strict=True)):
        others = zip(products[index], norms, strict=False)
        alike = [_between(_cosine(product, norm, other), *ALIKE) for product, other in others]
        alike[index] = 0.0
        shared.append(factor / (1 + math.fsum(map(operator.mul, alike, factors))))
    return shared


def _cosine(product: float, norm: float, other: float) -> float:
    return max(-1.0, min(1.0, product / (norm * other))) if norm and other else 0.0


def _running(before: Sequence[int], cosines: Sequence[float]) -> list[int]:
    """Return the running means with this round's cosines, in `UNIT`s; who has none yet, 0, begins with its first."""
    return [
        round(MEMORY * old + (1 - MEMORY) * UNIT * cosine if old else UNIT * cosine)
        for old, cosine in zip(before, cosines, strict=True)
    ]


def _ramp(cosines: Sequence[float], none: float, full: float) -> list[float]:
    """Return a factor for each cosine, by its share of their median: 0 at `none` and beyond, 1 at `full` and beyond.

    Where most go nowhere together, nobody can say who is wrong: then all count.
    """
    middle = median(cosines)
    if middle <= 0:
        return [1.0] * len(cosines)
    return [_between(cosine / middle, none, full) for cosine in cosines]


def _between(value: float, none: float, full: float) -> float:
    """Return how far a value is on the way from `none`, 0, to `full`, 1."""
    return min(1.0, max(0.0, (value - none) / (full - none)))
